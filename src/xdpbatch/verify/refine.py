"""What a comparison that came out one way says of its two operands. Analogous to
regs_refine_cond_op of kernel/bpf/verifier.c.

`refine(op, wide, a, b)` gives both Nums where `a op b` holds, or None where it never does. A Num
about which nothing new is known comes back as the same object.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from xdpbatch.isa import Jmp
from xdpbatch.verify.arith import CACHED
from xdpbatch.verify.domain import Num, reduced
from xdpbatch.verify.tnum import M32, M64, meet

Pair = tuple[Num, Num]
NO_BIT = -int(Jmp.JSET)  # the opposite of JSET, which has no opcode
INVERSE: dict[int, int] = {
    Jmp.JEQ: Jmp.JNE, Jmp.JNE: Jmp.JEQ, Jmp.JGT: Jmp.JLE, Jmp.JLE: Jmp.JGT,
    Jmp.JGE: Jmp.JLT, Jmp.JLT: Jmp.JGE, Jmp.JSGT: Jmp.JSLE, Jmp.JSLE: Jmp.JSGT,
    Jmp.JSGE: Jmp.JSLT, Jmp.JSLT: Jmp.JSGE, Jmp.JSET: NO_BIT,
}  # fmt: skip


@lru_cache(CACHED)
def refine(op: int, wide: bool, a: Num, b: Num) -> Pair | None:
    """Both operands where `a op b` holds; 32-bit comparisons see the low halves only."""
    if op in (Jmp.JGT, Jmp.JGE, Jmp.JSGT, Jmp.JSGE):
        swapped = refine(_LESS[op], wide, b, a)
        return swapped and (swapped[1], swapped[0])
    return _RULES[op](wide, a, b)


_LESS: dict[int, int] = {
    Jmp.JGT: Jmp.JLT, Jmp.JGE: Jmp.JLE, Jmp.JSGT: Jmp.JSLT, Jmp.JSGE: Jmp.JSLE,
}  # fmt: skip


def _cut(
    num: Num,
    umin: int | None = None,
    umax: int | None = None,
    smin: int | None = None,
    smax: int | None = None,
    umin32: int | None = None,
    umax32: int | None = None,
    smin32: int | None = None,
    smax32: int | None = None,
) -> Num | None:
    """`num` without what lies outside of the given bounds."""
    new = (
        num.umin if umin is None or umin < num.umin else umin,
        num.umax if umax is None or umax > num.umax else umax,
        num.smin if smin is None or smin < num.smin else smin,
        num.smax if smax is None or smax > num.smax else smax,
        num.umin32 if umin32 is None or umin32 < num.umin32 else umin32,
        num.umax32 if umax32 is None or umax32 > num.umax32 else umax32,
        num.smin32 if smin32 is None or smin32 < num.smin32 else smin32,
        num.smax32 if smax32 is None or smax32 > num.smax32 else smax32,
    )
    if new == num.views[2:]:
        return num
    if new[0] > new[1] or new[2] > new[3] or new[4] > new[5] or new[6] > new[7]:
        return None
    return reduced(num.value, num.mask, *new)


def _both(a: Num | None, b: Num | None) -> Pair | None:
    return None if a is None or b is None else (a, b)


def _less(wide: bool, a: Num, b: Num, strict: int) -> Pair | None:
    if wide:
        return _both(_cut(a, umax=b.umax - strict), _cut(b, umin=a.umin + strict))
    return _both(_cut(a, umax32=b.umax32 - strict), _cut(b, umin32=a.umin32 + strict))


def _signed_less(wide: bool, a: Num, b: Num, strict: int) -> Pair | None:
    if wide:
        return _both(_cut(a, smax=b.smax - strict), _cut(b, smin=a.smin + strict))
    return _both(_cut(a, smax32=b.smax32 - strict), _cut(b, smin32=a.smin32 + strict))


def _equal(wide: bool, a: Num, b: Num) -> Pair | None:
    if not wide:
        x = _cut(a, umin32=b.umin32, umax32=b.umax32, smin32=b.smin32, smax32=b.smax32)
        y = _cut(b, umin32=a.umin32, umax32=a.umax32, smin32=a.smin32, smax32=a.smax32)
        if x is None or y is None:
            return None
        low_a, low_b = (x.value & M32, x.mask & M32), (y.value & M32, y.mask & M32)
        bits = meet(*low_a, *low_b)
        return bits and _both(_with_low_bits(x, bits), _with_low_bits(y, bits))
    bits = meet(a.value, a.mask, b.value, b.mask)
    if bits is None:
        return None
    lows = (
        max(a.umin, b.umin),
        max(a.smin, b.smin),
        max(a.umin32, b.umin32),
        max(a.smin32, b.smin32),
    )
    highs = (
        min(a.umax, b.umax),
        min(a.smax, b.smax),
        min(a.umax32, b.umax32),
        min(a.smax32, b.smax32),
    )
    if any(low > high for low, high in zip(lows, highs, strict=True)):
        return None
    num = reduced(*bits, lows[0], highs[0], lows[1], highs[1], lows[2], highs[2], lows[3], highs[3])
    if num is None:
        return None
    return a if num.views == a.views else num, b if num.views == b.views else num


def _with_low_bits(num: Num, bits: tuple[int, int]) -> Num | None:
    value, mask = (num.value & ~M32 | bits[0]) & M64, num.mask & ~M32 | bits[1]
    if (value, mask) == (num.value, num.mask):
        return num
    return reduced(value, mask, *num.views[2:])


def _unequal(wide: bool, a: Num, b: Num) -> Pair | None:
    return _both(_without(wide, a, b), _without(wide, b, a))


def _without(wide: bool, num: Num, other: Num) -> Num | None:
    """`num` without the one value of `other`, if that is an end of a range."""
    if wide:
        if other.mask:
            return num
        if not num.mask:
            return num if num.value != other.value else None
        u, s = other.umin, other.smin
        return _cut(
            num,
            u + 1 if num.umin == u else None, u - 1 if num.umax == u else None,
            s + 1 if num.smin == s else None, s - 1 if num.smax == s else None,
        )  # fmt: skip
    if other.umin32 != other.umax32:
        return num
    u, s = other.umin32, other.smin32
    return _cut(
        num,
        umin32=u + 1 if num.umin32 == u else None, umax32=u - 1 if num.umax32 == u else None,
        smin32=s + 1 if num.smin32 == s else None, smax32=s - 1 if num.smax32 == s else None,
    )  # fmt: skip


def _some_bit(wide: bool, a: Num, b: Num) -> Pair | None:
    """a & b != 0."""
    width = M64 if wide else M32
    possible = (a.value | a.mask) & (b.value | b.mask) & width
    if not possible:
        return None
    if not b.mask and not b.value & width & (b.value & width) - 1:
        return _both(_with_bits(a, b.value & width, b.value & width), b)
    return a, b


def _no_bit(wide: bool, a: Num, b: Num) -> Pair | None:
    """a & b == 0."""
    width = M64 if wide else M32
    if a.value & b.value & width:
        return None
    return (a, b) if b.mask else _both(_with_bits(a, b.value & width, 0), b)


def _with_bits(num: Num, which: int, value: int) -> Num | None:
    """`num` where the bits `which` are those of `value`."""
    if not num.mask & which:
        return num
    return reduced(num.value | value & num.mask, num.mask & ~which, *num.views[2:])


_RULES: dict[int, Callable[[bool, Num, Num], Pair | None]] = {
    Jmp.JEQ: _equal,
    Jmp.JNE: _unequal,
    Jmp.JLT: lambda wide, a, b: _less(wide, a, b, 1),
    Jmp.JLE: lambda wide, a, b: _less(wide, a, b, 0),
    Jmp.JSLT: lambda wide, a, b: _signed_less(wide, a, b, 1),
    Jmp.JSLE: lambda wide, a, b: _signed_less(wide, a, b, 0),
    Jmp.JSET: _some_bit,
    NO_BIT: _no_bit,
}
