"""The verifier's numbers contain every concrete result: operations, casts, comparisons, reduction.

Sets of concrete 64-bit numbers, with the corners of every width among them, stand for "all that a
register can be"; what the domain computes from their hull must contain what the machine computes
from each of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdpbatch.isa import Alu, Jmp
from xdpbatch.semantics import JUMP, SIGNED_JUMP, signed
from xdpbatch.verify import arith, domain, refine, tnum
from xdpbatch.verify.domain import Num, reduced, s32, s64
from xdpbatch.verify.tnum import M32, M64

CORNERS = [
    (base + delta) & M64
    for base in (0, 1 << 15, 1 << 16, 1 << 31, 1 << 32, 1 << 33, 1 << 63, 0xFFFF << 31)
    for delta in range(-2, 3)
]
numbers = st.one_of(
    st.sampled_from(CORNERS), st.integers(0, M64), st.integers(0, 255), st.integers(0, M32)
)
sets = st.one_of(
    st.lists(numbers, min_size=1, max_size=4),
    st.builds(lambda x, n: [(x + i) & M64 for i in range(n)], numbers, st.integers(1, 6)),
)
VIEWS = st.lists(st.booleans(), min_size=5, max_size=5)


def hull(values: Iterable[int], views: list[bool]) -> Num:
    """A Num that contains all values; of the five views only those chosen say anything."""
    xs = [x & M64 for x in values]
    ones, any_ = M64, 0
    for x in xs:
        ones, any_ = ones & x, any_ | x
    bits = (ones, any_ & ~ones) if views[0] else (0, M64)
    wide = (min(xs), max(xs)) if views[1] else (0, M64)
    signed = sorted(map(s64, xs)) if views[2] else [domain.S64_MIN, domain.S64_MAX]
    low = sorted(x & M32 for x in xs) if views[3] else [0, M32]
    low_signed = sorted(map(s32, xs)) if views[4] else [domain.S32_MIN, domain.S32_MAX]
    num = reduced(*bits, *wide, signed[0], signed[-1], low[0], low[-1], low_signed[0],
                  low_signed[-1])  # fmt: skip
    assert num is not None
    return num


@st.composite
def known(draw: st.DrawFn) -> tuple[list[int], Num]:
    values = draw(sets)
    return values, hull(values, draw(VIEWS))


@settings(max_examples=300)
@given(known())
def test_reduction_keeps_every_number(pair: tuple[list[int], Num]) -> None:
    values, num = pair
    assert all(num.contains(x) for x in values)


OPS = [op for op in Alu if op not in (Alu.MOV, Alu.END, Alu.NEG)]


@settings(max_examples=400)
@given(st.sampled_from(OPS), st.booleans(), known(), known(), st.booleans())
def test_arithmetic_contains_every_result(
    op: Alu, wide: bool, a: tuple[list[int], Num], b: tuple[list[int], Num], sign: bool
) -> None:
    sign = sign and op in (Alu.DIV, Alu.MOD)
    out = arith.alu(op, wide, a[1], b[1], sign)
    for x, y in itertools.product(a[0], b[0]):
        assert out.contains(arith.concrete(op, wide, x, y, sign)), (op, wide, hex(x), hex(y))


@settings(max_examples=100)
@given(st.booleans(), known())
def test_negation_contains_every_result(wide: bool, a: tuple[list[int], Num]) -> None:
    out = arith.negate(wide, a[1])
    for x in a[0]:
        assert out.contains(arith.concrete(Alu.NEG, wide, x, 0))


@settings(max_examples=200)
@given(known(), st.sampled_from([8, 16, 32]))
def test_casts_contain_every_result(a: tuple[list[int], Num], bits: int) -> None:
    for x in a[0]:
        low = x & ((1 << bits) - 1)
        assert domain.zext(a[1], bits).contains(low)
        assert domain.sext(a[1], bits).contains(low - (1 << bits) if low >> (bits - 1) else low)


def taken(op: Jmp, wide: bool, x: int, y: int) -> bool:
    bits = 64 if wide else 32
    if op in SIGNED_JUMP:
        return SIGNED_JUMP[op](signed(x, bits), signed(y, bits))
    return JUMP[op](x & ((1 << bits) - 1), y & ((1 << bits) - 1))


COMPARISONS = [op for op in Jmp if op not in (Jmp.JA, Jmp.CALL, Jmp.EXIT)]


@settings(max_examples=400)
@given(st.sampled_from(COMPARISONS), st.booleans(), known(), known())
def test_refinement_keeps_every_pair_that_goes_this_way(
    op: Jmp, wide: bool, a: tuple[list[int], Num], b: tuple[list[int], Num]
) -> None:
    yes = refine.refine(op, wide, a[1], b[1])
    no = refine.refine(refine.INVERSE[op], wide, a[1], b[1])
    for x, y in itertools.product(a[0], b[0]):
        found = yes if taken(op, wide, x, y) else no
        assert found is not None, (op, wide, hex(x), hex(y))
        assert found[0].contains(x)
        assert found[1].contains(y)


@given(sets, sets, VIEWS, VIEWS)
def test_within_means_subset(
    some: list[int], more: list[int], views: list[bool], wider: list[bool]
) -> None:
    new, old = hull(some, views), hull(some + more, wider)
    if domain.within(new, old):
        assert all(old.contains(x) for x in some)
    if domain.within(old, new):
        assert all(new.contains(x) for x in some + more)
    assert domain.within(new, new)


SMALL = [(v, m) for v in range(16) for m in range(16) if not v & m]


def members(t: tuple[int, int]) -> set[int]:
    return {x for x in range(16) if x & ~t[1] == t[0]}


@pytest.mark.parametrize("name", ["add", "sub", "mul", "and_", "or_", "xor"])
def test_tnum_operations_by_enumeration(name: str) -> None:
    concrete = {
        "add": int.__add__, "sub": int.__sub__, "mul": int.__mul__,
        "and_": int.__and__, "or_": int.__or__, "xor": int.__xor__,
    }[name]  # fmt: skip
    for a, b in itertools.product(SMALL, SMALL):
        v, m = getattr(tnum, name)(*a, *b)
        assert not v & m
        for x, y in itertools.product(members(a), members(b)):
            assert concrete(x, y) & M64 & ~m == v, (a, b, x, y)


def test_tnum_within_and_meet_by_enumeration() -> None:
    for a, b in itertools.product(SMALL, SMALL):
        assert tnum.within(*a, *b) == (members(a) <= members(b))
        both = tnum.meet(*a, *b)
        assert (members(both) if both else set()) == members(a) & members(b)


def test_tnum_between_contains_the_range_and_no_more_leading_bits() -> None:
    for low, high in itertools.combinations_with_replacement(range(64), 2):
        v, m = tnum.between(low, high)
        assert all(x & ~m == v for x in range(low, high + 1))
        assert v <= low <= high <= v | m
