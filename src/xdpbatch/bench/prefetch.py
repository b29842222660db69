"""`bench prefetch`: question 1 of the slides, a prefetch instruction in BPF assembly.

Analogous to the prefetch() of drivers. The trampoline fetches the header of the packet k further
on. Warm packets are in the first-level cache and can only lose; cold ones are so many that they
come from the last level, where a network card's DMA leaves them (DDIO).
"""

from __future__ import annotations

from collections.abc import Sequence

from xdpbatch.bench.frames import PACKETS, Frames
from xdpbatch.bench.method import Grid
from xdpbatch.bench.subject import Subject
from xdpbatch.bench.ways import Way
from xdpbatch.rewrite.form import Form


def grid(subject: Subject, distances: Sequence[int], packets: int, batch_size: int = 64) -> Grid:
    """Rows are k, each compared with the first."""
    title = f"{subject.label}: headers fetched k packets ahead"
    found = Grid("prefetch", title, "k", first=str(distances[0]))
    found.settings = {
        "program": subject.path.name,
        "traffic": subject.source,
        "batch": batch_size,
        "warm packets": PACKETS,
        "cold packets": packets,
    }
    obj, program = subject.load()
    instance = subject.instance(obj)
    warm = Frames(subject.packets(PACKETS))
    cold = Frames(subject.packets(packets), packets)
    for k in distances:
        way = Way(f"prefetch {k}", batch_size, trampoline=Form(prefetch=k))
        found.add(k, "cold packets", way.alone(instance, program, cold))
        found.add(k, "warm packets", way.alone(instance, program, warm))
        found.add(k, "whole poll", way.whole(instance, program, subject))
    return found
