"""bpf_jiffies64(): ticks of the kernel's clock, Rxq.hz of them a second (kernel/bpf/helpers.c).

jiffies_64 starts at (u32)(-300 * HZ) at boot, as INITIAL_JIFFIES says (include/linux/jiffies.h).
"""

from __future__ import annotations

from xdpbatch.data.buff import RXQ, RXQ_HZ
from xdpbatch.data.clock import now
from xdpbatch.helpers import Helper, Ret
from xdpbatch.mem import load32, load64
from xdpbatch.native import native

CLOCK = 6  # CLOCK_MONOTONIC_COARSE: the time of the last tick
SECOND = 1_000_000_000
BOOT = 300  # seconds before the 32-bit counter would wrap


@native
def jiffies64(buff: int) -> int:
    """Ticks since boot after the initial value."""
    hz = load32(load64(buff + RXQ) + RXQ_HZ)
    time = now(buff, CLOCK)
    seconds = time // SECOND
    ticks = seconds * hz + (time - seconds * SECOND) * hz // SECOND
    return (1 << 32) - BOOT * hz + ticks


HELPER = Helper(118, "jiffies64", (), Ret.INTEGER, jiffies64)
