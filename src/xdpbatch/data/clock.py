"""The time that a program sees: a queue's own clock, its packets' times, or the machine's.

Analogous to ktime_get() and its kin. A queue with Rxq.clock set shows that instant to every clock
helper; one with Rxq.stamps shows each packet the time when it was received (of a capture, when it
was captured), in nanoseconds since 1970, whatever the batch.
"""

from __future__ import annotations

from xdpbatch.data.buff import (
    RXQ,
    RXQ_BATCH,
    RXQ_CLOCK,
    RXQ_FIRST,
    RXQ_STAMP_MASK,
    RXQ_STAMPS,
    SIZEOF_XDP_BUFF,
)
from xdpbatch.data.port import SIZEOF_STAMP, STAMP_TIME
from xdpbatch.mem import clock_ns, load32, load64
from xdpbatch.native import native


@native
def now(buff: int, which: int) -> int:
    """Nanoseconds: of the queue's clock if it has one, else of clock_gettime(which)."""
    rxq = load64(buff + RXQ)
    fixed = load64(rxq + RXQ_CLOCK)
    if fixed != 0:
        return fixed
    stamps = load64(rxq + RXQ_STAMPS)
    if stamps == 0:
        return clock_ns(which)
    number = load32(load64(rxq + RXQ_FIRST)) + (buff - load64(rxq + RXQ_BATCH)) // SIZEOF_XDP_BUFF
    return load64(stamps + (number & load64(rxq + RXQ_STAMP_MASK)) * SIZEOF_STAMP + STAMP_TIME)
