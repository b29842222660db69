"""Bob Jenkins' lookup3 as the kernel spells it (include/linux/jhash.h): where its very bits matter.

Faster hashes are in maps.hashing; this one is for what user space could foresee of Linux.
"""

from __future__ import annotations

from xdpbatch.mem import load8, load32
from xdpbatch.native import native

M32 = 0xFFFFFFFF
INITVAL = 0xDEADBEEF


@native
def rol32(word: int, n: int) -> int:
    """Rotate 32 bits left, 0 < n < 32."""
    return (word << n | word >> (32 - n)) & M32


@native
def last_word(data: int, size: int, at: int) -> int:
    """The word at an offset of `size` bytes; what lies past the end is zero."""
    if at + 4 <= size:
        return load32(data + at)
    word = 0
    for i in range(at, size):
        word |= load8(data + i) << (i - at) * 8
    return word


@native
def jhash(data: int, size: int, initval: int) -> int:
    """The 32-bit hash of `size` > 0 bytes: jhash(), and jhash2() of whole words."""
    a = b = c = (INITVAL + size + initval) & M32
    while size > 12:
        a += load32(data)
        b += load32(data + 4)
        c = c + load32(data + 8) & M32
        a = (a - c & M32) ^ rol32(c, 4)
        c += b
        b = (b - a & M32) ^ rol32(a, 6)
        a += c
        c = (c - b & M32) ^ rol32(b, 8)
        b += a
        a = (a - c & M32) ^ rol32(c, 16)
        c += b
        b = (b - a & M32) ^ rol32(a, 19)
        a += c
        c = (c - b & M32) ^ rol32(b, 4)
        b += a
        data += 12
        size -= 12
    a = a + last_word(data, size, 0) & M32
    b = b + last_word(data, size, 4) & M32
    c = c + last_word(data, size, 8) & M32
    c = (c ^ b) - rol32(b, 14) & M32
    a = (a ^ c) - rol32(c, 11) & M32
    b = (b ^ a) - rol32(a, 25) & M32
    c = (c ^ b) - rol32(b, 16) & M32
    a = (a ^ c) - rol32(c, 4) & M32
    b = (b ^ a) - rol32(a, 14) & M32
    return (c ^ b) - rol32(b, 24) & M32
