"""Adaptive staging: a queue measures whether staging pays for its traffic, and how wide.

Analogous to dynamic interrupt moderation (lib/dim): now and then all choices are tried one after
the other on short stretches of the real traffic. What is compared is the CPU time per packet of the
whole poll, of which everything but the program is alike, and only within a round: each width with
none, then the median of the last rounds, so that neither drift nor an interruption decides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from statistics import median

PLAIN = 0
WIDTHS = (PLAIN, 8, 16, 32, 64)  # packets staged at a time
WARM_UP = 16  # slices before the first round: pages and caches are new, slices short
TRIAL = 1 << 13  # packets of a trial
LEAST = 1 << 10  # packets that a trial must have come to
ROUNDS = 5  # that decide; as many are made at the start
EVERY = 64  # slices between two rounds
GAIN = 0.95  # a staged width must take at most this share of the plain time


class Staging:
    """The choice of one queue. Call `next` before each slice and `tell` after it."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        self._widths = widths
        self._rounds: deque[dict[int, float]] = deque(maxlen=ROUNDS)
        self._current: dict[int, float] = {}
        self._idle = WARM_UP  # slices until the next round
        self.chosen = PLAIN

    def next(self) -> tuple[int, int | None]:
        """The width of the next slice, and how many packets it may have at most."""
        if self._idle:
            return self.chosen, None
        return self._widths[len(self._current)], TRIAL

    def tell(self, packets: int, cpu_ns: int) -> None:
        """How long that slice took. A trial that was cut short is made again."""
        if self._idle:
            self._idle -= 1
        elif packets >= LEAST:
            self._current[self._widths[len(self._current)]] = cpu_ns / packets
            if len(self._current) == len(self._widths):
                self._end_round()

    def _end_round(self) -> None:
        self._rounds.append(self._current)
        self._current = {}
        if len(self._rounds) == ROUNDS:
            shares = {width: self._median(width, PLAIN) for width in self._widths}
            best = min(shares, key=lambda width: shares[width])
            self.chosen = best if shares[best] <= GAIN else PLAIN
            self._idle = EVERY

    def _median(self, width: int, against: int) -> float:
        return median(one[width] / one[against] for one in self._rounds)

    @property
    def measured(self) -> Mapping[int, float]:
        """Nanoseconds per packet of the poll for each width: medians of the last rounds."""
        if not self._rounds:
            return {}
        return {width: median(one[width] for one in self._rounds) for width in self._widths}
