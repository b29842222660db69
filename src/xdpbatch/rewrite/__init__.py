"""Rewrites of a verified program, each a pure function from one stage's type to the next.

Verified --xlate: dead, zero, ctx, maps, control, calls--> Xlated --batch.batch--> Batched
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from xdpbatch.isa import Insn
from xdpbatch.program import Program, Subprog

if TYPE_CHECKING:
    from xdpbatch.rewrite.patch import Code
    from xdpbatch.verify import Verified


class Layout(Enum):
    """How a native program is called; see Compiled."""

    SINGLE = "single"  # r1 = XdpBuff, returns the verdict
    BATCH = "batch"  # r1 = XdpBuff[n], r2 = n, verdicts go to XdpBuff.act
    POC = "poc"  # the slides' form, always 64 times


class Results(Enum):
    """Where a trampoline puts verdicts: the slides' two designs; see rewrite.results."""

    BUFF = "buff"  # XdpBuff.act
    ARRAY = "array"  # u32 results[n], the second argument; n is the third


@dataclass(frozen=True, slots=True)
class Xlated:
    """A program on this runtime's own structures: r1 is an XdpBuff, r0 at exit the verdict.

    Its calls are bpf-to-bpf or NATIVE_CALL; its maps are LD_IMM64 with `ref` (the map's address).
    """

    program: Program  # what it came from: name, maps, license
    insns: tuple[Insn, ...]
    subprogs: tuple[Subprog, ...]
    stack_depth: tuple[int, ...]
    layout: Layout = Layout.SINGLE
    verified: Verified | None = field(default=None, repr=False, compare=False)  # for rewrite.slice


@dataclass(frozen=True, slots=True)
class Batched(Xlated):
    """An Xlated inside a trampoline.

    `body` is the instruction where each packet starts: all registers but r1 and r10 are undefined
    there, and so is the program's own stack. `buff_slot` is the offset from r10 of the 8 bytes that
    hold the current XdpBuff.
    """

    body: int = 0
    buff_slot: int = 0
    results: Results = Results.BUFF
    stage: int = 0  # packets staged at a time
    sliced: int = 0  # where the slice's function is, with an XdpBuff in r1; 0: there is none
    unstaged: str = ""  # why none are, though it was asked for


def xlate(verified: Verified) -> Xlated:
    """All rewrites but the trampoline. Raises UnsupportedError for a helper that is not here."""
    code = lowered(verified, lambda code: code)
    return Xlated(verified.program, code.insns, code.subprogs, code.stack_depth, verified=verified)


def lowered(verified: Verified, before_calls: Callable[[Code], Code]) -> Code:
    """The rewrites of `xlate`, with one more before helper calls are replaced."""
    from xdpbatch.rewrite.calls import calls
    from xdpbatch.rewrite.check import check, final
    from xdpbatch.rewrite.control import control
    from xdpbatch.rewrite.ctx import ctx
    from xdpbatch.rewrite.dead import dead
    from xdpbatch.rewrite.maps import maps
    from xdpbatch.rewrite.patch import Code
    from xdpbatch.rewrite.zero import zero

    program = verified.program
    stack, unwritten = verified.stack_depth, verified.zero_stack
    code = Code(program.insns, program.subprogs, stack, unwritten)
    code = check(dead(code, verified.reached), "dead")
    code = check(zero(code), "zero")
    code = check(ctx(code), "ctx")
    code = check(maps(code, program.maps), "maps")
    code = check(control(code, program.maps), "control")
    code = check(before_calls(code), "what comes before calls")
    return final(calls(code, program.maps), "calls")
