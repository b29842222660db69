"""Pointer arithmetic: what adding a number to a pointer gives. Analogous to
adjust_ptr_min_max_vals of kernel/bpf/verifier.c.

A constant moves the pointer's fixed offset; anything else becomes part of its variable offset,
under a new id for packet pointers, whose proven range then starts anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpbatch.isa import Alu, Class, Insn
from xdpbatch.verify import require
from xdpbatch.verify.arith import alu
from xdpbatch.verify.domain import S32_MAX, S32_MIN, UNKNOWN, UNSIGNED, Num
from xdpbatch.verify.explain import Refusal, reg
from xdpbatch.verify.state import PACKETS, WORDS, Kind, Pointer, Scalar, Value, mark_precise

if TYPE_CHECKING:
    from xdpbatch.verify.walk import Walk

FIXED = frozenset(
    (Kind.PACKET_END, Kind.MAP, Kind.FUNC, Kind.XDP_SOCK, Kind.SOCK, Kind.SOCK_COMMON)
)
SIGNS = dict(
    zip(
        Alu,
        ["+", "-", "*", "/", "|", "&", "<<", ">>", "neg", "%", "^", "mov", "s>>", "end"],
        strict=True,
    )
)


def point(walk: Walk, insn: Insn, a: Value, b: Value) -> Value:
    """The result of an ALU operation of which at least one operand is a pointer.

    As for a privileged program in the kernel, the difference of two pointers is a number.
    """
    op, wide = insn.op & 0xF0, insn.op & 7 == Class.ALU64
    if isinstance(a, Pointer) and isinstance(b, Pointer):
        if op == Alu.SUB:
            return Scalar(UNKNOWN if wide else UNSIGNED[32])
        raise _prohibited(f"{SIGNS.get(Alu(op), Alu(op).name)} of two pointers", insn, a, b)
    base, other = (a, b) if isinstance(a, Pointer) else (b, a)
    assert isinstance(base, Pointer)
    assert isinstance(other, Scalar)
    if not wide:
        if op == Alu.SUB:
            return Scalar(UNSIGNED[32])
        raise _prohibited("32-bit arithmetic on a pointer", insn, a, b)
    if op not in (Alu.ADD, Alu.SUB) or (op == Alu.SUB and base is b):
        raise _prohibited(f"{SIGNS.get(Alu(op), Alu(op).name)} with a pointer", insn, a, b)
    if base.null:
        number = insn.dst if base is a else insn.src
        raise Refusal(
            "null-arithmetic",
            "arithmetic on a pointer that may be null",
            reg(number, base),
            f"compare r{number} with 0 first",
        )
    mark_precise(other)
    if base.kind in FIXED:
        if base.kind == Kind.MAP and op == Alu.ADD and not other.num.umax:
            return base
        raise _prohibited(f"arithmetic on a pointer to {WORDS[base.kind]}", insn, a, b)
    if base.kind == Kind.STACK and op == Alu.SUB:
        raise _prohibited("subtraction from a stack pointer", insn, a, b)
    require.added_number(insn.src if base is a else insn.dst, other)
    moved = _shifted(walk, base, op, other.num)
    require.pointer_offset(insn.dst, moved)
    return moved


def _shifted(walk: Walk, base: Pointer, op: int, num: Num) -> Pointer:
    sign = 1 if op == Alu.ADD else -1
    # a range of "at or behind data_end" does not hold for another place
    proven = max(base.range, 0)
    if not num.mask and S32_MIN <= base.off + sign * num.smin <= S32_MAX:
        return base.moved(base.off + sign * num.smin, base.num, base.id, proven)
    offset = alu(op, True, base.num, num)
    if base.kind not in PACKETS:
        return base.moved(base.off, offset, base.id, 0)
    kept = proven if op == Alu.SUB and num.smin >= 0 else 0
    return base.moved(base.off, offset, walk.new_id(), kept)


def _prohibited(what: str, insn: Insn, a: Value, b: Value) -> Refusal:
    other = f", {reg(insn.src, b)}" if insn.op & 0x08 else ""
    return Refusal("pointer-arithmetic", f"{what} is not allowed", reg(insn.dst, a) + other)
