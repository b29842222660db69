"""SipHash-2-4 of 64-bit words, keyed, as the kernel's siphash() (lib/siphash.c) for whole words.

The state is 32 bytes of memory that the caller gives: `start`, then `absorb` each word, `finish`.
Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF".
"""

from __future__ import annotations

from xdpbatch.mem import add64, load64, shr64, signed, store64
from xdpbatch.native import native

V0, V1 = signed(0x736F6D6570736575), signed(0x646F72616E646F6D)
V2, V3 = signed(0x6C7967656E657261), signed(0x7465646279746573)


@native
def rol64(word: int, n: int) -> int:
    """Rotate left, 0 < n < 64."""
    return word << n | shr64(word, 64 - n)


@native
def rounds(state: int, n: int) -> int:
    """`n` SipRounds."""
    a, b = load64(state), load64(state + 8)
    c, d = load64(state + 16), load64(state + 24)
    for _ in range(n):
        a = add64(a, b)
        b = rol64(b, 13) ^ a
        a = rol64(a, 32)
        c = add64(c, d)
        d = rol64(d, 16) ^ c
        a = add64(a, d)
        d = rol64(d, 21) ^ a
        c = add64(c, b)
        b = rol64(b, 17) ^ c
        c = rol64(c, 32)
    store64(state, a)
    store64(state + 8, b)
    store64(state + 16, c)
    store64(state + 24, d)
    return 0


@native
def start(state: int, key0: int, key1: int) -> int:
    """Begin a hash under a key of 128 bits."""
    store64(state, key0 ^ V0)
    store64(state + 8, key1 ^ V1)
    store64(state + 16, key0 ^ V2)
    store64(state + 24, key1 ^ V3)
    return 0


@native
def absorb(state: int, word: int) -> int:
    """Take in 8 bytes."""
    store64(state + 24, load64(state + 24) ^ word)
    rounds(state, 2)
    return store64(state, load64(state) ^ word)


@native
def finish(state: int, words: int) -> int:
    """The hash of the `words` that were taken in."""
    absorb(state, (words * 8 & 0xFF) << 56)
    store64(state + 16, load64(state + 16) ^ 0xFF)
    rounds(state, 4)
    return load64(state) ^ load64(state + 8) ^ load64(state + 16) ^ load64(state + 24)
