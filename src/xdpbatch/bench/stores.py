"""Why MAC-swap TX is not faster: the same swap with fewer and wider stores.

Analogous to the store section of a `perf c2c` report, for machines that show no hardware counters.
Stores leave the core one cache line after the other, whoever calls the program; so the number of
stores per packet is what a program that rewrites headers pays for.
"""

from __future__ import annotations

from xdpbatch.asm import program as assemble
from xdpbatch.bench import ways
from xdpbatch.bench.frames import Frames
from xdpbatch.bench.method import Grid
from xdpbatch.bench.subject import FIVE
from xdpbatch.program import Object
from xdpbatch.runtime import Instance

_CHECKED = """
    r2 = *(u32 *)(r1 + 0)
    r3 = *(u32 *)(r1 + 4)
    r4 = r2
    r4 += 14
    r0 = 1
    if r4 > r3 goto out
    r5 = *(u64 *)(r2 + 0)
    {body}
    r0 = 3
out:
    exit
"""
NO_STORE = _CHECKED.format(body="")
ONE_STORE = _CHECKED.format(body="*(u16 *)(r2 + 8) = r5")
WIDE_SWAP = _CHECKED.format(
    body="""
    r6 = *(u32 *)(r2 + 8)
    r7 = r5
    r7 >>= 48
    r6 <<= 16
    r7 |= r6
    r8 = r5
    r8 <<= 48
    r7 |= r8
    r5 >>= 16
    *(u64 *)(r2 + 0) = r7
    *(u32 *)(r2 + 8) = r5
"""
)  # bytes 6 to 11, then 0 to 5


def grid() -> Grid:
    """Rows are programs by their stores into the packet; each has one more, the verdict."""
    found = Grid(
        "stores", "what stores cost: MAC-swap TX, alone", "stores", {"batch 64": "one by one"}
    )
    swap = FIVE["MAC-swap TX"]
    frames = Frames(swap.packets(256))
    obj, program = swap.load()
    written = {"none": NO_STORE, "one": ONE_STORE, "two: swap, 8 and 4 bytes": WIDE_SWAP}
    cases = {
        name: (Instance(Object(name, {one.name: one}, {})), one)
        for name, one in ((name, assemble(text)) for name, text in written.items())
    }
    cases["four: swap by clang, 2, 4, 4, 2"] = swap.instance(obj), program
    for name, (instance, one) in cases.items():
        for way in (ways.batched(), ways.one_by_one()):
            found.add(name, way.name, way.alone(instance, one, frames))
    return found
