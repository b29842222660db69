"""bpf_ktime_get_ns(): nanoseconds since boot, suspend left out (kernel/bpf/helpers.c)."""

from __future__ import annotations

import time

from xdpbatch.data.clock import now
from xdpbatch.helpers import Helper, Ret
from xdpbatch.native import native

CLOCK = time.CLOCK_MONOTONIC


@native
def ktime_get_ns(buff: int) -> int:
    return now(buff, CLOCK)


HELPER = Helper(5, "ktime_get_ns", (), Ret.INTEGER, ktime_get_ns)
