"""`bench boost`: what batching buys for each action, in the slides' form ("perf boost").

Analogous to the slide "Performance results": XDP_DROP +16 %, XDP_TX +70 %, XDP_REDIRECT +91 %, of a
kernel with retpoline. The whole poll over the synthetic ring; one by one has the same rings, frames
and compiler.
"""

from __future__ import annotations

from dataclasses import replace

from xdpbatch.bench import ways
from xdpbatch.bench.frames import PACKETS, Frames
from xdpbatch.bench.method import Grid
from xdpbatch.bench.subject import ACTIONS
from xdpbatch.bench.ways import Way
from xdpbatch.rewrite import Layout, Results
from xdpbatch.rewrite.form import Form

SPEC = "udp,size=64,mode=ring"
SLIDES = {"XDP_DROP": 16, "XDP_TX": 70, "XDP_REDIRECT": 91}
_NOTE = "the slides (i40e, Linux 5.3, retpoline): XDP_DROP +16 %, XDP_TX +70 %, XDP_REDIRECT +91 %"


def ways_of(batch_size: int, backend: str) -> tuple[list[Way], dict[str, str]]:
    """The columns, and which is compared with which: with retpoline in both, and without."""
    batch, single = ways.batched(batch_size, backend), ways.one_by_one(backend)
    slow_batch = ways.batched(batch_size, backend, retpoline=True)
    slow_single = ways.one_by_one(backend, retpoline=True)
    array = Way(
        f"{batch.name}, results in an array",
        batch_size,
        backend,
        Form(Layout.BATCH, Results.ARRAY),
    )
    against = {
        batch.name: single.name,
        slow_batch.name: slow_single.name,
        array.name: batch.name,
    }
    return [slow_single, slow_batch, single, batch, array], against


def grid(
    *, batch_size: int = 64, backend: str = "llvm", spec: str = SPEC, alone: bool = False
) -> Grid:
    """Every action in every way; `alone` measures program and call without the poll."""
    columns, against = ways_of(batch_size, backend)
    what = "the program and its call" if alone else "the whole poll over the synthetic ring"
    found = Grid("boost", f"perf boost by batching: {what}", "action", against)
    found.settings = {"backend": backend, "batch": batch_size, "synth": spec}
    found.notes.append(_NOTE)
    for action, subject in ACTIONS.items():
        subject = replace(subject, spec=spec)
        obj, program = subject.load()
        instance = subject.instance(obj)
        frames = Frames(subject.packets(PACKETS)) if alone else None
        for way in columns:
            found.add(
                action,
                way.name,
                way.alone(instance, program, frames)
                if frames
                else way.whole(instance, program, subject),
            )
    return found
