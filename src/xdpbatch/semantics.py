"""What each BPF operation computes: the tables of RFC 9669 as Python, one line per operation.

Analogous to the ALU and COND_JMP macros of kernel/bpf/core.c. Operands are unsigned integers.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

from xdpbatch.isa import Alu, Jmp


def signed(value: int, bits: int = 64) -> int:
    """The low `bits` of `value` as a two's complement number."""
    sign = 1 << (bits - 1)
    return ((value & ((1 << bits) - 1)) ^ sign) - sign


def swapped(value: int, bits: int) -> int:
    """The low `bits` of `value`, their bytes in reverse order."""
    size = bits // 8
    return int.from_bytes((value & ((1 << bits) - 1)).to_bytes(size, "little"), "big")


def truncated_quotient(a: int, b: int) -> int:
    """a / b rounded toward zero, as C does (Python rounds down)."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


# Arithmetic (section 4.1): f(dst, src, bits) of operands that are unsigned and `bits` wide; the
# result counts modulo 2**bits, and ALU (32 bits) clears the upper half of dst.
ALU: dict[int, Callable[[int, int, int], int]] = {
    Alu.ADD: lambda a, b, bits: a + b,
    Alu.SUB: lambda a, b, bits: a - b,
    Alu.MUL: lambda a, b, bits: a * b,
    Alu.DIV: lambda a, b, bits: a // b if b else 0,
    Alu.OR: lambda a, b, bits: a | b,
    Alu.AND: lambda a, b, bits: a & b,
    Alu.LSH: lambda a, b, bits: a << (b & (bits - 1)),
    Alu.RSH: lambda a, b, bits: a >> (b & (bits - 1)),
    Alu.NEG: lambda a, b, bits: -a,
    Alu.MOD: lambda a, b, bits: a % b if b else a,
    Alu.XOR: lambda a, b, bits: a ^ b,
    Alu.MOV: lambda a, b, bits: b,
    Alu.ARSH: lambda a, b, bits: signed(a, bits) >> (b & (bits - 1)),
}

# The same with offset 1: operands are signed. The smallest number divided by -1 wraps to itself.
SIGNED_ALU: dict[int, Callable[[int, int], int]] = {
    Alu.DIV: lambda a, b: truncated_quotient(a, b) if b else 0,
    Alu.MOD: lambda a, b: a - b * truncated_quotient(a, b) if b else a,
}

# Jumps (section 4.3): f(dst, src); signed ones get signed operands.
JUMP: dict[int, Callable[[int, int], bool]] = {
    Jmp.JEQ: operator.eq,
    Jmp.JNE: operator.ne,
    Jmp.JGT: operator.gt,
    Jmp.JGE: operator.ge,
    Jmp.JLT: operator.lt,
    Jmp.JLE: operator.le,
    Jmp.JSET: lambda a, b: bool(a & b),
}
SIGNED_JUMP: dict[int, Callable[[int, int], bool]] = {
    Jmp.JSGT: operator.gt,
    Jmp.JSGE: operator.ge,
    Jmp.JSLT: operator.lt,
    Jmp.JSLE: operator.le,
}

# Atomics (section 5.3): f(old, src) is the new value.
ATOMIC: dict[str, Callable[[int, int], int]] = {
    "add": operator.add,
    "or": operator.or_,
    "and": operator.and_,
    "xor": operator.xor,
}
