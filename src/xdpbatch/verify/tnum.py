"""Tnums: which bits of a 64-bit value are known. Analogous to kernel/bpf/tnum.c.

A tnum is a pair (value, mask): a bit that is 1 in `mask` is unknown, the others are those of
`value`; no bit is 1 in both. Every function contains the concrete results of every concrete
operands (Vishwanathan et al., "Sound, Precise, and Fast Abstract Interpretation with Tristate
Numbers", CGO 2022).
"""

from __future__ import annotations

M64 = (1 << 64) - 1
M32 = (1 << 32) - 1

Tnum = tuple[int, int]
UNKNOWN: Tnum = (0, M64)


def between(low: int, high: int) -> Tnum:
    """The tnum of all integers of [low, high], unsigned: their common leading bits are known."""
    delta = (1 << (low ^ high).bit_length()) - 1
    return low & ~delta, delta


def add(av: int, am: int, bv: int, bm: int) -> Tnum:
    carries = ((av + bv + am + bm) ^ (av + bv)) | am | bm
    return (av + bv) & ~carries & M64, carries & M64


def sub(av: int, am: int, bv: int, bm: int) -> Tnum:
    diff = av - bv
    borrows = ((diff + am) ^ (diff - bm)) | am | bm
    return diff & ~borrows & M64, borrows & M64


def and_(av: int, am: int, bv: int, bm: int) -> Tnum:
    ones = av & bv
    return ones, (av | am) & (bv | bm) & ~ones


def or_(av: int, am: int, bv: int, bm: int) -> Tnum:
    ones = av | bv
    return ones, (am | bm) & ~ones


def xor(av: int, am: int, bv: int, bm: int) -> Tnum:
    unknown = am | bm
    return (av ^ bv) & ~unknown, unknown


def mul(av: int, am: int, bv: int, bm: int) -> Tnum:
    """Long multiplication: the known product plus one unknown addend per unknown bit of a."""
    known = av * bv & M64
    v, m = 0, 0
    while (av or am) and (bv or bm):
        if av & 1:
            v, m = add(v, m, 0, bm)
        elif am & 1:
            v, m = add(v, m, 0, bv | bm)
        av, am = av >> 1, am >> 1
        bv, bm = bv << 1 & M64, bm << 1 & M64
    return add(known, 0, v, m)


def lsh(v: int, m: int, n: int) -> Tnum:
    return v << n & M64, m << n & M64


def rsh(v: int, m: int, n: int) -> Tnum:
    return v >> n, m >> n


def arsh(v: int, m: int, n: int, bits: int) -> Tnum:
    """Shift of the low `bits` with their sign bit, known or not, coming in; truncated to `bits`."""
    full = (1 << bits) - 1
    return _sar(v, n, bits) & full, _sar(m, n, bits) & full


def _sar(x: int, n: int, bits: int) -> int:
    x &= (1 << bits) - 1
    return (x - (1 << bits) if x >> (bits - 1) else x) >> n


def sext(v: int, m: int, bits: int) -> Tnum:
    """The low `bits`, sign-extended to 64."""
    return _sar(v, 0, bits) & M64, _sar(m, 0, bits) & M64


def meet(av: int, am: int, bv: int, bm: int) -> Tnum | None:
    """What is in both, or None where a known bit differs."""
    if (av ^ bv) & ~am & ~bm:
        return None
    mask = am & bm
    return (av | bv) & ~mask, mask


def within(inner_v: int, inner_m: int, outer_v: int, outer_m: int) -> bool:
    """Whether every value of the inner is one of the outer."""
    return not (inner_m & ~outer_m) and (inner_v & ~outer_m) == outer_v
