"""What a port's own end takes: reading a capture or making traffic is no part of the poll loop.

Analogous to a driver's ethtool counter for time spent in DMA: `timed` stands before the port's own
`wakeup` and adds up how long it took, so that the rest can be told apart.
"""

from __future__ import annotations

import time

from xdpbatch.data.code import Code
from xdpbatch.data.port import OWN, PORT
from xdpbatch.mem import call2, clock_ns, load64, store64
from xdpbatch.native import native
from xdpbatch.ports import Port

MONOTONIC = int(time.CLOCK_MONOTONIC)
REAL, SPENT = OWN + 24, OWN + 32  # own3: the port's own wakeup; own4: nanoseconds

if (PORT.offset("own3"), PORT.offset("own4")) != (REAL, SPENT):
    raise AssertionError("the last two words of PORT are not where they should be")


@native
def timed(port: int, flag: int) -> int:
    """ndo_xsk_wakeup around another one. The clock costs some 50 ns a call: once per batch."""
    start = clock_ns(MONOTONIC)
    result = call2(load64(port + REAL), port, flag)
    store64(port + SPENT, load64(port + SPENT) + clock_ns(MONOTONIC) - start)
    return result


def install(port: Port, code: Code) -> None:
    """Put `timed` before the wakeup that was installed."""
    port.words["own3"] = port.words["wakeup"]
    port.words["wakeup"] = code.address(timed)


def spent(port: Port) -> float:
    """Seconds that a port's own end has taken."""
    return int(port.words["own4"][0]) / 1e9
