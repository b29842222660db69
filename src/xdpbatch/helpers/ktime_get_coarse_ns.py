"""bpf_ktime_get_coarse_ns(): the time of the last tick in nanoseconds (kernel/bpf/helpers.c)."""

from __future__ import annotations

from xdpbatch.data.clock import now
from xdpbatch.helpers import Helper, Ret
from xdpbatch.native import native

CLOCK = 6  # CLOCK_MONOTONIC_COARSE, include/uapi/linux/time.h; Python has no name for it


@native
def ktime_get_coarse_ns(buff: int) -> int:
    return now(buff, CLOCK)


HELPER = Helper(160, "ktime_get_coarse_ns", (), Ret.INTEGER, ktime_get_coarse_ns)
