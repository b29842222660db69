"""bpf_ktime_get_boot_ns(): nanoseconds since boot, suspend included (kernel/bpf/helpers.c)."""

from __future__ import annotations

import time

from xdpbatch.data.clock import now
from xdpbatch.helpers import Helper, Ret
from xdpbatch.native import native

CLOCK = time.CLOCK_BOOTTIME


@native
def ktime_get_boot_ns(buff: int) -> int:
    return now(buff, CLOCK)


HELPER = Helper(125, "ktime_get_boot_ns", (), Ret.INTEGER, ktime_get_boot_ns)
