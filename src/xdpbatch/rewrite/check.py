"""The structural check after every rewrite: what a backend may take for granted.

Analogous to check_subprogs() of kernel/bpf/verifier.c, run on our own output: a violation is a
bug of this runtime, so it is an AssertionError that says which pass and which instruction.
"""

from __future__ import annotations

from xdpbatch.isa import (
    BPF_CALL,
    CALL,
    CALLX,
    FP,
    LD_IMM64,
    NATIVE_CALL,
    OPCODES,
    PSEUDO_FUNC,
    Class,
    Insn,
)
from xdpbatch.native import Field, Reg
from xdpbatch.program import Subprog
from xdpbatch.rewrite.patch import Code


class RewriteError(AssertionError):
    """A rewrite has made code that no backend should see."""


def check(code: Code, after: str) -> Code:
    """`code` itself, or RewriteError naming the pass it comes out of."""
    end = 0
    if len(code.stack_depth) != len(code.subprogs):
        raise RewriteError(f"after {after}: one stack depth per function is wanted")
    for subprog in code.subprogs:
        if subprog.start != end or subprog.end <= subprog.start:
            raise RewriteError(f"after {after}: {subprog.name} does not start at {end}")
        end = subprog.end
        if end > len(code.insns) or code.insns[end - 1].falls_through:
            raise RewriteError(f"after {after}: {subprog.name} falls through its end")
    if end != len(code.insns):
        raise RewriteError(f"after {after}: {len(code.insns) - end} instructions in no function")
    starts = {subprog.start for subprog in code.subprogs}
    for subprog in code.subprogs:
        for i in range(subprog.start, subprog.end):
            why = _wrong(code.insns[i], subprog, starts)
            if why:
                raise RewriteError(f"after {after}: insn {i} ({code.insns[i]}): {why}")
    return code


def _wrong(insn: Insn, subprog: Subprog, starts: set[int]) -> str:
    """What is wrong with an instruction, or nothing."""
    if insn.op not in OPCODES:
        return "unknown opcode"
    if not (0 <= insn.dst <= FP and 0 <= insn.src <= 15) or (insn.src > FP and insn.op != CALL):
        return "no such register"
    if insn.dst == FP and (insn.is_alu or insn.is_load or insn.op == LD_IMM64):
        return "writes r10"
    if insn.is_jump:
        inside = insn.target is not None and subprog.start <= insn.target < subprog.end
        return "" if inside else f"jump to {insn.target}, out of {subprog.name}"
    names_function = (insn.op, insn.src) in ((CALL, BPF_CALL), (LD_IMM64, PSEUDO_FUNC))
    if names_function:
        return "" if insn.target in starts else f"no function at {insn.target}"
    if insn.target is not None:
        return "has a target but is no jump"
    if insn.op == CALL:
        return _wrong_call(insn)
    if insn.native is not None:
        return "has a native function but is no call"
    if insn.cls == Class.LD and insn.src > PSEUDO_FUNC:
        return "64-bit immediate of an unknown kind"
    return ""


def _wrong_call(insn: Insn) -> str:
    if (insn.src == NATIVE_CALL) != (insn.native is not None):
        return "NATIVE_CALL and `native` go together"
    if insn.native is None:
        return ""
    call = insn.native
    if len(call.arguments) != len(call.function.params):
        return f"{len(call.arguments)} arguments for {call.function!r}"
    registers = [a.number for a in call.arguments if isinstance(a, Reg)]
    registers += [a.register for a in call.arguments if isinstance(a, Field)]
    return "no such register" if any(not 0 <= r <= FP for r in registers) else ""


def final(code: Code, after: str) -> Code:
    """As `check`, and nothing is left that only the kernel could run."""
    check(code, after)
    for i, insn in enumerate(code.insns):
        foreign_call = insn.op == CALL and insn.src not in (BPF_CALL, NATIVE_CALL)
        if foreign_call and insn.op != CALLX:
            raise RewriteError(f"after {after}: insn {i} calls a helper by number")
        if insn.op == LD_IMM64 and insn.ref is not None and insn.src == 0:
            raise RewriteError(f"after {after}: insn {i} refers to {insn.ref} but is no map")
    return code
