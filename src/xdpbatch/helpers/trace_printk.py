"""bpf_trace_printk(fmt, fmt_size, ...): print a line for debugging (kernel/trace/bpf_trace.c).

The length of the line, or -EINVAL for a format that is not understood."""

from __future__ import annotations

from xdpbatch.data.trace import trace
from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.mem import settled
from xdpbatch.native import native

MAX_ARGS = 3


@native
def trace_printk(buff: int, format: int, size: int, a: int, b: int, c: int) -> int:
    size &= 0xFFFFFFFF
    return trace(buff, format, size, 0, MAX_ARGS, settled(a), settled(b), settled(c))


HELPER = Helper(
    6,
    "trace_printk",
    (Arg.MEM, Arg.CONST_SIZE, Arg.DONTCARE, Arg.DONTCARE, Arg.DONTCARE),
    Ret.INTEGER,
    trace_printk,
    gpl=True,
)
