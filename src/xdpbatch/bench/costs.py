"""`bench programs`: what a program costs per packet, by everybody who can run it.

Analogous to `bpftool prog profile`, but over many packets and beside others: batched and one by
one, both backends, and the running kernel with what its loop costs.
"""

from __future__ import annotations

from collections.abc import Mapping

from xdpbatch.bench import ways
from xdpbatch.bench.frames import PACKETS, Frames
from xdpbatch.bench.method import Grid
from xdpbatch.bench.subject import Subject
from xdpbatch.errors import XdpBatchError

KERNEL, LOOP = "kernel", "kernel, empty program"


def grid(
    subjects: Mapping[str, Subject],
    *,
    packets: int = PACKETS,
    batch_size: int = 64,
    kernel: bool = True,
) -> Grid:
    """Every subject in every way: program and call alone, the whole poll beside it."""
    batch, single = ways.batched(batch_size), ways.one_by_one()
    retpoline = ways.one_by_one(retpoline=True)
    x86 = [ways.batched(batch_size, "x86"), ways.one_by_one("x86")]
    poll = [f"poll: {batch.name}", f"poll: {single.name}"]
    against = {
        batch.name: single.name,
        x86[0].name: x86[1].name,
        poll[0]: poll[1],
    }
    found = Grid("programs", "program and call alone; the whole poll beside it", "program", against)
    found.settings = {"packets": packets, "batch": batch_size}
    found.settings |= {f"traffic of {name}": one.source for name, one in subjects.items()}
    for name, subject in subjects.items():
        obj, program = subject.load()
        instance = subject.instance(obj)
        frames = Frames(subject.packets(packets), packets)
        for way in (batch, single, retpoline, *x86):
            found.add(name, way.name, way.alone(instance, program, frames))
        for column, way in zip(poll, (batch, single), strict=True):
            found.add(name, column, way.whole(instance, program, subject))
        if kernel:
            _in_kernel(found, name, subject, frames)
    return found


def _in_kernel(found: Grid, name: str, subject: Subject, frames: Frames) -> None:
    """Add the kernel's columns, or say why not."""
    from xdpbatch.bench.kernel import REPEAT, Loaded

    obj, program = subject.load()
    try:
        loaded = Loaded(obj, program.name, subject.instance(obj), frames.packets)
    except XdpBatchError as error:
        found.notes.append(f"{name}: not in the kernel: {error.diagnostics[0].message}")
        return
    found.add(name, KERNEL, loaded.case())
    found.add(name, LOOP, loaded.empty())
    if loaded.once:
        found.notes.append(
            f"{name} changes what it would do next with its packet: the kernel runs it once per "
            f"call, not {REPEAT} times, and so does the empty program"
        )
