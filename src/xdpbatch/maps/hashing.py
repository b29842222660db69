"""Hashing and comparing keys: what jhash() and memcmp() are to kernel/bpf/hashtab.c.

The size of a key is a constant at a call site that knows its map, so the loops unroll: 8 bytes at
a time, the last 8 overlapping. Each step multiplies to 128 bits and folds; without the seed an
attacker cannot choose keys that collide.
"""

from __future__ import annotations

from xdpbatch.mem import add64, fold64, load8, load32, load64, signed
from xdpbatch.native import native

SPREAD = signed(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, odd


@native
def hash_key(key: int, size: int, seed: int) -> int:
    """A 64-bit hash of `size` > 0 bytes; every bit of it is usable."""
    state = add64(seed, SPREAD)
    if size < 4:
        word = load8(key) | load8(key + (size >> 1)) << 8 | load8(key + size - 1) << 16
        return fold64(word ^ seed, word ^ state)
    if size < 8:
        return fold64(load32(key) ^ seed, load32(key + size - 4) ^ state)
    at = 0
    while at + 16 < size:
        state = fold64(load64(key + at) ^ seed, load64(key + at + 8) ^ state)
        at += 16
    if at + 8 < size:
        return fold64(load64(key + at) ^ seed, load64(key + size - 8) ^ state)
    return fold64(load64(key + size - 8) ^ seed, SPREAD ^ state)


@native
def same(a: int, b: int, size: int) -> int:
    """1 if `size` bytes are equal, else 0."""
    if size < 8:
        if size >= 4:
            difference = (load32(a) ^ load32(b)) | (load32(a + size - 4) ^ load32(b + size - 4))
            return int(difference == 0)
        difference = load8(a) ^ load8(b) | load8(a + size - 1) ^ load8(b + size - 1)
        middle = size >> 1
        return int(difference | load8(a + middle) ^ load8(b + middle) == 0)
    at = 0
    difference = 0
    while at + 8 < size:
        difference |= load64(a + at) ^ load64(b + at)
        at += 8
    return int(difference | load64(a + size - 8) ^ load64(b + size - 8) == 0)
