"""Bare programs as native code: no XDP around them, r1 and r2 as the caller gives them.

Analogous to what lib/test_bpf.c feeds to a JIT. Such a program is not verified, so it is for tests
of backends only. Before it is compiled three things are rewritten:

    call 5              r0 = r1; if r0 == 0: exit       the suite's unwind helper
    callx r2            if r2 == 5: the same; else callx r2
    *(u64 *)(r10 - 4)   *(u64 *)(r10 - 12)              frames move 8 bytes down: call_local.data
                                                        stores over the top of its frame
"""

from __future__ import annotations

from dataclasses import replace

from xdpbatch.errors import UnsupportedError
from xdpbatch.isa import CALL, CALLX, FP, HELPER_CALL, Alu, Insn
from xdpbatch.program import Program
from xdpbatch.rewrite import Layout, Xlated
from xdpbatch.rewrite.patch import Code, Patch, expand, written
from xdpbatch.uapi import MAX_BPF_STACK

OVERHANG = 8


def bare(program: Program, unwind: int) -> Xlated:
    """The program for a backend; `unwind` is the number of the helper that may end it."""
    depths = (MAX_BPF_STACK + OVERHANG,) * len(program.subprogs)
    code = Code(program.insns, program.subprogs, depths)
    main_end = program.subprogs[0].end

    def patch(index: int, insn: Insn) -> Patch | None:
        if insn.op == CALL and insn.src == HELPER_CALL:
            if insn.imm != unwind or index >= main_end:
                raise UnsupportedError.of("bare-helper", f"there is no helper {insn.imm} here")
            return Patch(written("r0 = r1\nif r0 != 0 goto on\nexit\non:"))
        if insn.op == CALLX and index < main_end:
            target = f"r{insn.call_register}"
            text = f"if {target} != {unwind} goto call\nr0 = r1\nif r0 != 0 goto on\nexit\n"
            return Patch(written(f"{text}call: callx {target}\non:"))
        return None

    code = expand(expand(code, patch), _lower_frame)
    return Xlated(program, code.insns, code.subprogs, depths, Layout.SINGLE)


def _lower_frame(index: int, insn: Insn) -> Patch | None:
    base = insn.src if insn.is_load else insn.dst
    if base == FP and not insn.is_alu and not insn.is_jump:
        return Patch([replace(insn, off=insn.off - OVERHANG)])
    if insn.is_alu and insn.uses_reg and insn.src == FP and insn.op & 0xF0 in (Alu.MOV, Alu.ADD):
        return Patch([insn, *written(f"r{insn.dst} += {-OVERHANG}")])
    return None
