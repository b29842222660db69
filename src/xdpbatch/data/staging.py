"""Adaptive staging: a queue measures whether staging pays for its traffic, and how wide.

Analogous to dynamic interrupt moderation (lib/dim): choices are tried on short stretches of the
real traffic, the best is kept, the others are tried again now and then. What is compared is the CPU
time per packet of the whole poll, of which everything but the program is alike.
"""

from __future__ import annotations

from collections.abc import Mapping

PLAIN = 0
WIDTHS = (PLAIN, 8, 16, 32, 64)  # packets staged at a time
WARM_UP = 2  # slices that are not looked at: pages and caches are new
TRIAL = 1 << 13  # packets of a trial
TRIALS = 3  # of each width at the start
LEAST = 1 << 10  # packets that a trial must have come to
EVERY = 32  # slices between two trials of the widths that were not chosen
GAIN = 0.97  # a staged width must take at most this share of the plain time
MEMORY = 0.5  # weight of a new measurement


class Staging:
    """The choice of one queue. Call `next` before each slice and `tell` after it."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        self._widths = widths
        self._ns: dict[int, float] = {}
        self._slices = 0
        self._waiting = [PLAIN] * WARM_UP + list(widths) * TRIALS
        self._trial: int | None = None
        self.chosen = PLAIN

    def next(self) -> tuple[int, int | None]:
        """The width of the next slice, and how many packets it may have at most."""
        self._slices += 1
        if not self._waiting and self._slices % EVERY == 0:
            others = [width for width in self._widths if width != self.chosen]
            self._waiting = [self.chosen, others[self._slices // EVERY % len(others)]]
        self._trial = self._waiting[0] if self._waiting else None
        return (self.chosen, None) if self._trial is None else (self._trial, TRIAL)

    def tell(self, packets: int, cpu_ns: int) -> None:
        """How long that slice took. A slice that was cut short says nothing."""
        if self._trial is None or packets < LEAST:
            return
        self._waiting.pop(0)
        if self._slices <= WARM_UP:
            return
        ns, before = cpu_ns / packets, self._ns.get(self._trial)
        first = self._slices <= WARM_UP + TRIALS * len(self._widths)
        if before is None:
            self._ns[self._trial] = ns
        elif first:
            self._ns[self._trial] = min(ns, before)
        else:
            self._ns[self._trial] = before + MEMORY * (ns - before)
        if not self._waiting and len(self._ns) == len(self._widths):
            self._choose()

    def _choose(self) -> None:
        best = min(self._ns, key=lambda width: self._ns[width])
        self.chosen = best if self._ns[best] <= GAIN * self._ns[PLAIN] else PLAIN

    @property
    def measured(self) -> Mapping[int, float]:
        """Nanoseconds per packet of the poll for each width that was tried."""
        return dict(self._ns)
