"""Measurements that need the kernel: they run, over packets that do there what they do here."""

from __future__ import annotations

import pytest

from xdpbatch.bench import afxdp, costs
from xdpbatch.bench.kernel import Loaded
from xdpbatch.bench.method import measure
from xdpbatch.bench.subject import EXAMPLES, FIVE

EVERY = {**FIVE, **EXAMPLES}


@pytest.mark.kernel
@pytest.mark.parametrize("name", EVERY)
def test_a_program_does_in_the_kernel_what_it_does_here(name: str) -> None:
    """The maps that are copied lead to the same verdicts."""
    from xdpbatch.bench import ways
    from xdpbatch.bench.frames import Frames

    subject = EVERY[name]
    obj, program = subject.load()
    instance = subject.instance(obj)
    frames = Frames(subject.packets(32))
    loaded = Loaded(obj, program.name, instance, frames.packets)
    there: dict[int, int] = {}
    for packet in frames.packets:
        verdict = loaded.program.run(packet).verdict
        there[verdict] = there.get(verdict, 0) + 1
    entry, _ = ways.batched().entry(instance, program)
    assert frames.verdicts(entry.address, 64) == there
    assert loaded.once is (name == "lb")


@pytest.mark.kernel
def test_the_kernels_columns() -> None:
    grid = costs.grid({"drop": FIVE["drop"]}, packets=4)
    figures = measure(grid, rounds=1, warm_up=0)
    assert figures["drop", costs.KERNEL].median > 0
    assert figures["drop", costs.LOOP].median > 0


@pytest.mark.afxdp
def test_floods_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(afxdp, "FLOOD", 4096)
    grid = afxdp.grid()
    figures = measure(grid, rounds=1, warm_up=0)
    assert all(figure.median > 0 for figure in figures.values())
    assert len([note for note in grid.notes if "packets per poll" in note]) == len(grid.cases)
