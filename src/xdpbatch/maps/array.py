"""BPF_MAP_TYPE_ARRAY: values side by side, indexed by a u32 key; always full.

Analogous to kernel/bpf/arraymap.c. Block: header, then max_entries values at a stride of value_size
rounded up to 8. The first value starts at SIZEOF_HEADER: data sections are addressed through it.
"""

from __future__ import annotations

import errno

from xdpbatch.maps import (
    ACCESS_FLAGS,
    INT_MAX,
    PCPU_MIN_UNIT_SIZE,
    SIZEOF_HEADER,
    MapType,
    check_flags,
    refuse,
    round_up,
)
from xdpbatch.mem import copy, load32, prefetch, store32, store64
from xdpbatch.native import native
from xdpbatch.program import MapSpec
from xdpbatch.uapi import (
    BPF_EXIST,
    BPF_F_INNER_MAP,
    BPF_F_LOCK,
    BPF_F_MMAPABLE,
    BPF_F_NUMA_NODE,
    BPF_NOEXIST,
    MapNumber,
)

EINVAL, ENOENT, E2BIG, EEXIST = errno.EINVAL, errno.ENOENT, errno.E2BIG, errno.EEXIST


@native
def lookup(map: int, key: int, value_size: int, max_entries: int) -> int:
    """Address of the value, 0 if the index is out of range."""
    index = load32(key)
    if index >= max_entries:
        return 0
    return map + SIZEOF_HEADER + index * ((value_size + 7) & -8)


@native
def prefetch_value(map: int, key: int, value_size: int, max_entries: int) -> int:
    """The value, in one step."""
    return prefetch(lookup(map, key, value_size, max_entries))


@native
def refused(key: int, flags: int, max_entries: int) -> int:
    """What array_map_update_elem() checks before it writes: 0 or -errno."""
    if flags < 0 or flags & ~BPF_F_LOCK > BPF_EXIST:
        return -EINVAL
    if load32(key) >= max_entries:
        return -E2BIG
    if flags & BPF_NOEXIST:
        return -EEXIST
    if flags & BPF_F_LOCK:
        return -EINVAL  # no value of this runtime's maps holds a bpf_spin_lock
    return 0


@native
def update(
    map: int,
    key: int,
    value: int,
    flags: int,
    value_size: int,
    max_entries: int,
) -> int:
    """Copy `value` into place."""
    error = refused(key, flags, max_entries)
    if error != 0:
        return error
    copy(lookup(map, key, value_size, max_entries), value, value_size)
    return 0


@native
def delete(key: int) -> int:
    """Elements of an array cannot be deleted."""
    return -EINVAL


@native
def next_key(key: int, next: int, max_entries: int) -> int:
    """The indices in order; any index out of range is followed by 0."""
    index = max_entries
    if key != 0:
        index = load32(key)
    if index >= max_entries:
        store32(next, 0)
        return 0
    if index == max_entries - 1:
        return -ENOENT
    store32(next, index + 1)
    return 0


@native
def visit(map: int, position: int, entry: int, value_size: int, max_entries: int) -> int:
    """The elements in order; their keys are kept beside the entry."""
    if position >= max_entries:
        return 0
    store64(entry + 16, position)
    store64(entry, entry + 16)
    store64(entry + 8, lookup(map, entry + 16, value_size, max_entries))
    return position + 1


def check_array(spec: MapSpec, flags: int, per_cpu: bool = False) -> None:
    """array_map_alloc_check()."""
    if not spec.max_entries or spec.key_size != 4 or not spec.value_size:
        raise refuse(EINVAL, spec, "an array has a 4-byte key, values and entries")
    check_flags(spec, flags)
    if spec.value_size > INT_MAX:
        raise refuse(E2BIG, spec, "the value is too large")
    if per_cpu and round_up(spec.value_size, 8) > PCPU_MIN_UNIT_SIZE:
        raise refuse(E2BIG, spec, f"a per-CPU value is at most {PCPU_MIN_UNIT_SIZE} bytes")


class Array(MapType):
    number = MapNumber.ARRAY
    name = "array"
    lookup = lookup
    update = update
    delete = delete
    next_key = next_key
    visit = visit
    quiet_lookup = lookup
    prefetch = prefetch_value
    prefetch_steps = 1

    def check(self, spec: MapSpec) -> None:
        check_array(spec, ACCESS_FLAGS | BPF_F_NUMA_NODE | BPF_F_MMAPABLE | BPF_F_INNER_MAP)

    def size(self, spec: MapSpec) -> int:
        return SIZEOF_HEADER + spec.max_entries * round_up(spec.value_size, 8)


TYPE = Array()
