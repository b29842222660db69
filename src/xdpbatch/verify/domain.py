"""What is known of a 64-bit number: known bits and four ranges. Analogous to the scalar part of
`struct bpf_reg_state` (include/linux/bpf_verifier.h) and its reg_bounds_sync.

A Num is immutable; `reduced` makes the five views agree with each other. Operations on Nums are in
`arith`, refinement by comparisons in `branch`.
"""

from __future__ import annotations

from functools import lru_cache

from xdpbatch.verify import tnum
from xdpbatch.verify.tnum import M32, M64

S64_MIN, S64_MAX = -(1 << 63), (1 << 63) - 1
S32_MIN, S32_MAX = -(1 << 31), (1 << 31) - 1
SIGN64, SIGN32 = 1 << 63, 1 << 31


def s64(x: int) -> int:
    """The low 64 bits of x, as signed."""
    return ((x & M64) ^ SIGN64) - SIGN64


def s32(x: int) -> int:
    """The low 32 bits of x, as signed."""
    return ((x & M32) ^ SIGN32) - SIGN32


class Num:
    """A set of 64-bit numbers: those with the known bits (value, mask) that lie in the unsigned and
    signed ranges, and whose low 32 bits lie in the 32-bit ranges. Never empty."""

    __slots__ = (
        "mask",
        "smax",
        "smax32",
        "smin",
        "smin32",
        "umax",
        "umax32",
        "umin",
        "umin32",
        "value",
    )

    def __init__(
        self,
        value: int,
        mask: int,
        umin: int = 0,
        umax: int = M64,
        smin: int = S64_MIN,
        smax: int = S64_MAX,
        umin32: int = 0,
        umax32: int = M32,
        smin32: int = S32_MIN,
        smax32: int = S32_MAX,
    ) -> None:
        self.value = value
        self.mask = mask
        self.umin = umin
        self.umax = umax
        self.smin = smin
        self.smax = smax
        self.umin32 = umin32
        self.umax32 = umax32
        self.smin32 = smin32
        self.smax32 = smax32

    @property
    def is_const(self) -> bool:
        return not self.mask

    @property
    def views(self) -> tuple[int, ...]:
        """All that is known, as one comparable value."""
        return (
            self.value, self.mask, self.umin, self.umax, self.smin, self.smax,
            self.umin32, self.umax32, self.smin32, self.smax32,
        )  # fmt: skip

    def contains(self, x: int) -> bool:
        """Whether the number x, any representation of its 64 bits, is in the set."""
        x &= M64
        return (
            x & ~self.mask == self.value
            and self.umin <= x <= self.umax
            and self.smin <= s64(x) <= self.smax
            and self.umin32 <= x & M32 <= self.umax32
            and self.smin32 <= s32(x) <= self.smax32
        )

    def __repr__(self) -> str:
        return f"Num({describe(self)})"


@lru_cache(4096)
def const(x: int) -> Num:
    """Exactly x."""
    x &= M64
    low, signed = x & M32, s32(x)
    return Num(x, 0, x, x, s64(x), s64(x), low, low, signed, signed)


UNKNOWN = Num(0, M64)
ZERO = const(0)


@lru_cache(1024)
def between(low: int, high: int) -> Num:
    """Every integer of [low, high], unsigned."""
    v, m = tnum.between(low, high)
    num = reduced(v, m, low, high)
    assert num is not None
    return num


@lru_cache(1024)
def signed_between(low: int, high: int) -> Num:
    """Every integer of [low, high], signed."""
    num = reduced(0, M64, smin=low, smax=high)
    assert num is not None
    return num


def reduced(
    v: int,
    m: int,
    umin: int = 0,
    umax: int = M64,
    smin: int = S64_MIN,
    smax: int = S64_MAX,
    umin32: int = 0,
    umax32: int = M32,
    smin32: int = S32_MIN,
    smax32: int = S32_MAX,
) -> Num | None:
    """The Num in which each view is as narrow as the others make it, or None if no number is left.

    Each step only removes numbers that another view excludes, so that the result contains every
    number that is in all views given. Two rounds, as a third rarely finds more.
    """
    if not m:
        num = const(v)
        ok = (
            umin <= num.umin <= umax
            and smin <= num.smin <= smax
            and umin32 <= num.umin32 <= umax32
            and smin32 <= num.smin32 <= smax32
        )
        return num if ok else None
    for _ in range(2):
        # ranges from known bits
        if v > umin:
            umin = v
        if v | m < umax:
            umax = v | m
        if not m & SIGN64:
            lo = v - (1 << 64) if v & SIGN64 else v
            if lo > smin:
                smin = lo
            hi = (v | m) - (1 << 64) if v & SIGN64 else v | m
            if hi < smax:
                smax = hi
        v32, x32 = v & M32, (v | m) & M32
        if v32 > umin32:
            umin32 = v32
        if x32 < umax32:
            umax32 = x32
        if not m & SIGN32:
            if v & SIGN32:
                v32, x32 = v32 - (1 << 32), x32 - (1 << 32)
            if v32 > smin32:
                smin32 = v32
            if x32 < smax32:
                smax32 = x32
        # 64-bit ranges from each other
        umin, umax, smin, smax = _agree(umin, umax, smin, smax, S64_MAX, 1 << 64)
        # 32-bit ranges from 64-bit ones that do not cross a multiple of 2**32
        if umin >> 32 == umax >> 32:
            umin32 = max(umin32, umin & M32)
            umax32 = min(umax32, umax & M32)
        if (smin - S32_MIN) >> 32 == (smax - S32_MIN) >> 32:
            smin32 = max(smin32, s32(smin))
            smax32 = min(smax32, s32(smax))
        umin32, umax32, smin32, smax32 = _agree(umin32, umax32, smin32, smax32, S32_MAX, 1 << 32)
        # 64-bit ranges from 32-bit ones: the high half stays, the low half is bounded
        if umin32 or umax32 != M32:
            umin = max(umin, (umin & ~M32) + umin32)
            umax = min(umax, (umax & ~M32) + umax32)
            smin = max(smin, (smin & ~M32) + umin32)
            smax = min(smax, (smax & ~M32) + umax32)
        if smin >= S32_MIN and smax <= S32_MAX:
            smin = max(smin, smin32)
            smax = min(smax, smax32)
        if umin > umax or smin > smax or umin32 > umax32 or smin32 > smax32:
            return None
        # known bits from ranges
        delta = (1 << (umin ^ umax).bit_length()) - 1
        delta32 = (1 << (umin32 ^ umax32).bit_length()) - 1
        known = m & ~delta | m & M32 & ~delta32
        if ((v ^ umin) & ~delta & ~m) or ((v ^ umin32) & M32 & ~delta32 & ~m):
            return None
        if known:
            v |= umin & m & ~delta | umin32 & m & M32 & ~delta32
            m &= ~known
            if (v ^ umin) & ~delta & M64 or (v ^ umin32) & ~delta32 & M32:
                return None
    if umin == umax or not m:
        return reduced(umin, 0, umin, umax, smin, smax, umin32, umax32, smin32, smax32)
    return Num(v, m, umin, umax, smin, smax, umin32, umax32, smin32, smax32)


def _agree(
    umin: int, umax: int, smin: int, smax: int, top: int, modulus: int
) -> tuple[int, int, int, int]:
    """Unsigned and signed ranges of one width, each cut by the other.

    Where the signed range does not cross 0 (or the unsigned one `top`) they are the same range.
    Where both cross, one half of a range may still be excluded by the other.
    """
    if umax <= top:
        smin, smax = max(smin, umin), min(smax, umax)
    elif umin > top:
        smin, smax = max(smin, umin - modulus), min(smax, umax - modulus)
    if smin >= 0:
        return max(umin, smin), min(umax, smax), smin, smax
    if smax < 0:
        return max(umin, smin + modulus), min(umax, smax + modulus), smin, smax
    if umax < smin + modulus:  # no negative number is left
        return umin, min(umax, smax), max(umin, 0), smax
    if umin > smax:  # no number >= 0 is left
        return max(umin, smin + modulus), umax, smin, min(smax, umax - modulus)
    return umin, umax, smin, smax


UNSIGNED = {bits: between(0, (1 << bits) - 1) for bits in (8, 16, 32)} | {64: UNKNOWN}
SIGNED = {
    bits: signed_between(-(1 << (bits - 1)), (1 << (bits - 1)) - 1) for bits in (8, 16, 32)
} | {64: UNKNOWN}


@lru_cache(4096)
def zext(num: Num, bits: int) -> Num:
    """The low `bits`, zero-extended: what a MOV32 or a narrow load or store keeps of it."""
    top = (1 << bits) - 1
    if num.umax <= top:
        return num
    if not num.mask:
        return const(num.value & top)
    if bits == 32:
        low, high = num.umin32, num.umax32
    else:
        same = num.umin >> bits == num.umax >> bits
        low, high = (num.umin & top, num.umax & top) if same else (0, top)
    out = reduced(
        num.value & top, num.mask & top, low, high,
        smin32=num.smin32 if bits == 32 else S32_MIN,
        smax32=num.smax32 if bits == 32 else S32_MAX,
    )  # fmt: skip
    return UNSIGNED[bits] if out is None else out


@lru_cache(4096)
def sext(num: Num, bits: int) -> Num:
    """The low `bits`, sign-extended to 64: MOVSX and sign-extending loads."""
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    if num.smin >= low and num.smax <= high:
        return num
    v, m = tnum.sext(num.value, num.mask, bits)
    if bits == 32:
        low, high = num.smin32, num.smax32
    elif (num.smin - low) >> bits == (num.smax - low) >> bits:
        shift = (num.smin - low) >> bits << bits
        low, high = num.smin - shift, num.smax - shift
    out = reduced(v, m, smin=low, smax=high)
    return SIGNED[bits] if out is None else out


def within(new: Num, old: Num) -> bool:
    """Whether every number of `new` is known to be in `old`."""
    return new is old or (
        old.umin <= new.umin
        and old.umax >= new.umax
        and old.smin <= new.smin
        and old.smax >= new.smax
        and old.umin32 <= new.umin32
        and old.umax32 >= new.umax32
        and old.smin32 <= new.smin32
        and old.smax32 >= new.smax32
        and not new.mask & ~old.mask
        and new.value & ~old.mask == old.value
    )


def describe(num: Num) -> str:
    """In the field's words: a constant, the narrowest range, or `unknown`."""
    if not num.mask:
        x = num.smin
        return str(x) if abs(x) < 1 << 16 else hex(num.value)
    unsigned = num.umax - num.umin <= num.smax - num.smin
    low, high = (num.umin, num.umax) if unsigned else (num.smin, num.smax)
    if high - low < M64:
        return f"[{low}, {high}]"
    if num.umax32 - num.umin32 < M32:
        return f"unknown with low half [{num.umin32}, {num.umax32}]"
    return "unknown"
