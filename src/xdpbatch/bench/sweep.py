"""`bench sweep`: one thing varies, all else stays: batch size, flows, table entries, packets.

Analogous to pktgen's loops over burst sizes. It shows where batching pays and where it stops.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from xdpbatch.bench import ways
from xdpbatch.bench.frames import Frames
from xdpbatch.bench.method import Grid
from xdpbatch.bench.subject import Subject

SIZES = tuple(1 << i for i in range(11))  # 1, 2, 4, …, 1024


def with_flows(subject: Subject, flows: int) -> Subject:
    """The subject with so many flows in its traffic."""
    spec = re.sub(r"(^|,)flows=\d+", "", subject.spec)
    return replace(subject, spec=f"{spec},flows={flows}".strip(","))


def by_batch_size(
    subject: Subject, sizes: Sequence[int] = SIZES, backend: str = "llvm", packets: int = 2048
) -> Grid:
    """Rows are batch sizes; one by one is beside each of them."""
    found = _grid("batch size", subject, backend)
    found.settings["packets"] = packets
    obj, program = subject.load()
    instance = subject.instance(obj)
    frames = Frames(subject.packets(packets), packets)
    single = ways.one_by_one(backend)
    for size in sizes:
        way = ways.batched(size, backend)
        found.add(size, "alone, batched", way.alone(instance, program, frames))
        found.add(size, "alone, one by one", single.alone(instance, program, frames))
        found.add(size, "whole poll, batched", way.whole(instance, program, subject))
        found.add(size, "whole poll, one by one", single.whole(instance, program, subject))
    return found


def by_value(
    axis: str,
    subject: Subject,
    values: Sequence[int],
    vary: Callable[[Subject, int], Subject],
    backend: str,
    batch_size: int,
) -> Grid:
    """Rows are what `vary` makes of each value."""
    found = _grid(axis, subject, backend)
    found.settings["batch"] = batch_size
    for value in values:
        one = vary(subject, value)
        obj, program = one.load()
        instance = one.instance(obj)
        for way, word in ((ways.batched(batch_size, backend), "batched"),
                          (ways.one_by_one(backend), "one by one")):  # fmt: skip
            found.add(value, f"whole poll, {word}", way.whole(instance, program, one))
    return found


def by_flows(
    subject: Subject, values: Sequence[int], backend: str = "llvm", batch_size: int = 64
) -> Grid:
    """Rows are how many flows the traffic has."""
    return by_value("flows", subject, values, with_flows, backend, batch_size)


def by_entries(
    subject: Subject, values: Sequence[int], backend: str = "llvm", batch_size: int = 64
) -> Grid:
    """Rows are how many entries the program's tables have."""

    def vary(one: Subject, entries: int) -> Subject:
        return replace(one, entries=entries)

    return by_value("table entries", subject, values, vary, backend, batch_size)


def by_packets(
    subject: Subject, values: Sequence[int], backend: str = "llvm", batch_size: int = 64
) -> Grid:
    """Rows are how many packets lie ready: what caches and branch predictor hold, and what not."""
    found = _grid("packets", subject, backend)
    found.settings["batch"] = batch_size
    obj, program = subject.load()
    instance = subject.instance(obj)
    for value in values:
        frames = Frames(subject.packets(value), value)
        for way, word in ((ways.batched(batch_size, backend), "batched"),
                          (ways.one_by_one(backend), "one by one")):  # fmt: skip
            found.add(value, f"alone, {word}", way.alone(instance, program, frames))
    return found


def _grid(axis: str, subject: Subject, backend: str) -> Grid:
    against = {f"{what}, batched": f"{what}, one by one" for what in ("alone", "whole poll")}
    found = Grid("sweep", f"{subject.label} by {axis}", axis, against)
    found.settings = {"program": str(subject.path.name), "backend": backend}
    found.settings["traffic"] = subject.source
    return found
