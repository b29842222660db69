"""The time that a program sees: a queue's own clock, or the machine's.

Analogous to ktime_get() and its kin. A queue with Rxq.clock set (a test, a capture's timestamps)
shows that instant to every clock helper.
"""

from __future__ import annotations

from xdpbatch.data.buff import RXQ, RXQ_CLOCK
from xdpbatch.mem import clock_ns, load64
from xdpbatch.native import native


@native
def now(buff: int, which: int) -> int:
    """Nanoseconds: of the queue's clock if it has one, else of clock_gettime(which)."""
    fixed = load64(load64(buff + RXQ) + RXQ_CLOCK)
    if fixed != 0:
        return fixed
    return clock_ns(which)
