"""BPF_MAP_TYPE_DEVMAP: network devices by index, for bpf_redirect_map().

Analogous to dev_map_ops (kernel/bpf/devmap.c). An entry is 16 bytes: u32 ifindex (0: empty), u32 id
of the program that runs on the way out (0: none), u64 address of its native SINGLE layout. The
first 8 bytes are struct bpf_devmap_val. Any ifindex is accepted: devices are this runtime's ports.
"""

from __future__ import annotations

import errno

from xdpbatch.maps import (
    SIZEOF_HEADER,
    Map,
    MapType,
    ProgramEntry,
    check_flags,
    programs,
    refuse,
)
from xdpbatch.maps.array import next_key
from xdpbatch.maps.redirects import redirect as redirect_with
from xdpbatch.mem import load32, store32, store64
from xdpbatch.native import native
from xdpbatch.program import Attach, MapSpec
from xdpbatch.uapi import (
    BPF_EXIST,
    BPF_F_BROADCAST,
    BPF_F_EXCLUDE_INGRESS,
    BPF_F_NUMA_NODE,
    BPF_F_RDONLY,
    BPF_F_WRONLY,
    BPF_NOEXIST,
    MapNumber,
)

EINVAL = errno.EINVAL
ENTRY = 16
IFINDEX, PROGRAM, ADDRESS = 0, 4, 8
TO_MANY = BPF_F_BROADCAST | BPF_F_EXCLUDE_INGRESS
NUMBER = int(MapNumber.DEVMAP)


@native
def entry_of(map: int, index: int, max_entries: int) -> int:
    """Address of a used entry, 0 if it is empty or out of range."""
    if index >= max_entries:
        return 0
    entry = map + SIZEOF_HEADER + index * ENTRY
    if load32(entry + IFINDEX) == 0:
        return 0
    return entry


@native
def lookup(map: int, key: int, max_entries: int) -> int:
    """Address of the entry's bpf_devmap_val, read-only to programs; 0 if there is none."""
    return entry_of(map, load32(key), max_entries)


@native
def redirect(buff: int, map: int, key: int, flags: int, max_entries: int) -> int:
    """bpf_redirect_map()."""
    entry = entry_of(map, key & 0xFFFFFFFF, max_entries)
    return redirect_with(buff, map, NUMBER, key, flags, TO_MANY, entry)


@native
def clear(map: int, key: int, max_entries: int) -> int:
    """Empty an entry, which may be empty."""
    index = load32(key)
    if index >= max_entries:
        return -EINVAL
    store32(map + SIZEOF_HEADER + index * ENTRY + IFINDEX, 0)
    return 0


@native
def device_after(map: int, entry: int, max_entries: int) -> int:
    """Address of the next used entry in the order of a broadcast; `entry` 0: the first; 0: none."""
    at = map + SIZEOF_HEADER
    end = at + max_entries * ENTRY
    if entry != 0:
        at = entry + ENTRY
    while at < end:
        if load32(at + IFINDEX) != 0:
            return at
        at += ENTRY
    return 0


def check_devmap(spec: MapSpec) -> None:
    """dev_map_alloc_check()."""
    if not spec.max_entries or spec.key_size != 4 or spec.value_size not in (4, 8):
        raise refuse(EINVAL, spec, "a device map has 4-byte keys, values of 4 or 8 bytes, entries")
    check_flags(spec, BPF_F_NUMA_NODE | BPF_F_RDONLY | BPF_F_WRONLY)


def program_of(value: bytes, attach: Attach) -> ProgramEntry | None:
    """The program that bytes 4-7 of a value name, None if they name none. KeyError if it is not
    known or not meant for that."""
    number = int.from_bytes(value[4:8], "little")
    if not number:
        return None
    if programs[number].attach != attach:
        raise KeyError(number)
    return programs[number]


def store_entry(entry: int, value: bytes, program: ProgramEntry | None) -> None:
    """Write an entry; its first word last, so that it is complete when it appears."""
    store32(entry + PROGRAM, program.id if program else 0)
    store64(entry + ADDRESS, program.address if program else 0)
    store32(entry + IFINDEX, int.from_bytes(value[:4], "little"))


class Devmap(MapType):
    number = MapNumber.DEVMAP
    name = "devmap"
    lookup = lookup
    delete = clear
    next_key = next_key
    redirect = redirect
    quiet_lookup = lookup

    def check(self, spec: MapSpec) -> None:
        check_devmap(spec)

    def size(self, spec: MapSpec) -> int:
        return SIZEOF_HEADER + spec.max_entries * ENTRY

    def write(self, m: Map, key: int, value: bytes, flags: int) -> int:
        index = load32(key)
        if flags > BPF_EXIST:
            return -EINVAL
        if index >= m.spec.max_entries:
            return -errno.E2BIG
        if flags == BPF_NOEXIST:
            return -errno.EEXIST
        try:
            program = program_of(value, Attach.DEVMAP)
        except KeyError:
            return -EINVAL
        if program and not any(value[:4]):
            return -EINVAL
        store_entry(m.address + SIZEOF_HEADER + index * ENTRY, value, program)
        return 0


TYPE = Devmap()
