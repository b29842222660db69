"""BPF_MAP_TYPE_CPUMAP: CPUs to hand packets to, for bpf_redirect_map().

Analogous to cpu_map_ops (kernel/bpf/cpumap.c). An entry is 16 bytes: u32 queue size (0: empty), u32
id of the program that runs there (0: none), u64 address of its native SINGLE layout. The first 8
bytes are struct bpf_cpumap_val. Any CPU number is accepted: CPUs are this runtime's ports.
"""

from __future__ import annotations

import errno

from xdpbatch.maps import SIZEOF_HEADER, Map, MapType, check_flags, refuse
from xdpbatch.maps.array import next_key
from xdpbatch.maps.devmap import ENTRY, clear, entry_of, lookup, program_of, store_entry
from xdpbatch.maps.redirects import redirect as redirect_with
from xdpbatch.mem import load32
from xdpbatch.native import native
from xdpbatch.program import Attach, MapSpec
from xdpbatch.uapi import BPF_EXIST, BPF_F_NUMA_NODE, BPF_NOEXIST, MapNumber

EINVAL = errno.EINVAL
NUMBER = int(MapNumber.CPUMAP)
MAX_CPUS = 8192  # NR_CPUS of a distribution's kernel
MAX_QUEUE = 16384


@native
def redirect(buff: int, map: int, key: int, flags: int, max_entries: int) -> int:
    """bpf_redirect_map()."""
    entry = entry_of(map, key & 0xFFFFFFFF, max_entries)
    return redirect_with(buff, map, NUMBER, key, flags, 0, entry)


class Cpumap(MapType):
    number = MapNumber.CPUMAP
    name = "cpumap"
    delete = clear
    next_key = next_key
    redirect = redirect
    user_lookup = lookup

    def check(self, spec: MapSpec) -> None:
        if not spec.max_entries or spec.key_size != 4 or spec.value_size not in (4, 8):
            raise refuse(EINVAL, spec, "a CPU map has 4-byte keys, values of 4 or 8 bytes, entries")
        check_flags(spec, BPF_F_NUMA_NODE)
        if spec.max_entries > MAX_CPUS:
            raise refuse(errno.E2BIG, spec, f"there are at most {MAX_CPUS} CPUs")

    def size(self, spec: MapSpec) -> int:
        return SIZEOF_HEADER + spec.max_entries * ENTRY

    def write(self, m: Map, key: int, value: bytes, flags: int) -> int:
        index, queue = load32(key), int.from_bytes(value[:4], "little")
        if flags > BPF_EXIST:
            return -EINVAL
        if index >= m.spec.max_entries:
            return -errno.E2BIG
        if flags == BPF_NOEXIST:
            return -errno.EEXIST
        if queue > MAX_QUEUE:
            return -errno.EOVERFLOW
        try:
            program = program_of(value, Attach.CPUMAP) if queue else None
        except KeyError:
            return -EINVAL
        store_entry(m.address + SIZEOF_HEADER + index * ENTRY, value, program)
        return 0


TYPE = Cpumap()
