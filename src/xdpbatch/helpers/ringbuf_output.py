"""bpf_ringbuf_output(map, data, size, flags): one whole record (kernel/bpf/ringbuf.c)."""

from __future__ import annotations

import errno

from xdpbatch.data.records import append
from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.maps import SIZEOF_HEADER
from xdpbatch.native import native
from xdpbatch.uapi import MapNumber

EINVAL, EAGAIN = errno.EINVAL, errno.EAGAIN
WAKEUP_FLAGS = 3  # BPF_RB_NO_WAKEUP | BPF_RB_FORCE_WAKEUP: nobody sleeps here


@native
def ringbuf_output(map: int, data: int, size: int, flags: int) -> int:
    """0; -EINVAL for unknown flags; -EAGAIN if there is no room."""
    if flags & ~WAKEUP_FLAGS != 0:
        return -EINVAL
    if append(map + SIZEOF_HEADER, data, size) == 0:
        return -EAGAIN
    return 0


HELPER = Helper(
    130,
    "ringbuf_output",
    (Arg.CONST_MAP_PTR, Arg.MEM, Arg.CONST_SIZE_OR_ZERO, Arg.ANYTHING),
    Ret.INTEGER,
    ringbuf_output,
    maps=frozenset({MapNumber.RINGBUF}),
)
