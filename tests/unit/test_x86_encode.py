"""The assembler: each instruction's bytes and text, checked by LLVM's assembler and by capstone."""

from __future__ import annotations

import io
import itertools
import platform
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from llvmlite import binding as llvm

from xdpbatch.jit.disasm import listing
from xdpbatch.jit.x86_encode import (
    ATOMIC,
    BINARY,
    EXTEND,
    IMMEDIATE,
    PLAIN,
    SHIFT,
    UNARY,
    Assembler,
    Gpr,
    Mem,
)
from xdpbatch.jit.x86_link import Line, link

TRIPLE = "x86_64-unknown-linux-gnu"
MEMS = [Mem(base, off) for base in Gpr for off in (0, -12, 0x30, 300, -129)]
VALUES = [0, 1, -1, 127, 128, -128, -129, 0x7FFFFFFF, -(1 << 31)]


Emit = Callable[[Assembler], object]


def put(method: str, *arguments: object) -> Emit:
    return lambda asm: getattr(asm, method)(*arguments)


def every_form() -> Iterator[Emit]:
    """Each method with each operation, and each register in each place."""
    pairs = list(zip(Gpr, [*Gpr][::-1], strict=True))
    for name, (src, dst), bits in itertools.product(BINARY, pairs, (32, 64)):
        yield put("binary", name, src, dst, bits)
    for name, dst, value, bits in itertools.product(IMMEDIATE, Gpr, VALUES, (32, 64)):
        yield put("binary", name, value, dst, bits)
    yield from memory_forms()
    for dst, value in itertools.product(Gpr, VALUES):
        yield put("move_imm", value, dst)
        yield put("multiply", value, dst, 64)
        yield put("test_imm", value, dst, 32)
    for dst, value in itertools.product(Gpr, (1 << 31, 0xFFFFFFFF, 1 << 32, 1 << 63)):
        yield put("move_imm", value, dst)
    for (signed, bits), src, dst in itertools.product(EXTEND, [*Gpr, *MEMS[:9]], Gpr):
        yield put("extend", src, dst, signed, bits)
        if bits < 32:
            yield put("extend", src, dst, signed, bits, 32)
    for dst, bits in itertools.product(Gpr, (32, 64)):
        yield put("multiply", Gpr.R9, dst, bits)
        yield put("multiply", dst, Gpr.RDI, bits)
        yield put("bswap", dst, bits)
        yield from (put("unary", name, dst, bits) for name in UNARY)
        yield from (put("shift", name, n, dst, bits) for name in SHIFT for n in (9, None))
    for dst in Gpr:
        yield put("shift", "ror", 8, dst, 16)
        yield from (put(method, dst) for method in ("push", "pop", "call_reg"))
    yield from (put("plain", text) for text in PLAIN)
    yield put("reserve", 512)


def memory_forms() -> Iterator[Emit]:
    for src, mem, bits in itertools.product(Gpr, MEMS[:10], (8, 16, 32, 64)):
        yield put("binary", "mov", src, mem, bits)
    for mem, bits in itertools.product(MEMS, (8, 16, 32, 64)):
        yield put("binary", "mov", Gpr.R9, mem, bits)
        yield put("prefetch", mem)
        for value in VALUES:
            yield put("store_imm", value & 0x7F if bits < 32 else value, mem, bits)
    for mem, reg, bits in itertools.product(MEMS, Gpr, (32, 64)):
        yield put("load", mem, reg, bits)
        for name in (*ATOMIC, "add", "or", "and", "xor", "xchg"):
            yield put("locked", name, reg, mem, bits)


def lines_of(*emit: Emit) -> list[Line]:
    asm = Assembler()
    for one in emit:
        one(asm)
    return link(asm.items)


def by_llvm(text: str) -> bytes:
    """The bytes of AT&T assembly, made by LLVM's assembler."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    machine = llvm.Target.from_triple(TRIPLE).create_target_machine()
    escaped = text.replace("\n", "\\0A")
    module = llvm.parse_assembly(f'target triple = "{TRIPLE}"\nmodule asm "{escaped}"')
    elf = ELFFile(io.BytesIO(machine.emit_object(module)))
    text_section = elf.get_section_by_name(".text")
    assert text_section is not None
    return bytes(text_section.data())


def read(machine: Any, code: bytes) -> list[tuple[str, list[str]]]:
    """Mnemonic and operands; the two of test and xchg have no order."""
    out = []
    for insn in machine.disasm(code, 0):
        operands = insn.op_str.split(", ")
        free = insn.mnemonic in ("test", "xchg")
        out.append((insn.mnemonic, sorted(operands) if free else operands))
    return out


@pytest.mark.skipif(platform.machine() != "x86_64", reason="LLVM here assembles for this CPU only")
def test_text_and_bytes_say_the_same() -> None:
    """LLVM assembles our text; capstone reads LLVM's bytes and ours as the same instructions."""
    capstone = pytest.importorskip("capstone", reason="needs capstone to read machine code")
    lines = lines_of(*every_form())
    machine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    ours = b"".join(line.code for line in lines)
    theirs = by_llvm("\n".join(line.text for line in lines))
    assert len(read(machine, ours)) == len(lines) > 3000
    for line, mine, other in zip(lines, read(machine, ours), read(machine, theirs), strict=True):
        assert mine == other, line


@pytest.mark.parametrize("name", ["jmp", "je", "jb", "jg"])
def test_jumps_are_short_where_they_can_be(name: str) -> None:
    def nops(count: int) -> list[Emit]:
        return [put("plain", "leaveq")] * count

    def forward(count: int) -> Line:
        jump = [put("jump", name, "there")]
        return lines_of(*jump, *nops(count), put("label", "there"))[0]

    def backward(count: int) -> Line:
        start = [put("label", "there")]
        return lines_of(*start, *nops(count), put("jump", name, "there"))[-1]

    near = 5 if name == "jmp" else 6
    assert [len(forward(n).code) for n in (1, 127, 128)] == [2, 2, near]
    assert forward(127).code[-1] == 127
    assert [len(backward(n).code) for n in (0, 100, 127)] == [2, 2, near]
    assert backward(100).code[-1] == -102 & 0xFF
    assert backward(1000).code[-4:] == (-1000 - near & 0xFFFFFFFF).to_bytes(4, "little")
    assert forward(128).text == f"{name} {128 + near:#x}"


def test_a_jump_to_the_next_instruction_takes_no_bytes() -> None:
    lines = lines_of(
        put("jump", "jmp", "there"),
        put("label", "there"),
        put("plain", "retq"),
    )
    assert [line.text for line in lines] == ["retq"]


def test_rip_relative_addresses() -> None:
    lines = lines_of(
        put("address_of", "there", Gpr.R8),
        put("call", "there"),
        put("label", "there"),
        put("plain", "retq"),
    )
    assert listing(lines, opcodes=True).splitlines() == [
        "   0: 4c 8d 05 05 00 00 00           lea 0x5(%rip),%r8",
        "   7: e8 00 00 00 00                 callq 0xc",
        "   c: c3                             retq",
    ]
