"""BPF_MAP_TYPE_PROG_ARRAY: programs that bpf_tail_call() goes to.

Analogous to prog_array_map_ops (kernel/bpf/arraymap.c). An entry is 16 bytes: u32 id of the program
(0: empty), 4 unused, u64 address of its native SINGLE layout. From user space the value is the id
that `add_program` gave.
"""

from __future__ import annotations

import errno

from xdpbatch.data.buff import RXQ, RXQ_TAIL_CALLS
from xdpbatch.maps import (
    ACCESS_FLAGS,
    SIZEOF_HEADER,
    Map,
    MapType,
    programs,
    refuse,
)
from xdpbatch.maps.array import check_array, next_key
from xdpbatch.mem import load32, load64, store32, store64
from xdpbatch.native import native
from xdpbatch.program import MapSpec
from xdpbatch.uapi import (
    BPF_ANY,
    BPF_F_NUMA_NODE,
    BPF_F_RDONLY_PROG,
    BPF_F_WRONLY_PROG,
    MAX_TAIL_CALL_CNT,
    MapNumber,
)

E2BIG, ENOENT = errno.E2BIG, errno.ENOENT
ENTRY = 16
ID, ADDRESS = 0, 8


@native
def target(buff: int, map: int, index: int, max_entries: int) -> int:
    """Address of the program to go to, counting the call; 0 if there is none or no call is left."""
    index &= 0xFFFFFFFF
    if index >= max_entries:
        return 0
    calls = load64(buff + RXQ) + RXQ_TAIL_CALLS
    count = load32(calls)
    if count >= MAX_TAIL_CALL_CNT:
        return 0
    address = load64(map + SIZEOF_HEADER + index * ENTRY + ADDRESS)
    if address != 0:
        store32(calls, count + 1)
    return address


@native
def clear(map: int, key: int, max_entries: int) -> int:
    """Empty an entry."""
    index = load32(key)
    if index >= max_entries:
        return -E2BIG
    entry = map + SIZEOF_HEADER + index * ENTRY
    if load32(entry + ID) == 0:
        return -ENOENT
    store64(entry + ADDRESS, 0)
    store32(entry + ID, 0)
    return 0


@native
def user_lookup(map: int, key: int, max_entries: int) -> int:
    """Address of the program's id, 0 if there is none."""
    index = load32(key)
    entry = map + SIZEOF_HEADER + index * ENTRY
    if index >= max_entries or load32(entry + ID) == 0:
        return 0
    return entry


def check_fd_array(spec: MapSpec, flags: int) -> None:
    """fd_array_map_alloc_check(), after which `flags` are allowed."""
    if spec.value_size != 4:
        raise refuse(errno.EINVAL, spec, "the values of this type are 4 bytes")
    check_array(spec, flags & ~(BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG))


class ProgArray(MapType):
    number = MapNumber.PROG_ARRAY
    name = "prog_array"
    target = target
    delete = clear
    next_key = next_key
    user_lookup = user_lookup

    def check(self, spec: MapSpec) -> None:
        check_fd_array(spec, ACCESS_FLAGS | BPF_F_NUMA_NODE)

    def size(self, spec: MapSpec) -> int:
        return SIZEOF_HEADER + spec.max_entries * ENTRY

    def write(self, m: Map, key: int, value: bytes, flags: int) -> int:
        if flags != BPF_ANY:
            return -errno.EINVAL
        index = load32(key)
        if index >= m.spec.max_entries:
            return -errno.E2BIG
        program = programs.get(int.from_bytes(value, "little"))
        if program is None:
            return -errno.EBADF
        entry = m.address + SIZEOF_HEADER + index * ENTRY
        store32(entry + ID, program.id)
        store64(entry + ADDRESS, program.address)
        return 0


TYPE = ProgArray()
