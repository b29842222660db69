"""bpf_csum_diff(from, from_size, to, to_size, seed): the Internet checksum of a change
(net/core/filter.c). Since Linux 6.13 the result is folded to 16 bits, and sizes may be odd: the
missing bytes of the last word are zero."""

from __future__ import annotations

from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.mem import load8, load32
from xdpbatch.native import native


@native
def add_folded(a: int, b: int) -> int:
    """32-bit sum with the carry added at the low end: csum_add()."""
    total = a + b
    return (total & 0xFFFFFFFF) + (total >> 32)


@native
def partial(data: int, size: int, seed: int) -> int:
    """32-bit one's complement sum of `size` bytes: csum_partial()."""
    total = 0
    whole = size & -4
    for at in range(0, whole, 4):
        total += load32(data + at)
    for at in range(whole, size):
        total += load8(data + at) << (at - whole) * 8
    total = add_folded(total & 0xFFFFFFFF, total >> 32)
    return add_folded(total, seed)


@native
def csum_diff(source: int, source_size: int, to: int, to_size: int, seed: int) -> int:
    """The sum of `to` minus that of `source`, plus the seed, folded to 16 bits."""
    source_size &= 0xFFFFFFFF
    to_size &= 0xFFFFFFFF
    seed &= 0xFFFFFFFF
    total = seed
    if to_size != 0:
        total = partial(to, to_size, seed)
        if source_size != 0:
            total = add_folded(total, ~partial(source, source_size, 0) & 0xFFFFFFFF)
    elif source_size != 0:
        total = ~partial(source, source_size, ~seed & 0xFFFFFFFF) & 0xFFFFFFFF
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


HELPER = Helper(
    28,
    "csum_diff",
    (
        Arg.MEM_OR_NULL,
        Arg.CONST_SIZE_OR_ZERO,
        Arg.MEM_OR_NULL,
        Arg.CONST_SIZE_OR_ZERO,
        Arg.ANYTHING,
    ),
    Ret.INTEGER,
    csum_diff,
)
