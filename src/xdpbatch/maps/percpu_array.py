"""BPF_MAP_TYPE_PERCPU_ARRAY: an array for each CPU; a program sees its own CPU's values.

Analogous to percpu_array_map_ops (kernel/bpf/arraymap.c). Block: header, then one array for each
CPU, each at a multiple of a cache line, so that CPUs never share one.
"""

from __future__ import annotations

from xdpbatch.data.buff import RXQ, RXQ_CPU
from xdpbatch.maps import ACCESS_FLAGS, ALL_CPUS, CPUS, SIZEOF_HEADER, MapType, round_up
from xdpbatch.maps.array import check_array, delete, next_key, refused
from xdpbatch.maps.array import visit as visit_array
from xdpbatch.mem import copy, load32, load64, prefetch, store64
from xdpbatch.native import native
from xdpbatch.program import MapSpec
from xdpbatch.uapi import BPF_F_NUMA_NODE, MapNumber

LINE = 64


@native
def lookup_cpu(map: int, key: int, cpu: int, value_size: int, max_entries: int) -> int:
    """Address of one CPU's value, 0 if index or CPU are out of range."""
    index = load32(key)
    cpu &= 0xFFFFFFFF
    if index >= max_entries or cpu >= CPUS:
        return 0
    stride = (value_size + 7) & -8
    region = (max_entries * stride + LINE - 1) & -LINE
    return map + SIZEOF_HEADER + cpu * region + index * stride


@native
def lookup(buff: int, map: int, key: int, value_size: int, max_entries: int) -> int:
    """Address of this CPU's value, 0 if the index is out of range."""
    return lookup_cpu(map, key, load32(load64(buff + RXQ) + RXQ_CPU), value_size, max_entries)


@native
def prefetch_value(buff: int, map: int, key: int, value_size: int, max_entries: int) -> int:
    """This CPU's value, in one step."""
    return prefetch(lookup(buff, map, key, value_size, max_entries))


@native
def update_cpu(
    map: int, key: int, value: int, flags: int, cpu: int, value_size: int, max_entries: int
) -> int:
    """Copy `value` to one CPU's, or all CPUs' values, each padded to 8 bytes, to all."""
    error = refused(key, flags, max_entries)
    if error != 0:
        return error
    if cpu != ALL_CPUS:
        copy(lookup_cpu(map, key, cpu, value_size, max_entries), value, value_size)
        return 0
    stride = (value_size + 7) & -8
    for i in range(CPUS):
        copy(lookup_cpu(map, key, i, value_size, max_entries), value + i * stride, stride)
    return 0


@native
def update(
    buff: int, map: int, key: int, value: int, flags: int, value_size: int, max_entries: int
) -> int:
    """Copy `value` to this CPU's value."""
    cpu = load32(load64(buff + RXQ) + RXQ_CPU)
    return update_cpu(map, key, value, flags, cpu, value_size, max_entries)


@native
def visit(buff: int, map: int, position: int, entry: int, value_size: int, max_entries: int) -> int:
    """The elements in order, with this CPU's values."""
    following = visit_array(map, position, entry, value_size, max_entries)
    if following != 0:
        store64(entry + 8, lookup(buff, map, entry + 16, value_size, max_entries))
    return following


class PercpuArray(MapType):
    number = MapNumber.PERCPU_ARRAY
    name = "percpu_array"
    lookup = lookup
    update = update
    delete = delete
    next_key = next_key
    visit = visit
    quiet_lookup = lookup
    prefetch = prefetch_value
    prefetch_steps = 1
    lookup_cpu = lookup_cpu
    update_cpu = update_cpu
    per_cpu = True

    def check(self, spec: MapSpec) -> None:
        check_array(spec, ACCESS_FLAGS | BPF_F_NUMA_NODE, per_cpu=True)

    def size(self, spec: MapSpec) -> int:
        region = round_up(spec.max_entries * round_up(spec.value_size, 8), LINE)
        return SIZEOF_HEADER + CPUS * region


TYPE = PercpuArray()
