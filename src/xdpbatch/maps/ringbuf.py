"""BPF_MAP_TYPE_RINGBUF: records from programs to user space, in one order for all CPUs.

Analogous to ringbuf_map_ops (kernel/bpf/ringbuf.c). Block: header, then a ring of records of
max_entries bytes. `Map.records()` reads it.
"""

from __future__ import annotations

import errno

from xdpbatch.data.records import records_init, records_size
from xdpbatch.maps import SIZEOF_HEADER, Map, MapType, check_flags, refuse
from xdpbatch.program import MapSpec
from xdpbatch.uapi import BPF_F_NUMA_NODE, MapNumber

PAGE = 4096


class Ringbuf(MapType):
    number = MapNumber.RINGBUF
    name = "ringbuf"

    def check(self, spec: MapSpec) -> None:
        check_flags(spec, BPF_F_NUMA_NODE)
        size = spec.max_entries
        if spec.key_size or spec.value_size or not size or size & size - 1 or size % PAGE:
            raise refuse(
                errno.EINVAL,
                spec,
                "a ring buffer has no key and value, and a power of two of pages",
            )

    def size(self, spec: MapSpec) -> int:
        return SIZEOF_HEADER + records_size(spec.max_entries)

    def init(self, address: int, spec: MapSpec) -> None:
        records_init(address + SIZEOF_HEADER, spec.max_entries)

    def rings(self, m: Map) -> list[int]:
        return [m.address + SIZEOF_HEADER]


TYPE = Ringbuf()
