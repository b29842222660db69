"""bpf_perf_event_output(ctx, map, flags, data, size): a record for user space, followed by the
first bytes of the packet (net/core/filter.c, bpf_xdp_event_output).

The low 32 bits of `flags` are the index of the CPU's entry, bits 32-51 how many packet bytes."""

from __future__ import annotations

import errno

from xdpbatch.data.buff import DATA, RXQ, RXQ_CPU
from xdpbatch.data.packet import length
from xdpbatch.data.records import commit, reserve
from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.maps import CPUS, MAX_ENTRIES, SIZEOF_HEADER
from xdpbatch.maps.perf_event_array import STRIDE
from xdpbatch.mem import copy, load32, load64
from xdpbatch.native import native
from xdpbatch.uapi import BPF_F_CTXLEN_MASK, BPF_F_CURRENT_CPU, BPF_F_INDEX_MASK, MapNumber

EINVAL, EFAULT, E2BIG = errno.EINVAL, errno.EFAULT, errno.E2BIG
ENOENT, EOPNOTSUPP, ENOSPC = errno.ENOENT, errno.EOPNOTSUPP, errno.ENOSPC


@native
def perf_event_output(buff: int, ctx: int, map: int, flags: int, data: int, size: int) -> int:
    """0 or -errno; -ENOSPC if the ring is full."""
    if flags & ~(BPF_F_CTXLEN_MASK | BPF_F_INDEX_MASK) != 0:
        return -EINVAL
    extra = (flags & BPF_F_CTXLEN_MASK) >> 32
    if extra > length(buff):
        return -EFAULT
    cpu = load32(load64(buff + RXQ) + RXQ_CPU)
    index = flags & BPF_F_INDEX_MASK
    if index == BPF_F_CURRENT_CPU:
        index = cpu
    if index >= load32(map + MAX_ENTRIES):
        return -E2BIG
    if index >= CPUS:
        return -ENOENT
    if index != cpu:
        return -EOPNOTSUPP
    sample = reserve(map + SIZEOF_HEADER + cpu * STRIDE, size + extra)
    if sample == 0:
        return -ENOSPC
    copy(sample, data, size)
    copy(sample + size, load64(buff + DATA), extra)
    commit(sample, 0)
    return 0


HELPER = Helper(
    25,
    "perf_event_output",
    (Arg.CTX, Arg.CONST_MAP_PTR, Arg.ANYTHING, Arg.MEM, Arg.CONST_SIZE_OR_ZERO),
    Ret.INTEGER,
    perf_event_output,
    maps=frozenset({MapNumber.PERF_EVENT_ARRAY}),
    gpl=True,
)
