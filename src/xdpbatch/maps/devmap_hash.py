"""BPF_MAP_TYPE_DEVMAP_HASH: network devices by any u32 key, for bpf_redirect_map().

Analogous to dev_map_hash_ops (kernel/bpf/devmap.c): as there, a key's bucket is its low bits, and a
new entry goes first in its bucket, so that iteration and broadcast have the kernel's order.

    heads    u32[buckets], entry number + 1, 0: none
    entries  a devmap's 16 bytes | u32 key | u32 next (as heads) | 8 unused
"""

from __future__ import annotations

import errno

from xdpbatch.maps import OWN, SIZEOF_HEADER, Map, MapType, refuse, round_up
from xdpbatch.maps.devmap import TO_MANY, check_devmap, program_of, store_entry
from xdpbatch.maps.redirects import redirect as redirect_with
from xdpbatch.mem import load32, load64, prefetch, store32, store64
from xdpbatch.native import native
from xdpbatch.program import Attach, MapSpec
from xdpbatch.uapi import BPF_EXIST, BPF_NOEXIST, MapNumber

EINVAL, ENOENT = errno.EINVAL, errno.ENOENT
ENTRIES, MASK, COUNT, FREE, FRESH = OWN, OWN + 8, OWN + 12, OWN + 16, OWN + 20
ENTRY, KEY, NEXT = 32, 16, 20
NUMBER = int(MapNumber.DEVMAP_HASH)
MAX_ENTRIES = 1 << 31


@native
def entry_at(map: int, link: int) -> int:
    """Address of the entry that a link names, 0 for none."""
    if link == 0:
        return 0
    return load64(map + ENTRIES) + (link - 1) * ENTRY


@native
def head_of(map: int, key: int) -> int:
    """Address of the link to a key's bucket."""
    return map + SIZEOF_HEADER + (key & load32(map + MASK)) * 4


@native
def link_to(map: int, key: int) -> int:
    """Address of the link to a key's entry; of the link at the bucket's end if there is none."""
    link = head_of(map, key)
    while load32(link) != 0:
        entry = entry_at(map, load32(link))
        if load32(entry + KEY) == key:
            return link
        link = entry + NEXT
    return link


@native
def lookup(map: int, key: int) -> int:
    """Address of the entry's bpf_devmap_val, read-only to programs; 0 if there is none."""
    return entry_at(map, load32(link_to(map, load32(key))))


@native
def prefetch_entry(map: int, key: int, step: int) -> int:
    """The bucket's link, then its first entry."""
    head = head_of(map, load32(key))
    if step == 0:
        return prefetch(head)
    return prefetch(entry_at(map, load32(head)))


@native
def redirect(buff: int, map: int, key: int, flags: int) -> int:
    """bpf_redirect_map()."""
    entry = entry_at(map, load32(link_to(map, key & 0xFFFFFFFF)))
    return redirect_with(buff, map, NUMBER, key, flags, TO_MANY, entry)


@native
def delete(map: int, key: int) -> int:
    """Remove an entry."""
    link = link_to(map, load32(key))
    number = load32(link)
    if number == 0:
        return -ENOENT
    entry = entry_at(map, number)
    store32(link, load32(entry + NEXT))
    store32(entry + NEXT, load32(map + FREE))
    store32(map + FREE, number)
    store32(map + COUNT, load32(map + COUNT) - 1)
    return 0


@native
def device_after(map: int, entry: int) -> int:
    """Address of the next entry in the order of a broadcast; `entry` 0: the first; 0: none."""
    bucket = 0
    if entry != 0:
        link = load32(entry + NEXT)
        if link != 0:
            return entry_at(map, link)
        bucket = (load32(entry + KEY) & load32(map + MASK)) + 1
    while bucket <= load32(map + MASK):
        link = load32(map + SIZEOF_HEADER + bucket * 4)
        if link != 0:
            return entry_at(map, link)
        bucket += 1
    return 0


@native
def next_key(map: int, key: int, next: int) -> int:
    """Keys in that order."""
    entry = 0
    if key != 0:
        entry = lookup(map, key)
    entry = device_after(map, entry)
    if entry == 0:
        return -ENOENT
    store32(next, load32(entry + KEY))
    return 0


@native
def take(map: int) -> int:
    """The number of an entry that is not used; there must be one."""
    number = load32(map + FREE)
    if number != 0:
        store32(map + FREE, load32(entry_at(map, number) + NEXT))
        return number
    number = load32(map + FRESH) + 1
    store32(map + FRESH, number)
    return number


class DevmapHash(MapType):
    number = MapNumber.DEVMAP_HASH
    name = "devmap_hash"
    lookup = lookup
    delete = delete
    next_key = next_key
    redirect = redirect
    quiet_lookup = lookup
    prefetch = prefetch_entry
    prefetch_steps = 2

    def check(self, spec: MapSpec) -> None:
        check_devmap(spec)
        if spec.max_entries > MAX_ENTRIES:
            raise refuse(EINVAL, spec, f"a device map has at most {MAX_ENTRIES} entries")

    def heads(self, spec: MapSpec) -> int:
        """Bytes of the buckets' links: a power of two of them, as many as entries."""
        return round_up(4 << (spec.max_entries - 1).bit_length(), 16)

    def size(self, spec: MapSpec) -> int:
        return SIZEOF_HEADER + self.heads(spec) + spec.max_entries * ENTRY

    def init(self, address: int, spec: MapSpec) -> None:
        store64(address + ENTRIES, address + SIZEOF_HEADER + self.heads(spec))
        store32(address + MASK, (1 << (spec.max_entries - 1).bit_length()) - 1)

    def write(self, m: Map, key: int, value: bytes, flags: int) -> int:
        number = load32(key)
        if flags > BPF_EXIST or not any(value[:4]):
            return -EINVAL
        link = link_to(m.address, number)
        if load32(link) and flags & BPF_NOEXIST:
            return -errno.EEXIST
        try:
            program = program_of(value, Attach.DEVMAP)
        except KeyError:
            return -EINVAL
        if load32(link):
            delete(m.address, key)
        elif load32(m.address + COUNT) == m.spec.max_entries:
            return -errno.E2BIG
        taken, head = take(m.address), head_of(m.address, number)
        entry = entry_at(m.address, taken)
        store_entry(entry, value, program)
        store32(entry + KEY, number)
        store32(entry + NEXT, load32(head))
        store32(head, taken)
        store32(m.address + COUNT, load32(m.address + COUNT) + 1)
        return 0


TYPE = DevmapHash()
