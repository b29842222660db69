"""Random programs that every verifier accepts, and packets for them: hypothesis strategies.

Analogous to the program generators of the kernel's test_bpf and of buzzer, but only of accepted
programs, because what is tested is that all backends agree. A program is text (see `asm`), so that
a failing one can be pasted into a file test.

Every function keeps to these rules, which is why any order of statements is safe:
* r6 is the context; r7, r8 and r9 are scalars, at first from the packet; r0-r5 are free within a
  statement;
* the eight slots from r10-8 to r10-64 hold initialised scalars; loop counters lie below;
* packet and map value pointers do not outlive the statement that checks them.
"""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import count

from hypothesis import strategies as st

from xdpbatch.asm import program
from xdpbatch.program import Object
from xdpbatch.testing.statements import JUMPS, MAPS, NAMES, SLOTS, Draw, Function, block

__all__ = ["JUMPS", "MAPS", "NAMES", "as_object", "packets", "texts"]


def _body(f: Function, start: tuple[str, ...], least: int, most: int) -> list[str]:
    """The whole function; `start` gives r7, r8 and r9 their first values."""
    f.emit("r6 = r1", *start)
    f.emit(*(f"*(u64 *)(r10 - {8 * slot}) = {slot}" for slot in range(1, SLOTS + 1)))
    block(f, most, least)
    f.emit(f"r0 = r{f.scalar()}", "exit")
    return f.lines


FROM_PACKET = (
    "r7 = 1",
    "r8 = 2",
    "r9 = 3",
    "r2 = *(u32 *)(r6 + 0)",
    "r3 = *(u32 *)(r6 + 4)",
    "r1 = r2",
    "r1 += 14",
    "if r1 > r3 goto begin",
    "r7 = *(u64 *)(r2 + 0)",
    "r8 = *(u32 *)(r2 + 8)",
    "r9 = *(u16 *)(r2 + 12)",
    "begin:",
)


@st.composite
def texts(draw: Draw, least: int = 0, most: int = 10, functions: int = 2) -> str:
    """The text of a program; `least` to `most` statements stand at its top level."""
    names = tuple(f"f{i}" for i in range(functions))
    main = Function(draw, count(), names, is_main=True)
    lines = _body(main, FROM_PACKET, least, most)
    for i, name in enumerate(names):
        if name in main.called:  # the kernel refuses a function that nobody calls
            f = Function(draw, main.numbers, names[i + 1 :], main.called)
            lines += [f"{name}:", *_body(f, ("r7 = r2", "r8 = r3", "r9 = 1"), 0, 4)]
    return "\n".join(lines)


def as_object(*programs: str) -> Object:
    """Programs by their texts, the first is the one to run; they have MAPS and JUMPS.

    Without tail calls a single text does. Entries of JUMPS without a program stay empty.
    """
    jumps = {i: name for i, name in JUMPS.values.items() if name in NAMES[: len(programs)]}
    maps = (*MAPS, replace(JUMPS, values=jumps))
    pairs = zip(NAMES, programs, strict=False)
    made = {name: program(text, name, maps) for name, text in pairs}
    return Object("generated", made, made[NAMES[0]].maps, "GPL")


def packets(most: int = 6) -> st.SearchStrategy[list[bytes]]:
    """Packets that BPF_PROG_TEST_RUN takes, around the sizes that programs compare with."""
    dense = st.builds(
        lambda seed, size: random.Random(seed).randbytes(size), st.integers(0), st.integers(14, 96)
    )
    return st.lists(dense | st.binary(min_size=14, max_size=96), min_size=1, max_size=most)
