"""BPF_MAP_TYPE_PERF_EVENT_ARRAY: records from programs to user space, one ring for each CPU.

Analogous to perf_event_array_map_ops (kernel/bpf/arraymap.c) where user space has opened and put in
a software event for each CPU. Block: header, then one ring of records for each entry that stands
for a CPU. `Map.records()` reads them; a record has no padding.
"""

from __future__ import annotations

import errno

from xdpbatch.data.records import records_init, records_size
from xdpbatch.maps import ACCESS_FLAGS, CPUS, ENOTSUPP, SIZEOF_HEADER, Map, MapType
from xdpbatch.maps.array import next_key
from xdpbatch.maps.prog_array import check_fd_array
from xdpbatch.mem import load32
from xdpbatch.native import native
from xdpbatch.program import MapSpec
from xdpbatch.uapi import BPF_F_NUMA_NODE, MapNumber

PRESERVE_ELEMS = 1 << 11
RING = 1 << 20  # bytes of one CPU's ring
STRIDE = records_size(RING)
E2BIG, ENOENT = errno.E2BIG, errno.ENOENT


@native
def clear(key: int, max_entries: int) -> int:
    """The readers are built in: there is nothing to take out."""
    if load32(key) >= max_entries:
        return -E2BIG
    return -ENOENT


class PerfEventArray(MapType):
    number = MapNumber.PERF_EVENT_ARRAY
    name = "perf_event_array"
    next_key = next_key
    delete = clear

    def check(self, spec: MapSpec) -> None:
        check_fd_array(spec, ACCESS_FLAGS | BPF_F_NUMA_NODE | PRESERVE_ELEMS)

    def size(self, spec: MapSpec) -> int:
        return SIZEOF_HEADER + min(spec.max_entries, CPUS) * STRIDE

    def init(self, address: int, spec: MapSpec) -> None:
        for cpu in range(min(spec.max_entries, CPUS)):
            records_init(address + SIZEOF_HEADER + cpu * STRIDE, RING)

    def read(self, m: Map, key: int) -> bytes | int:
        return -ENOTSUPP

    def write(self, m: Map, key: int, value: bytes, flags: int) -> int:
        return -ENOTSUPP

    def rings(self, m: Map) -> list[int]:
        cpus = range(min(m.spec.max_entries, CPUS))
        return [m.address + SIZEOF_HEADER + cpu * STRIDE for cpu in cpus]


TYPE = PerfEventArray()
