"""`bench results`: the slides' two designs for verdicts, a field of xdp_buff or an array.

Analogous to the two diffs of the slide "Storing XDP program result". With the array, acting on a
verdict includes reading it from there.
"""

from __future__ import annotations

from xdpbatch.bench.frames import PACKETS, Frames
from xdpbatch.bench.method import Grid
from xdpbatch.bench.subject import ACTIONS, FIVE
from xdpbatch.bench.ways import Way
from xdpbatch.rewrite import Layout, Results
from xdpbatch.rewrite.form import Form

FIELD, ARRAY = "field of xdp_buff", "array"


def grid(batch_size: int = 64) -> Grid:
    """Rows are programs; alone and in the poll."""
    against = {f"{ARRAY}, {what}": f"{FIELD}, {what}" for what in ("alone", "whole poll")}
    found = Grid("results", "where verdicts go: the slides' two designs", "program", against)
    found.settings = {"batch": batch_size, "packets": PACKETS}
    for name, subject in {**FIVE, "redirect": ACTIONS["XDP_REDIRECT"]}.items():
        obj, program = subject.load()
        instance = subject.instance(obj)
        frames = Frames(subject.packets(PACKETS))
        for design, results in ((FIELD, Results.BUFF), (ARRAY, Results.ARRAY)):
            way = Way(design, batch_size, trampoline=Form(Layout.BATCH, results))
            found.add(name, f"{design}, alone", way.alone(instance, program, frames))
            found.add(name, f"{design}, whole poll", way.whole(instance, program, subject))
    return found
