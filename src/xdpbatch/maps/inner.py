"""What a map-in-map asks of the maps in it.

Analogous to bpf_map_meta_alloc() and bpf_map_meta_equal() (kernel/bpf/map_in_map.c): every inner
map must look like the template that the outer one was created with.
"""

from __future__ import annotations

import errno

from xdpbatch.maps import ENOTSUPP, Map, by_id, refuse
from xdpbatch.program import MapSpec
from xdpbatch.uapi import BPF_F_INNER_MAP, MapNumber

NOT_INNER = frozenset({MapNumber.PROG_ARRAY, MapNumber.STACK_TRACE, MapNumber.STRUCT_OPS})
NESTED = frozenset({MapNumber.ARRAY_OF_MAPS, MapNumber.HASH_OF_MAPS})


def check_inner(spec: MapSpec) -> None:
    """Refuse a map-in-map whose template is missing, is nested, or cannot be an inner map."""
    if spec.inner is None:
        raise refuse(errno.EINVAL, spec, "the template of the inner maps is missing")
    if spec.inner.type in NESTED:
        raise refuse(errno.EINVAL, spec, "maps nest only once")
    if spec.inner.type in NOT_INNER:
        raise refuse(ENOTSUPP, spec, "maps of that type cannot be inner maps")


def like(template: MapSpec, inner: MapSpec) -> bool:
    """Whether a map can stand in for the template; arrays of another length only if it says so."""
    fixed = ("type", "key_size", "value_size", "flags")
    if any(getattr(template, name) != getattr(inner, name) for name in fixed):
        return False
    if template.type != MapNumber.ARRAY or template.flags & BPF_F_INNER_MAP:
        return True
    return template.max_entries == inner.max_entries


def inner_map(outer: Map, value: bytes) -> Map | int:
    """The map that a value from user space names by id, or -errno."""
    inner = by_id.get(int.from_bytes(value, "little"))
    if inner is None:
        return -errno.EBADF
    if outer.spec.inner is None or not like(outer.spec.inner, inner.spec):
        return -errno.EINVAL
    return inner
