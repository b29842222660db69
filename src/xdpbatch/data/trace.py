"""The lines that programs print: a queue's ring of text, read by `TraceRing.lines()`.

Analogous to /sys/kernel/tracing/trace_pipe, for one queue: its Rxq.trace is `address`.
"""

from __future__ import annotations

from collections.abc import Iterator

from xdpbatch.data.buff import RXQ, RXQ_TRACE
from xdpbatch.data.layout import address_of, allocate
from xdpbatch.data.printf import printf
from xdpbatch.data.records import LOST, commit, read, records_init, records_size, reserve
from xdpbatch.mem import load64
from xdpbatch.native import native

MAX_LINE = 1023  # MAX_BPRINTF_BUF and its NUL
SIZE = 1 << 20


@native
def trace(buff: int, format: int, size: int, args: int, count: int, a: int, b: int, c: int) -> int:
    """Format a line into the queue's ring, if it has one with room; the line's length or -errno."""
    length = printf(0, 0, format, size, args, count, a, b, c)
    ring = load64(load64(buff + RXQ) + RXQ_TRACE)
    if length < 0 or ring == 0:
        return length
    kept = min(length, MAX_LINE)
    line = reserve(ring, kept)
    if line != 0:
        printf(line, kept, format, size, args, count, a, b, c)
        commit(line, 0)
    return length


class TraceRing:
    """Memory for the lines of one queue. It must outlive the queue's use of `address`."""

    def __init__(self, size: int = SIZE) -> None:
        self._memory = allocate(records_size(size))
        self.address = address_of(self._memory)
        records_init(self.address, size)

    def lines(self) -> Iterator[str]:
        """Take the lines printed so far, as they were printed (with a newline if they had one)."""
        for line in read(self.address):
            yield line.decode(errors="replace")

    @property
    def lost(self) -> int:
        """How many lines found no room."""
        return load64(self.address + LOST)
