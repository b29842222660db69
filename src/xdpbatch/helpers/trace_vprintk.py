"""bpf_trace_vprintk(fmt, fmt_size, data, data_len): as bpf_trace_printk(), with up to 12 arguments
in memory, 8 bytes each (kernel/trace/bpf_trace.c)."""

from __future__ import annotations

import errno

from xdpbatch.data.trace import trace
from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.native import native

EINVAL = errno.EINVAL
MAX_ARGS = 12  # MAX_BPRINTF_VARARGS


@native
def trace_vprintk(buff: int, format: int, size: int, data: int, length: int) -> int:
    length &= 0xFFFFFFFF
    if length & 7 != 0 or length > MAX_ARGS * 8 or (length != 0 and data == 0):
        return -EINVAL
    return trace(buff, format, size & 0xFFFFFFFF, data, length // 8, 0, 0, 0)


HELPER = Helper(
    177,
    "trace_vprintk",
    (Arg.MEM, Arg.CONST_SIZE, Arg.MEM_OR_NULL, Arg.CONST_SIZE_OR_ZERO),
    Ret.INTEGER,
    trace_vprintk,
    gpl=True,
)
