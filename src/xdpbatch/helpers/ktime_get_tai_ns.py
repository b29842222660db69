"""bpf_ktime_get_tai_ns(): nanoseconds of international atomic time (kernel/bpf/helpers.c)."""

from __future__ import annotations

import time

from xdpbatch.data.clock import now
from xdpbatch.helpers import Helper, Ret
from xdpbatch.native import native

CLOCK = time.CLOCK_TAI


@native
def ktime_get_tai_ns(buff: int) -> int:
    return now(buff, CLOCK)


HELPER = Helper(208, "ktime_get_tai_ns", (), Ret.INTEGER, ktime_get_tai_ns)
