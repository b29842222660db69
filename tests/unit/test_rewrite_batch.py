"""The trampoline."""

from __future__ import annotations

import pytest

from xdpbatch import asm
from xdpbatch.facts import Access, Region
from xdpbatch.isa import CALL, NATIVE_CALL, Insn
from xdpbatch.native import Hidden, NativeCall, native
from xdpbatch.rewrite import Layout, Xlated
from xdpbatch.rewrite.batch import batch

PROLOGUE = [
    "if r2 != 0 goto +2",
    "r0 = 0",
    "exit",
    "*(u64 *)(r10 - 8) = r1",
    "r2 *= 56",
    "r2 += r1",
    "*(u64 *)(r10 - 16) = r2",
]
EPILOGUE = [
    "r1 = *(u64 *)(r10 - 8)",
    "*(u32 *)(r1 + 48) = r0",
    "r1 += 56",
    "*(u64 *)(r10 - 8) = r1",
    "r2 = *(u64 *)(r10 - 16)",
]


def xlated(text: str, *depths: int) -> Xlated:
    program = asm.program(text)
    return Xlated(program, program.insns, program.subprogs, depths or (0,))


@native
def target(buff: int) -> int:
    return 0


def test_the_slides_program() -> None:
    out = batch(xlated("r0 = 1\nexit"))
    last = ["if r1 != r2 goto -7", "r0 = 0", "exit"]
    assert asm.disassemble(out.insns) == [*PROLOGUE, "r0 = 1", *EPILOGUE, *last]
    assert (out.layout, out.body, out.buff_slot, out.stack_depth) == (Layout.BATCH, 7, -8, (16,))


def test_every_exit_goes_to_the_epilogue() -> None:
    out = batch(xlated("if r1 == 0 goto a\nr0 = 1\nexit\na: r0 = 2\nexit"))
    body = asm.disassemble(out.insns)[out.body :]
    assert body[:4] == ["if r1 == 0 goto +2", "r0 = 1", "goto +1", "r0 = 2"]
    assert body[4:9] == EPILOGUE
    assert body[9] == "if r1 != r2 goto -10"


def test_functions_keep_their_exits_and_the_frame_its_place() -> None:
    out = batch(xlated("*(u64 *)(r10 - 24) = r1\ncall f\nexit\nf: r0 = 2\nexit", 24, 40))
    lines = asm.disassemble(out.insns)
    assert lines[out.body] == "*(u64 *)(r10 - 24) = r1"
    assert "*(u64 *)(r10 - 32) = r1" in lines
    assert lines[-2:] == ["r0 = 2", "exit"]
    assert out.stack_depth == (40, 40)
    assert out.buff_slot == -32
    assert out.subprogs[1].end == len(out.insns)


def test_the_programs_own_loop_does_not_enter_the_prologue() -> None:
    out = batch(xlated("again: r1 += -1\nif r1 != 0 goto again\nr0 = 2\nexit"))
    assert out.insns[out.body + 1].target == out.body


def test_slots_are_marked_as_such() -> None:
    out = batch(xlated("*(u64 *)(r10 - 8) = r1\nr0 = 1\nexit", 8))
    slots = {i.fact.offset for i in out.insns if isinstance(i.fact, Access)}
    assert slots == {-16, -24}
    assert all(i.fact.region is Region.SLOT for i in out.insns if isinstance(i.fact, Access))


@pytest.mark.parametrize("jumps_back", [False, True])
def test_tail_calls_are_counted_per_packet(jumps_back: bool) -> None:
    """The counter is reset for each packet, and not by the program's own jumps."""
    plain = xlated("r0 = 1\nr0 = 2\nif r0 == 7 goto " + ("-3" if jumps_back else "+0") + "\nexit")
    fetch = Insn(CALL, src=NATIVE_CALL, native=NativeCall(target, (Hidden.BUFF,)))
    insns = (fetch, *plain.insns[1:])
    out = batch(Xlated(plain.program, insns, plain.subprogs, (0,)))
    lines = asm.disassemble(out.insns)
    start = out.body
    assert lines[start : start + 2] == ["r2 = *(u64 *)(r1 + 40)", "*(u32 *)(r2 + 20) = 0"]
    assert out.insns[-3].target == start
    assert out.insns[start + 4].target == (start + 2 if jumps_back else start + 5)
