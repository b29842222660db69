"""BPF_MAP_TYPE_HASH_OF_MAPS: maps by any key.

Analogous to htab_of_maps_map_ops (kernel/bpf/hashtab.c): a hash whose values are the u64 addresses
of the inner maps. From user space the value is the inner map's id, to read and to write.
"""

from __future__ import annotations

import errno
from dataclasses import replace

from xdpbatch.data.layout import bytes_at
from xdpbatch.maps import MAP_ID, Map, MapType, address_in, refuse
from xdpbatch.maps.hash import delete as delete_value
from xdpbatch.maps.hash import init_spare, next_key_of
from xdpbatch.maps.hash import lookup as lookup_value
from xdpbatch.maps.hash import prefetch as prefetch_value
from xdpbatch.maps.hash import update as update_value
from xdpbatch.maps.inner import check_inner, inner_map
from xdpbatch.maps.table import check_hash, table_init, table_size
from xdpbatch.mem import load64, prefetch
from xdpbatch.native import native
from xdpbatch.program import MapSpec
from xdpbatch.uapi import MapNumber

ADDRESS = 8  # bytes of a value in memory


@native
def lookup(map: int, key: int, key_size: int) -> int:
    """Address of the inner map, 0 if there is none."""
    value = lookup_value(map, key, key_size, ADDRESS)
    if value == 0:
        return 0
    return load64(value)


@native
def user_lookup(map: int, key: int, key_size: int) -> int:
    """Address of the inner map's id, 0 if there is none."""
    inner = lookup(map, key, key_size)
    if inner == 0:
        return 0
    return inner + MAP_ID


@native
def prefetch_map(map: int, key: int, step: int, key_size: int) -> int:
    """The bucket, the element, then the header of the inner map."""
    if step == 2:
        return prefetch(lookup(map, key, key_size))
    return prefetch_value(map, key, step, key_size, ADDRESS)


@native
def delete(map: int, key: int, key_size: int) -> int:
    """Remove a key."""
    return delete_value(map, key, key_size, ADDRESS)


@native
def next_key(map: int, key: int, next: int, key_size: int) -> int:
    """Keys in bucket order."""
    return next_key_of(map, key, next, 0, key_size, ADDRESS)


class HashOfMaps(MapType):
    number = MapNumber.HASH_OF_MAPS
    name = "hash_of_maps"
    lookup = lookup
    delete = delete
    next_key = next_key
    user_lookup = user_lookup
    quiet_lookup = lookup
    prefetch = prefetch_map
    prefetch_steps = 3

    def check(self, spec: MapSpec) -> None:
        check_inner(spec)
        if spec.value_size != 4:
            raise refuse(errno.EINVAL, spec, "the values of this type are 4 bytes")
        check_hash(spec)

    def size(self, spec: MapSpec) -> int:
        return table_size(replace(spec, value_size=ADDRESS), spec.max_entries + 1, 0, 1)

    def init(self, address: int, spec: MapSpec) -> None:
        table_init(address, replace(spec, value_size=ADDRESS), spec.max_entries + 1, 0, 1)
        init_spare(address, spec)

    def write(self, m: Map, key: int, value: bytes, flags: int) -> int:
        inner = inner_map(m, value)
        if isinstance(inner, int):
            return inner
        stored = inner.address.to_bytes(8, "little")
        size = m.spec.key_size
        given = (m.address, key, address_in(stored), flags, size, ADDRESS, m.spec.flags)
        error = update_value(*given)
        if not error:
            m.hold(bytes_at(key, size), inner)
        return error


TYPE = HashOfMaps()
