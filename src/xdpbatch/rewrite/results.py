"""Where a trampoline puts verdicts: the two designs of the slide "Storing XDP program result".

Analogous to the two diffs on it: `struct xdp_buff` gets a field `act`, or the array to fill is
passed to the program as an argument. Each is a few lines of BPF in the prologue and the epilogue.

    BUFF    u64 f(XdpBuff *buffs, u64 n)                    buffs[i].act = r0
    ARRAY   u64 f(XdpBuff *buffs, u32 *results, u64 n)      results[i] = r0
"""

from __future__ import annotations

from xdpbatch import asm
from xdpbatch.data.buff import ACT, SIZEOF_XDP_BUFF
from xdpbatch.rewrite import Layout, Results, Xlated

SLOT = {Results.BUFF: 0, Results.ARRAY: 8}  # bytes of stack that the design takes


def arguments(results: Results, slot: int) -> str:
    """First of all: n goes to r2, and the array's address to the 8 bytes at r10 + slot."""
    if results is Results.BUFF:
        return ""
    return f"""
        *(u64 *)(r10 - {-slot}) = r2
        r2 = r3
    """


def put(results: Results, slot: int) -> str:
    """Store the verdict, r0, of the packet whose XdpBuff r1 points to; r3 may be used."""
    if results is Results.BUFF:
        return f"*(u32 *)(r1 + {ACT}) = r0"
    return f"""
        r3 = *(u64 *)(r10 - {-slot})
        *(u32 *)(r3 + 0) = r0
        r3 += 4
        *(u64 *)(r10 - {-slot}) = r3
    """


PROGRAM, RESULTS = "program", "results"  # what COLLECT refers to


def _collect() -> Xlated:
    """`u64 f(XdpBuff *buffs, u64 n)` around a program whose results go to an array.

    As a driver that keeps the array does, each is acted on after the call: copied to XdpBuff.act.
    """
    text = f"""
        .map {PROGRAM} array 4 8 1
        .map {RESULTS} array 4 8 1
        r6 = r1
        r7 = r2
        r3 = r2
        r2 = map[{RESULTS}] ll
        r4 = map[{PROGRAM}] ll
        callx r4
        r2 = map[{RESULTS}] ll
        r7 *= 4
        r7 += r2
        again:
        if r2 == r7 goto done
        r0 = *(u32 *)(r2 + 0)
        *(u32 *)(r6 + {ACT}) = r0
        r2 += 4
        r6 += {SIZEOF_XDP_BUFF}
        goto again
        done:
        r0 = 0
        exit
    """
    code = asm.program(text, "collect")
    return Xlated(code, code.insns, code.subprogs, (0,), Layout.BATCH)


COLLECT = _collect()
