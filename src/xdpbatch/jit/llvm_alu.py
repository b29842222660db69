"""Arithmetic and comparisons of BPF in LLVM IR, so that nothing a program does is undefined.

Analogous to the fixups of do_misc_fixups() in kernel/bpf/verifier.c: BPF defines division by zero,
the overflow of signed division, and shifts by more than the width, LLVM IR does not. No `nsw`,
`nuw` or `exact` is ever emitted. The source is RFC 9669, sections 4.1 and 4.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from llvmlite import ir

from xdpbatch.isa import Alu, Jmp

Value: TypeAlias = ir.Value
Binary = Callable[[ir.IRBuilder, Value, Value], Value]


def _shift(name: str) -> Binary:
    def emit(b: ir.IRBuilder, a: Value, n: Value) -> Value:
        masked = b.and_(n, n.type(n.type.width - 1))
        shifted: Value = getattr(b, name)(a, masked)
        return shifted

    return emit


def divide(b: ir.IRBuilder, a: Value, d: Value) -> Value:
    """Unsigned; anything divided by 0 is 0."""
    zero = b.icmp_unsigned("==", d, d.type(0))
    return b.select(zero, d.type(0), b.udiv(a, b.select(zero, d.type(1), d)))


def modulo(b: ir.IRBuilder, a: Value, d: Value) -> Value:
    """Unsigned; anything modulo 0 is itself."""
    zero = b.icmp_unsigned("==", d, d.type(0))
    return b.select(zero, a, b.urem(a, b.select(zero, d.type(1), d)))


def signed_divide(b: ir.IRBuilder, a: Value, d: Value) -> Value:
    """Towards zero; by 0 it is 0; by -1 it is the wrapping negation."""
    zero, minus, safe = _signed_divisor(b, d)
    return b.select(zero, d.type(0), b.select(minus, b.neg(a), b.sdiv(a, safe)))


def signed_modulo(b: ir.IRBuilder, a: Value, d: Value) -> Value:
    """The sign is the dividend's; modulo 0 it is the dividend; modulo -1 it is 0."""
    zero, minus, safe = _signed_divisor(b, d)
    return b.select(zero, a, b.select(minus, d.type(0), b.srem(a, safe)))


def _signed_divisor(b: ir.IRBuilder, d: Value) -> tuple[Value, Value, Value]:
    """Whether it is 0, whether it is -1, and one that is neither."""
    zero = b.icmp_unsigned("==", d, d.type(0))
    minus = b.icmp_unsigned("==", d, d.type(-1))
    return zero, minus, b.select(b.or_(zero, minus), d.type(1), d)


BINARY: dict[int, Binary] = {
    Alu.ADD: lambda b, a, x: b.add(a, x),
    Alu.SUB: lambda b, a, x: b.sub(a, x),
    Alu.MUL: lambda b, a, x: b.mul(a, x),
    Alu.OR: lambda b, a, x: b.or_(a, x),
    Alu.AND: lambda b, a, x: b.and_(a, x),
    Alu.XOR: lambda b, a, x: b.xor(a, x),
    Alu.MOV: lambda b, a, x: x,
    Alu.NEG: lambda b, a, x: b.neg(a),
    Alu.LSH: _shift("shl"),
    Alu.RSH: _shift("lshr"),
    Alu.ARSH: _shift("ashr"),
    Alu.DIV: divide,
    Alu.MOD: modulo,
}
SIGNED: dict[int, Binary] = {Alu.DIV: signed_divide, Alu.MOD: signed_modulo}

COMPARE = {
    Jmp.JEQ: "==",
    Jmp.JNE: "!=",
    Jmp.JGT: ">",
    Jmp.JGE: ">=",
    Jmp.JLT: "<",
    Jmp.JLE: "<=",
    Jmp.JSGT: ">",
    Jmp.JSGE: ">=",
    Jmp.JSLT: "<",
    Jmp.JSLE: "<=",
}
SIGNED_COMPARE = (Jmp.JSGT, Jmp.JSGE, Jmp.JSLT, Jmp.JSLE)


def compare(b: ir.IRBuilder, op: int, a: Value, x: Value) -> Value:
    """Whether a conditional jump is taken (section 4.3)."""
    if op == Jmp.JSET:
        return b.icmp_unsigned("!=", b.and_(a, x), a.type(0))
    sign = COMPARE[Jmp(op)]
    return b.icmp_signed(sign, a, x) if op in SIGNED_COMPARE else b.icmp_unsigned(sign, a, x)


def narrow(b: ir.IRBuilder, value: Value, bits: int) -> Value:
    """The low `bits` bits."""
    kind = ir.IntType(bits)
    return value if value.type == kind else b.trunc(value, kind)


def widen(b: ir.IRBuilder, value: Value, bits: int = 64, *, signed: bool = False) -> Value:
    """As `bits` bits, zero-extended or sign-extended."""
    kind = ir.IntType(bits)
    if value.type == kind:
        return value
    return b.sext(value, kind) if signed else b.zext(value, kind)


def byte_order(b: ir.IRBuilder, value: Value, bits: int, *, swap: bool) -> Value:
    """The low `bits` bits, zero-extended, in the other byte order if `swap`."""
    part = narrow(b, value, bits)
    return widen(b, b.bswap(part) if swap else part)
