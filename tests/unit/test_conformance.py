"""Every instruction of RFC 9669 on every backend, against values computed another way.

The expected values come from ctypes' fixed-width integers, struct and exact fractions, not from
`semantics`. Operands come from memory (register forms) or are built in (immediate forms).
"""

from __future__ import annotations

import ctypes
import math
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from tiny_elf import TinyElf

from xdpbatch import examples, isa
from xdpbatch.asm import assemble
from xdpbatch.testing import conformance

M64 = (1 << 64) - 1
UNSIGNED = {8: ctypes.c_uint8, 16: ctypes.c_uint16, 32: ctypes.c_uint32, 64: ctypes.c_uint64}
SIGNED = {8: ctypes.c_int8, 16: ctypes.c_int16, 32: ctypes.c_int32, 64: ctypes.c_int64}
VALUES = (
    *(0, 1, 2, 7, 31, 32, 33, 63, 64, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF),
    *(0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF, 0x1_0000_0000, 0x1234_5678_9ABC_DEF0),
    *(0x7FFF_FFFF_FFFF_FFFF, 0x8000_0000_0000_0000, 0x8000_0000_8000_0000, M64 - 1, M64),
)
PAIRS = tuple((a, b) for a in VALUES for b in VALUES)
IMMEDIATES = (0, 5, 63, -1, -0x8000_0000)


def u(value: int, bits: int) -> int:
    return int(UNSIGNED[bits](value).value)


def s(value: int, bits: int) -> int:
    return int(SIGNED[bits](value).value)


def bitwise(pick: Callable[[bool, bool], bool]) -> Callable[[int, int, int], int]:
    def compute(a: int, b: int, bits: int) -> int:
        return sum(1 << i for i in range(bits) if pick(bool(a // 2**i % 2), bool(b // 2**i % 2)))

    return compute


ARITHMETIC: dict[str, Callable[[int, int, int], int]] = {
    "+=": lambda a, b, bits: a + b,
    "-=": lambda a, b, bits: a - b,
    "*=": lambda a, b, bits: a * b,
    "/=": lambda a, b, bits: math.floor(Fraction(a, b)) if b else 0,
    "%=": lambda a, b, bits: a - b * math.floor(Fraction(a, b)) if b else a,
    "s/=": lambda a, b, bits: math.trunc(Fraction(s(a, bits), s(b, bits))) if b else 0,
    "s%=": lambda a, b, bits: (
        s(a, bits) - s(b, bits) * math.trunc(Fraction(s(a, bits), s(b, bits))) if b else a
    ),
    "|=": bitwise(lambda x, y: x or y),
    "&=": bitwise(lambda x, y: x and y),
    "^=": bitwise(lambda x, y: x != y),
    "<<=": lambda a, b, bits: a * 2 ** (b % bits),
    ">>=": lambda a, b, bits: math.floor(Fraction(a, 2 ** (b % bits))),
    "s>>=": lambda a, b, bits: math.floor(Fraction(s(a, bits), 2 ** (b % bits))),
    "=": lambda a, b, bits: b,
}
COMPARISON: dict[str, Callable[[int, int, int], bool]] = {
    "==": lambda a, b, bits: a == b,
    "!=": lambda a, b, bits: a != b,
    ">": lambda a, b, bits: a > b,
    ">=": lambda a, b, bits: a >= b,
    "<": lambda a, b, bits: a < b,
    "<=": lambda a, b, bits: a <= b,
    "&": lambda a, b, bits: a & b != 0,
    "s>": lambda a, b, bits: s(a, bits) > s(b, bits),
    "s>=": lambda a, b, bits: s(a, bits) >= s(b, bits),
    "s<": lambda a, b, bits: s(a, bits) < s(b, bits),
    "s<=": lambda a, b, bits: s(a, bits) <= s(b, bits),
}


Run = tuple[bytes, int]  # memory, expected r0
Case = tuple[str, list[Run]]  # program text, runs of it
LOAD_BOTH = "r3 = *(u64 *)(r1 + 0)\nr4 = *(u64 *)(r1 + 8)\n"


def two(a: int, b: int) -> bytes:
    return struct.pack("<QQ", a, b)


def arithmetic() -> Iterator[Case]:
    for sign, compute in ARITHMETIC.items():
        for bits, letter in ((32, "w"), (64, "r")):
            text = f"{LOAD_BOTH}{letter}3 {sign} {letter}4\nr0 = r3\nexit"
            yield (
                text,
                [(two(a, b), u(compute(u(a, bits), u(b, bits), bits), bits)) for a, b in PAIRS],
            )
            for imm in IMMEDIATES:
                text = f"{LOAD_BOTH}{letter}3 {sign} {imm}\nr0 = r3\nexit"
                yield (
                    text,
                    [(two(a, 0), u(compute(u(a, bits), u(imm, bits), bits), bits)) for a in VALUES],
                )


def negation() -> Iterator[Case]:
    for bits, letter in ((32, "w"), (64, "r")):
        text = f"{LOAD_BOTH}{letter}3 = -{letter}3\nr0 = r3\nexit"
        yield text, [(two(a, 0), u(2**bits - u(a, bits), bits)) for a in VALUES]


def sign_extending_move() -> Iterator[Case]:
    for letter, size in (("r", 8), ("r", 16), ("r", 32), ("w", 8), ("w", 16)):
        text = f"{LOAD_BOTH}{letter}3 = (s{size}){letter}4\nr0 = r3\nexit"
        yield text, [(two(77, b), u(s(b, size), 32 if letter == "w" else 64)) for b in VALUES]


def byte_order() -> Iterator[Case]:
    for kind in ("le", "be", "bswap"):
        for bits, code in ((16, "H"), (32, "I"), (64, "Q")):
            runs = []
            for a in VALUES:
                raw = struct.pack(f"<{code}", u(a, bits))
                runs.append(
                    (two(a, 0), struct.unpack(f"{'<' if kind == 'le' else '>'}{code}", raw)[0])
                )
            yield f"{LOAD_BOTH}r3 = {kind}{bits} r3\nr0 = r3\nexit", runs


def jump() -> Iterator[Case]:
    for sign, holds in COMPARISON.items():
        for bits, letter in ((32, "w"), (64, "r")):
            head, tail = f"{LOAD_BOTH}r0 = 1\nif {letter}3 {sign} ", " goto out\nr0 = 0\nout: exit"
            yield (
                f"{head}{letter}4{tail}",
                [(two(a, b), int(holds(u(a, bits), u(b, bits), bits))) for a, b in PAIRS],
            )
            for imm in IMMEDIATES:
                yield (
                    f"{head}{imm}{tail}",
                    [(two(a, 0), int(holds(u(a, bits), u(imm, bits), bits))) for a in VALUES],
                )


def load() -> Iterator[Case]:
    memory = bytes(range(0x70, 0x90))
    for bits in (8, 16, 32, 64):
        for offset in (0, 1, 3, 13, 24):
            value = int.from_bytes(memory[offset : offset + bits // 8], "little")
            yield f"r0 = *(u{bits} *)(r1 + {offset})\nexit", [(memory, value)]
            if bits < 64:
                yield f"r0 = *(s{bits} *)(r1 + {offset})\nexit", [(memory, u(s(value, bits), 64))]


def prefetch() -> Iterator[Case]:
    """Any address at all, and nothing changes."""
    yield (
        "r0 = 7\nr3 = -8\nprefetch(r3 + 0)\nr3 = 0\nprefetch(r3 - 1)\nprefetch(r1 + 400)\nexit",
        [(b"\0" * 8, 7)],
    )


def store() -> Iterator[Case]:
    for bits in (8, 16, 32, 64):
        for source, value in (("r3", 0x1122334455667788), ("-2", -2), ("0x12345678", 0x12345678)):
            want = bytearray(b"\xa5" * 16)
            want[3 : 3 + bits // 8] = u(value, bits).to_bytes(bits // 8, "little")
            text = f"r3 = 0x1122334455667788 ll\n*(u{bits} *)(r1 + 3) = {source}\n"
            for start in (0, 8):
                whole = int.from_bytes(want[start : start + 8], "little")
                yield f"{text}r0 = *(u64 *)(r1 + {start})\nexit", [(b"\xa5" * 16, whole)]


ATOMIC = {"add": "+=", "or": "|=", "and": "&=", "xor": "^="}
WHOLE = "*(u64 *)(r1 + 0)"


def merged(a: int, low: int, bits: int) -> int:
    """`a` with its low `bits` replaced."""
    return low if bits == 64 else a >> bits << bits | low


def atomic() -> Iterator[Case]:
    for name, sign in ATOMIC.items():
        for bits, wide in ((32, ""), (64, "64")):
            plain = f"{LOAD_BOTH}lock *(u{bits} *)(r1 + 0) {sign} r4\n"
            fetch = f"{LOAD_BOTH}r4 = atomic{wide}_fetch_{name}((u{bits} *)(r1 + 0), r4)\n"
            after = []
            for a, b in PAIRS:
                new = u(ARITHMETIC[sign](u(a, bits), u(b, bits), bits), bits)
                after.append((two(a, b), merged(a, new, bits)))
            yield f"{plain}r0 = {WHOLE}\nexit", after
            yield f"{fetch}r0 = {WHOLE}\nexit", after
            yield f"{plain}r0 = r4\nexit", [(two(a, b), b) for a, b in PAIRS]
            yield f"{fetch}r0 = r4\nexit", [(two(a, b), u(a, bits)) for a, b in PAIRS]


def exchange() -> Iterator[Case]:
    for bits, wide in ((32, ""), (64, "64")):
        text = f"{LOAD_BOTH}r4 = atomic{wide}_xchg((u{bits} *)(r1 + 0), r4)\n"
        yield f"{text}r0 = r4\nexit", [(two(a, b), u(a, bits)) for a, b in PAIRS]
        new = [(two(a, b), merged(a, u(b, bits), bits)) for a, b in PAIRS]
        yield f"{text}r0 = {WHOLE}\nexit", new
        text = "r0 = *(u64 *)(r1 + 8)\nr4 = *(u64 *)(r1 + 16)\n"
        text += f"r0 = atomic{wide}_cmpxchg((u{bits} *)(r1 + 0), r0, r4)\n"
        old, new = [], []
        for a, b in PAIRS:
            memory = struct.pack("<QQQ", a, b, 0x55667788_11223344)
            hit = u(a, bits) == u(b, bits)
            old.append((memory, u(a, bits)))
            new.append((memory, merged(a, u(0x55667788_11223344, bits), bits) if hit else a))
        yield f"{text}exit", old
        yield f"{text}r0 = {WHOLE}\nexit", new


def acquire_release() -> Iterator[Case]:
    for bits in (8, 16, 32, 64):
        text = f"r3 = load_acquire((u{bits} *)(r1 + 8))\nstore_release((u{bits} *)(r1 + 0), r3)\n"
        old = 0xA5A5A5A5_5A5A5A5A
        runs = [(two(old, b), merged(old, u(b, bits), bits)) for b in VALUES]
        yield f"{text}r0 = {WHOLE}\nexit", runs


CONTROL: dict[str, tuple[str, int]] = {
    "wide immediate": ("r0 = 0x8877665544332211 ll\nexit", 0x8877665544332211),
    "goto": ("r0 = 1\ngoto over\nr0 = 2\nover: exit", 1),
    "gotol": ("r0 = 1\ngotol over\nr0 = 2\nover: exit", 1),
    "backwards": ("r0 = 0\nagain: r0 += 3\nif r0 < 300 goto again\nexit", 300),
    "exit is not last": ("goto two\none: exit\ntwo: r0 = 9\ngoto one", 9),
    "call": (
        """
        r6 = 6
        r7 = 7
        *(u64 *)(r10 - 8) = 44
        r1 = 1
        r2 = 2
        r3 = 3
        r4 = 4
        r5 = 5
        call sum
        r0 += r6
        r0 += r7
        r1 = *(u64 *)(r10 - 8)
        r0 += r1
        exit
        sum:
        *(u64 *)(r10 - 8) = 99
        r6 = 0
        r7 = 0
        r0 = r1
        r0 += r2
        r0 += r3
        r0 += r4
        r0 += r5
        exit
        """,
        1 + 2 + 3 + 4 + 5 + 6 + 7 + 44,
    ),
    "pointer into the caller's stack": (
        """
        r1 = r10
        r1 += -16
        call write
        r0 = *(u64 *)(r10 - 16)
        exit
        write:
        *(u64 *)(r1 + 0) = 5
        r0 = 0
        exit
        """,
        5,
    ),
    "recursion up to 8 frames": (
        "r1 = 7\ncall down\nexit\ndown: r0 = 100\nif r1 == 1 goto out\nr1 += -1\ncall down\n"
        "r0 += 1\nout: exit",
        106,
    ),
    "callx of a function": (
        "r3 = func[f] ll\nr1 = 20\ncallx r3\nexit\nf: r0 = r1\nr0 += 1\nexit",
        21,
    ),
    "stack": (
        """
        *(u64 *)(r10 - 8) = 1
        *(u8 *)(r10 - 7) = 2
        *(u64 *)(r10 - 512) = r2
        r3 = r10
        r3 += -8
        r0 = *(u16 *)(r3 + 0)
        r4 = *(u64 *)(r10 - 512)
        if r4 == r2 goto out
        r0 = 0
        out: exit
        """,
        0x201,
    ),
    # call_local.data of the suite does this: 8 bytes at r10 - 4, in caller and callee
    "store over the top of the stack": (
        """
        *(u64 *)(r10 - 4) = 0x44332211
        *(u64 *)(r10 - 8) = 0x12345678
        r6 = 6
        call f
        r0 = *(u32 *)(r10 - 4)
        r0 += r6
        exit
        f:
        *(u64 *)(r10 - 4) = -1
        r6 = 0
        exit
        """,
        6,
    ),
    "helper 5 goes on": ("r1 = -1\ncall 5\nr0 = 2\nexit", 2),
    "helper 5 ends the program": ("r1 = 0\ncall 5\nr0 = 2\nexit", 0),
    "callx of helper 5": ("r1 = -1\nr2 = 5\ncallx r2\nr0 = 2\nexit", 2),
}


def control() -> Iterator[Case]:
    for text, want in CONTROL.values():
        yield text, [(b"", want)]
    yield "r0 = r2\nexit", [(bytes(37), 37)]


GROUPS = (
    *(arithmetic, negation, sign_extending_move, byte_order, jump, load, prefetch, store),
    *(atomic, exchange, acquire_release, control),
)


@pytest.mark.parametrize("backend", conformance.BACKENDS)
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_vectors(group: Callable[[], Iterator[Case]], backend: str) -> None:
    for text, runs in group():
        program = conformance.bare_program(assemble(text))
        function = conformance.BACKENDS[backend](program)
        for memory, want in runs:
            assert conformance.run(function, memory) == want, (text, memory.hex())


def test_every_opcode_has_a_vector() -> None:
    seen = {insn.op for group in GROUPS for text, _ in group() for insn in assemble(text)}
    assert {hex(op) for op in isa.OPCODES - seen} == set()


def plugin(*arguments: str, code: str, expect: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "xdpbatch.testing.conformance", *arguments],
        input=code,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expect, done.stderr
    return done.stdout if expect == 0 else done.stderr


def hex_of(text: str) -> str:
    """As the suite's runner writes it: two blanks between bytes, a newline at the end."""
    return isa.encode(assemble(text)).hex(" ").replace(" ", "  ") + "\n"


def test_plugin_protocol() -> None:
    code = hex_of("r0 = *(u16 *)(r1 + 1)\nr0 += r2\nexit")
    assert plugin("11  22  33  44  ", code=code) == f"{0x3322 + 4:x}\n"
    assert plugin("11  22  33  44  ", "", code=code.upper()) == f"{0x3322 + 4:x}\n"
    assert plugin(code=hex_of("r0 = -1\nexit")) == "ffffffffffffffff\n"


@pytest.mark.parametrize("register", ["dst", "src", "imm"])
def test_every_encoding_of_callx(register: str) -> None:
    insns = assemble("r1 = 7\nr2 = 5\ncallx r2\nexit")
    fields = {"dst": (2, 0, 0), "src": (0, 2, 0), "imm": (0, 0, 2)}
    dst, src, imm = fields[register]
    insns[2] = isa.Insn(isa.CALLX, dst, src, imm=imm)
    assert plugin(code=isa.encode(insns).hex()) == "7\n"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("zz", "hex"),
        ("95 00", "multiple of 8"),
        ("ff 00 00 00 00 00 00 00", "unknown opcode"),
        (hex_of("r0 = *(u8 *)(r1 + 4)\nexit"), "outside its memory"),
        (hex_of("r0 = *(u8 *)(r10 + 40)\nexit"), "outside its memory"),
        (hex_of("call 6\nexit"), "no helper 6"),
        (hex_of("again: goto again"), "instructions"),
        (hex_of("r0 = 0"), "ran past"),
        (hex_of("down: call down\nexit"), "nested calls"),
    ],
)
def test_plugin_errors(code: str, message: str) -> None:
    assert message in plugin("01 02 03 04", code=code, expect=1)


def test_plugin_imports_no_numba() -> None:
    """It is started hundreds of times by the suite: a numba import alone would be 0.3 s or more."""
    script = "import sys, xdpbatch.testing.conformance; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("backend", conformance.BACKENDS)
def test_object_with_an_xdp_program(backend: str) -> None:
    """--elf: an XDP program runs over the memory as its packet."""
    raw = (Path(examples.__file__).parent / "tx.o").read_bytes()
    code = raw.hex(" ")
    packet = bytes(range(64)).hex(" ")
    assert plugin(packet, "--elf", "--backend", backend, code=code) == "3\n"


@pytest.mark.parametrize("backend", conformance.BACKENDS)
def test_object_with_a_bare_program(backend: str) -> None:
    """--elf as the suite's writer makes it: one function in .text, r1 and r2 are the memory."""
    elf = TinyElf()
    code = isa.encode(assemble("r0 = *(u8 *)(r1 + 2)\nr0 += r2\nr1 = r0\ncall 5\nexit"))
    elf.program(".text", "main", code)
    assert plugin("01 02 03", "--elf", "--backend", backend, code=elf.bytes().hex(" ")) == "6\n"
