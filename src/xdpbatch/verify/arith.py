"""Arithmetic on Nums: what each ALU operation can yield. Analogous to scalar_min_max_* of
kernel/bpf/verifier.c.

`alu(op, wide, a, b)` is the one entry. Every result contains the result of the concrete
operation (RFC 9669, section 4.1) for all concrete operands; where a range could wrap around, the
full range of its width is returned.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from xdpbatch import semantics
from xdpbatch.isa import Alu
from xdpbatch.verify import tnum
from xdpbatch.verify.domain import (
    S32_MAX,
    S32_MIN,
    S64_MAX,
    S64_MIN,
    UNKNOWN,
    UNSIGNED,
    Num,
    const,
    reduced,
    zext,
)
from xdpbatch.verify.tnum import M32, M64

Range = tuple[int, int]
CACHED = 1 << 14  # results that are remembered
FULL = {
    (64, False): (0, M64),
    (64, True): (S64_MIN, S64_MAX),
    (32, False): (0, M32),
    (32, True): (S32_MIN, S32_MAX),
}


def concrete(op: int, wide: bool, a: int, b: int, signed: bool = False) -> int:
    """The result of one operation on concrete operands, as 64 unsigned bits."""
    bits = 64 if wide else 32
    top = (1 << bits) - 1
    a, b = a & top, b & top
    if signed:
        return semantics.SIGNED_ALU[op](semantics.signed(a, bits), semantics.signed(b, bits)) & top
    return semantics.ALU[op](a, b, bits) & top


def _fit(low: int, high: int, bits: int, signed: bool) -> Range:
    """[low, high] of unbounded integers in a width: exact if all of it wraps equally often."""
    base = 1 << (bits - 1) if signed else 0
    if (low + base) >> bits != (high + base) >> bits:
        return FULL[bits, signed]
    wrap = ((low + base) >> bits) << bits
    return low - wrap, high - wrap


def _add(a: Range, b: Range, bits: int, signed: bool) -> Range:
    return _fit(a[0] + b[0], a[1] + b[1], bits, signed)


def _sub(a: Range, b: Range, bits: int, signed: bool) -> Range:
    return _fit(a[0] - b[1], a[1] - b[0], bits, signed)


def _mul(a: Range, b: Range, bits: int, signed: bool) -> Range:
    corners = (a[0] * b[0], a[0] * b[1], a[1] * b[0], a[1] * b[1])
    return _fit(min(corners), max(corners), bits, signed)


def _and(a: Range, b: Range, bits: int, signed: bool) -> Range:
    if not signed:
        return 0, min(a[1], b[1])
    if a[0] < 0 and b[0] < 0:
        return _negative_bound(a[0], b[0]), max(a[1], b[1])
    return 0, min(x[1] for x in (a, b) if x[0] >= 0)


def _or(a: Range, b: Range, bits: int, signed: bool) -> Range:
    if not signed:
        return max(a[0], b[0]), (1 << max(a[1].bit_length(), b[1].bit_length())) - 1
    if a[0] >= 0 and b[0] >= 0:
        return max(a[0], b[0]), (1 << max(a[1].bit_length(), b[1].bit_length())) - 1
    return FULL[bits, signed]


def _negative_bound(x: int, y: int) -> int:
    """The lowest result of AND of two numbers that may be as low as x and y, both negative."""
    return -(1 << max((~x).bit_length(), (~y).bit_length()))


def _xor(a: Range, b: Range, bits: int, signed: bool) -> Range:
    if not signed or (a[0] >= 0 and b[0] >= 0):
        return 0, (1 << max(a[1].bit_length(), b[1].bit_length())) - 1
    return FULL[bits, signed]


RANGES: dict[int, Callable[[Range, Range, int, bool], Range]] = {
    Alu.ADD: _add,
    Alu.SUB: _sub,
    Alu.MUL: _mul,
    Alu.AND: _and,
    Alu.OR: _or,
    Alu.XOR: _xor,
}
BITS: dict[int, Callable[[int, int, int, int], tnum.Tnum]] = {
    Alu.ADD: tnum.add,
    Alu.SUB: tnum.sub,
    Alu.MUL: tnum.mul,
    Alu.AND: tnum.and_,
    Alu.OR: tnum.or_,
    Alu.XOR: tnum.xor,
}


@lru_cache(CACHED)
def alu(op: int, wide: bool, a: Num, b: Num, signed: bool = False) -> Num:
    """What `a op b` can be; `wide` is ALU64, `signed` DIV and MOD with offset 1.

    Cached by the identity of the operands: paths compute the same again and again.
    """
    if op in (Alu.LSH, Alu.RSH, Alu.ARSH):
        bits = 64 if wide else 32
        if b.mask or b.value >= bits:
            return UNSIGNED[bits]
        if a.mask:
            return _shift(op, wide, a, b.value)
    if not a.mask and not b.mask:
        return const(concrete(op, wide, a.value, b.value, signed))
    if op in RANGES:
        return _by_ranges(op, wide, a, b)
    if op in (Alu.DIV, Alu.MOD):
        return _divide(op, wide, a, b, signed)
    raise ValueError(f"no arithmetic operation: {op:#x}")


def negate(wide: bool, a: Num) -> Num:
    """0 - a."""
    return alu(Alu.SUB, wide, const(0), a)


def _by_ranges(op: int, wide: bool, a: Num, b: Num) -> Num:
    ranges = RANGES[op]
    u32 = ranges((a.umin32, a.umax32), (b.umin32, b.umax32), 32, False)
    i32 = ranges((a.smin32, a.smax32), (b.smin32, b.smax32), 32, True)
    v, m = BITS[op](a.value, a.mask, b.value, b.mask)
    if not wide:
        return _sure(reduced(v & M32, m & M32, *u32, S64_MIN, S64_MAX, *u32, *i32), 32)
    u64 = ranges((a.umin, a.umax), (b.umin, b.umax), 64, False)
    i64 = ranges((a.smin, a.smax), (b.smin, b.smax), 64, True)
    return _sure(reduced(v, m, *u64, *i64, *u32, *i32))


def _shift(op: int, wide: bool, a: Num, n: int) -> Num:
    if not wide:
        a = zext(a, 32)
    if op == Alu.LSH:
        v, m = tnum.lsh(a.value, a.mask, n)
        if not wide:
            v, m = v & M32, m & M32
        bits = 64 if wide else 32
        low, high = _fit(a.umin << n, a.umax << n, bits, False)
        slow, shigh = _fit(a.smin << n, a.smax << n, 64, True) if wide else (S64_MIN, S64_MAX)
        low32, high32 = _fit(a.umin32 << n, a.umax32 << n, 32, False)
        return _sure(reduced(v, m, low, high, slow, shigh, low32, high32))
    if op == Alu.RSH:
        v, m = tnum.rsh(a.value, a.mask, n)
        return _sure(reduced(v, m, a.umin >> n, a.umax >> n))
    if wide:
        v, m = tnum.arsh(a.value, a.mask, n, 64)
        return _sure(reduced(v, m, smin=a.smin >> n, smax=a.smax >> n))
    v, m = tnum.arsh(a.value, a.mask, n, 32)
    return _sure(reduced(v, m, smin32=a.smin32 >> n, smax32=a.smax32 >> n))


def _divide(op: int, wide: bool, a: Num, b: Num, signed: bool) -> Num:
    """Unsigned results are at most the dividend (x / 0 = 0, x % 0 = x); signed ones unknown."""
    if signed:
        return UNKNOWN if wide else UNSIGNED[32]
    if not wide:
        a, b = zext(a, 32), zext(b, 32)
    if op == Alu.DIV:
        low = a.umin // b.umax if b.umin else 0
        return _sure(reduced(0, M64, low, a.umax // b.umin if b.umin else a.umax))
    return _sure(reduced(0, M64, 0, min(a.umax, b.umax - 1) if b.umin else a.umax))


def _sure(num: Num | None, bits: int = 64) -> Num:
    """The result, or all of its width where the operands were empty without showing it."""
    return UNSIGNED[bits] if num is None else num
