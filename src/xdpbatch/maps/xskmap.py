"""BPF_MAP_TYPE_XSKMAP: AF_XDP sockets by index, for bpf_redirect_map().

Analogous to xsk_map_ops (net/xdp/xskmap.c). An entry is 8 bytes: u32 number of the socket, which is
a port of this runtime, u32 whether the entry is used. A program that looks an entry up sees it as
struct bpf_xdp_sock: the number stands where `queue_id` is.
"""

from __future__ import annotations

import errno

from xdpbatch.maps import SIZEOF_HEADER, Map, MapType, check_flags, refuse
from xdpbatch.maps.array import next_key
from xdpbatch.maps.redirects import redirect as redirect_with
from xdpbatch.mem import load32, store32
from xdpbatch.native import native
from xdpbatch.program import MapSpec
from xdpbatch.uapi import (
    BPF_EXIST,
    BPF_F_NUMA_NODE,
    BPF_F_RDONLY,
    BPF_F_WRONLY,
    BPF_NOEXIST,
    MapNumber,
)

EINVAL, EOPNOTSUPP = errno.EINVAL, errno.EOPNOTSUPP
ENTRY = 8
SOCKET, USED = 0, 4
NUMBER = int(MapNumber.XSKMAP)


@native
def entry_of(map: int, index: int, max_entries: int) -> int:
    """Address of a used entry, 0 if it is empty or out of range."""
    if index >= max_entries:
        return 0
    entry = map + SIZEOF_HEADER + index * ENTRY
    if load32(entry + USED) == 0:
        return 0
    return entry


@native
def lookup(map: int, key: int, max_entries: int) -> int:
    """Address of the entry, 0 if there is none."""
    return entry_of(map, load32(key), max_entries)


@native
def user_lookup() -> int:
    """Sockets cannot be read."""
    return -EOPNOTSUPP


@native
def redirect(buff: int, map: int, key: int, flags: int, max_entries: int) -> int:
    """bpf_redirect_map()."""
    entry = entry_of(map, key & 0xFFFFFFFF, max_entries)
    return redirect_with(buff, map, NUMBER, key, flags, 0, entry)


@native
def clear(map: int, key: int, max_entries: int) -> int:
    """Empty an entry, which may be empty."""
    index = load32(key)
    if index >= max_entries:
        return -EINVAL
    store32(map + SIZEOF_HEADER + index * ENTRY + USED, 0)
    return 0


class Xskmap(MapType):
    number = MapNumber.XSKMAP
    name = "xskmap"
    lookup = lookup
    delete = clear
    next_key = next_key
    redirect = redirect
    quiet_lookup = lookup
    user_lookup = user_lookup

    def check(self, spec: MapSpec) -> None:
        if not spec.max_entries or spec.key_size != 4 or spec.value_size != 4:
            raise refuse(EINVAL, spec, "a socket map has 4-byte keys, 4-byte values and entries")
        check_flags(spec, BPF_F_NUMA_NODE | BPF_F_RDONLY | BPF_F_WRONLY)

    def size(self, spec: MapSpec) -> int:
        return SIZEOF_HEADER + spec.max_entries * ENTRY

    def write(self, m: Map, key: int, value: bytes, flags: int) -> int:
        index, socket = load32(key), int.from_bytes(value, "little")
        if flags > BPF_EXIST:
            return -EINVAL
        if index >= m.spec.max_entries:
            return -errno.E2BIG
        entry = m.address + SIZEOF_HEADER + index * ENTRY
        used = load32(entry + USED)
        if not used and flags == BPF_EXIST:
            return -errno.ENOENT
        if used and flags == BPF_NOEXIST and load32(entry + SOCKET) != socket:
            return -errno.EEXIST
        store32(entry + SOCKET, socket)
        store32(entry + USED, 1)
        return 0


TYPE = Xskmap()
