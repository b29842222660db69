"""BPF_MAP_TYPE_ARRAY_OF_MAPS: maps by index.

Analogous to array_of_maps_map_ops (kernel/bpf/arraymap.c). An entry is the u64 address of the inner
map, 0 if empty. From user space the value is the inner map's id, to read and to write.
"""

from __future__ import annotations

import errno

from xdpbatch.maps import ACCESS_FLAGS, MAP_ID, SIZEOF_HEADER, Map, MapType
from xdpbatch.maps.array import next_key
from xdpbatch.maps.inner import check_inner, inner_map
from xdpbatch.maps.prog_array import check_fd_array
from xdpbatch.mem import load32, load64, prefetch, store64
from xdpbatch.native import native
from xdpbatch.program import MapSpec
from xdpbatch.uapi import BPF_ANY, BPF_F_NUMA_NODE, MapNumber

E2BIG, ENOENT = errno.E2BIG, errno.ENOENT
ENTRY = 8


@native
def lookup(map: int, key: int, max_entries: int) -> int:
    """Address of the inner map, 0 if there is none."""
    index = load32(key)
    if index >= max_entries:
        return 0
    return load64(map + SIZEOF_HEADER + index * ENTRY)


@native
def user_lookup(map: int, key: int, max_entries: int) -> int:
    """Address of the inner map's id, 0 if there is none."""
    inner = lookup(map, key, max_entries)
    if inner == 0:
        return 0
    return inner + MAP_ID


@native
def prefetch_map(map: int, key: int, step: int, max_entries: int) -> int:
    """The entry, then the header of the inner map."""
    if step == 1:
        return prefetch(lookup(map, key, max_entries))
    index = load32(key)
    if index >= max_entries:
        return 0
    return prefetch(map + SIZEOF_HEADER + index * ENTRY)


@native
def clear(map: int, key: int, max_entries: int) -> int:
    """Empty an entry."""
    index = load32(key)
    if index >= max_entries:
        return -E2BIG
    entry = map + SIZEOF_HEADER + index * ENTRY
    if load64(entry) == 0:
        return -ENOENT
    store64(entry, 0)
    return 0


class ArrayOfMaps(MapType):
    number = MapNumber.ARRAY_OF_MAPS
    name = "array_of_maps"
    lookup = lookup
    delete = clear
    next_key = next_key
    user_lookup = user_lookup
    quiet_lookup = lookup
    prefetch = prefetch_map
    prefetch_steps = 2

    def check(self, spec: MapSpec) -> None:
        check_inner(spec)
        check_fd_array(spec, ACCESS_FLAGS | BPF_F_NUMA_NODE)

    def size(self, spec: MapSpec) -> int:
        return SIZEOF_HEADER + spec.max_entries * ENTRY

    def write(self, m: Map, key: int, value: bytes, flags: int) -> int:
        if flags != BPF_ANY:
            return -errno.EINVAL
        index = load32(key)
        if index >= m.spec.max_entries:
            return -E2BIG
        inner = inner_map(m, value)
        if isinstance(inner, int):
            return inner
        m.hold(index.to_bytes(4, "little"), inner)
        store64(m.address + SIZEOF_HEADER + index * ENTRY, inner.address)
        return 0


TYPE = ArrayOfMaps()
