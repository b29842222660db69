"""How everything here is measured: cases in turns, medians with least and greatest.

Analogous to `perf stat -r` with its spread, but interleaved: all cases take one turn, then all take
the next, so that a change of the machine's mood meets every case alike. The first turns warm up and
are not counted. Times are those of the measuring thread on the CPU; wall-clock times are kept
beside them. Two cases are compared round by round; a change is told only where it is larger than
its own spread from round to round.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

ROUNDS = 31
WARM_UP = 3
TURN_NS = 2_000_000  # aim: long against reading a clock, short against the machine's moods


@dataclass(frozen=True, slots=True)
class Sample:
    """One turn: nanoseconds per packet on the CPU, and by the clock on the wall."""

    cpu: float
    wall: float

    def __sub__(self, other: Sample) -> Sample:
        return Sample(self.cpu - other.cpu, self.wall - other.wall)


class Case(Protocol):
    """Something that is measured."""

    def turn(self) -> Sample:
        """Do it for some milliseconds."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What a case came to: one Sample per round."""

    samples: tuple[Sample, ...]

    @property
    def cpu(self) -> list[float]:
        """Nanoseconds of CPU time per packet, in order of size."""
        return sorted(sample.cpu for sample in self.samples)

    @property
    def median(self) -> float:
        """Of CPU time."""
        return statistics.median(self.cpu)

    @property
    def wall(self) -> float:
        """The median of wall-clock time."""
        return statistics.median(sample.wall for sample in self.samples)

    @property
    def middle(self) -> tuple[float, float]:
        """What eight of ten rounds lie within."""
        return middle(self.cpu)


def middle(values: Sequence[float]) -> tuple[float, float]:
    """The 10th and 90th percentile."""
    ordered = sorted(values)
    tenth = len(ordered) // 10
    return ordered[tenth], ordered[-1 - tenth]


def timed(work: Callable[[], int]) -> Sample:
    """Time `work`, which returns how many packets it did."""
    wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
    done = work()
    cpu, wall = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
    return Sample(cpu / done, wall / done)


def enough(work: Callable[[int], object], aim: int = TURN_NS) -> int:
    """How often `work` must be repeated for a turn to last `aim` nanoseconds: a power of two."""
    repeat = 1
    while True:
        start = time.thread_time_ns()
        work(repeat)
        if time.thread_time_ns() - start >= aim or repeat >= 1 << 24:
            return repeat
        repeat *= 2


@dataclass(frozen=True, slots=True)
class Change:
    """Percent more packets per second: the median of the rounds, and what 8 of 10 lie within."""

    percent: float
    low: float
    high: float

    @property
    def told(self) -> bool:
        """Whether the change is larger than its spread."""
        return abs(self.percent) > self.high - self.low


def boost(before: Figure, after: Figure) -> Change:
    """How many percent more packets per second `after` does, round by round."""
    each = [
        100 * (one.cpu / other.cpu - 1)
        for one, other in zip(before.samples, after.samples, strict=True)
    ]
    return Change(statistics.median(each), *middle(each))


@dataclass
class Grid:
    """An experiment: cases by row and column, for example actions by ways to run them.

    `against` says with which column a column is compared; with `first`, every row is compared with
    the row of that name instead. `axis` names the rows, which are numbers
    in a sweep; `x` is where they stand on a plot.
    """

    name: str
    title: str
    axis: str
    against: Mapping[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    cases: dict[tuple[str, str], Case] = field(default_factory=dict)
    first: str | None = None
    cpu: int | None = None
    finish: Callable[[], list[str]] = list  # after the last turn: closes things, returns notes

    def add(self, row: str | int, column: str, case: Case) -> None:
        """Put a case in its place."""
        self.cases[str(row), column] = case


Figures = dict[tuple[str, str], Figure]


def measure(grid: Grid, rounds: int = ROUNDS, warm_up: int = WARM_UP) -> Figures:
    """All cases of a grid in turns, on one CPU."""
    found: dict[tuple[str, str], list[Sample]] = {key: [] for key in grid.cases}
    try:
        with pinned(grid):
            for _ in range(warm_up + rounds):
                for key, case in grid.cases.items():
                    found[key].append(case.turn())
    finally:
        grid.notes += grid.finish()
    return {key: Figure(tuple(samples[warm_up:])) for key, samples in found.items()}


@contextmanager
def pinned(grid: Grid) -> Iterator[None]:
    """Stay on one CPU, the highest that is allowed: interrupts prefer the low ones."""
    before = os.sched_getaffinity(0)
    grid.cpu = max(before)
    os.sched_setaffinity(0, {grid.cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def rows(keys: Sequence[tuple[str, str]]) -> list[str]:
    """The rows of a grid, in order."""
    return list(dict.fromkeys(row for row, _ in keys))


def columns(keys: Sequence[tuple[str, str]]) -> list[str]:
    """The columns of a grid, in order."""
    return list(dict.fromkeys(column for _, column in keys))
