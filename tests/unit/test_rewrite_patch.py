"""The patch operation and the structural check."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xdpbatch.asm import assemble, disassemble, program
from xdpbatch.isa import EXIT, FP, MOV64_IMM, NATIVE_CALL, Insn
from xdpbatch.mem import load32
from xdpbatch.native import NativeCall, Reg
from xdpbatch.program import Subprog
from xdpbatch.rewrite.check import RewriteError, check
from xdpbatch.rewrite.dead import dead
from xdpbatch.rewrite.patch import Code, Patch, expand, goto, here, written


def code(text: str) -> Code:
    made = program(text)
    return Code(made.insns, made.subprogs, (0,) * len(made.subprogs))


LOOP = """
    again:
    r1 += -1
    if r1 != 0 goto again
    call double
    exit
    double:
    r0 *= 2
    exit
"""


def test_jumps_over_an_insertion_still_arrive() -> None:
    patched = expand(code(LOOP), lambda i, insn: Patch([insn, *written("r3 = 3\nr4 = 4")]))
    expected = assemble("""
        again:
        r1 += -1
        r3 = 3
        r4 = 4
        if r1 != 0 goto again
        r3 = 3
        r4 = 4
        call double
        r3 = 3
        r4 = 4
        exit
        r3 = 3
        r4 = 4
        double:
        r0 *= 2
        r3 = 3
        r4 = 4
        exit
        r3 = 3
        r4 = 4
    """)
    assert disassemble(patched.insns) == disassemble(expected)
    assert [(s.start, s.end) for s in patched.subprogs] == [(0, 12), (12, 18)]


def test_a_jump_lands_on_the_entry_of_a_patch_and_a_call_at_its_start() -> None:
    def patch(i: int, insn: Insn) -> Patch | None:
        return Patch([*written("r5 = 5"), insn], entry=1) if i in (0, 4) else None

    patched = expand(code(LOOP), patch)
    assert patched.insns[2].target == 1  # the loop does not run r5 = 5 again
    assert patched.insns[3].target == 5  # the function starts with it


def test_local_targets() -> None:
    text = "r2 = 2\nif r1 == 0 goto out\nr3 = 3\nout:"
    patched = expand(code("r1 = 1\nexit"), lambda i, _: Patch(written(text)) if i == 0 else None)
    assert patched.insns[1].target == 3
    assert written(text)[1].target == here(3)


def test_removed_instructions_pass_jumps_on() -> None:
    patched = expand(code("goto a\na: r1 = 1\nexit"), lambda i, _: Patch([]) if i == 1 else None)
    assert disassemble(patched.insns) == ["goto +0", "exit"]


def test_dead_code_and_dead_branches() -> None:
    before = code("""
        if r1 == 0 goto never
        if r1 != 0 goto always
        r2 = 2
        never:
        r3 = 3
        exit
        always:
        call used
        exit
        used: exit
        unused: call unused
        exit
    """)
    after = dead(before, {0, 1, 5, 6, 7})
    assert disassemble(after.insns) == ["goto +0", "call pc+1", "exit", "exit"]
    assert [s.name for s in after.subprogs] == ["prog", "used"]
    assert len(after.stack_depth) == 2
    assert check(after, "dead") is after


GOOD = code("r0 = 1\nexit")


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (replace(GOOD, insns=GOOD.insns[:1]), "falls through its end"),
        (replace(GOOD, insns=(*GOOD.insns, Insn(EXIT))), "1 instructions in no function"),
        (replace(GOOD, insns=(GOOD.insns[0], Insn(MOV64_IMM))), "falls through its end"),
        (replace(GOOD, insns=(goto(2), Insn(EXIT))), "jump to 2"),
        (replace(GOOD, insns=(Insn(MOV64_IMM, FP), Insn(EXIT))), "writes r10"),
        (replace(GOOD, insns=(Insn(MOV64_IMM, 11), Insn(EXIT))), "no such register"),
        (replace(GOOD, insns=(Insn(0x20), Insn(EXIT))), "unknown opcode"),
        (replace(GOOD, insns=(Insn(0x85, src=1, target=1), Insn(EXIT))), "no function at 1"),
        (replace(GOOD, insns=(Insn(0x85, src=NATIVE_CALL), Insn(EXIT))), "go together"),
        (replace(GOOD, stack_depth=()), "one stack depth"),
        (replace(GOOD, subprogs=(Subprog("late", 1, 2),)), "does not start at 0"),
        (
            replace(
                GOOD,
                insns=(
                    Insn(0x85, src=NATIVE_CALL, native=NativeCall(load32, (Reg(1), 2))),
                    Insn(EXIT),
                ),
            ),
            "2 arguments for",
        ),
    ],
)
def test_broken_code_is_named(bad: Code, why: str) -> None:
    with pytest.raises(RewriteError, match=f"after test: .*({why})"):
        check(bad, "test")
