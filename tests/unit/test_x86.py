"""The x86 backend: every opcode with every register against the interpreter."""

from __future__ import annotations

import ctypes
import itertools
import platform
import random
import struct
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdpbatch.asm import assemble
from xdpbatch.data.layout import address_of, aligned
from xdpbatch.errors import UnsupportedError
from xdpbatch.interp import Interpreter, Region
from xdpbatch.isa import (
    ATOMIC_OPS,
    CMPXCHG,
    EXIT,
    FETCH,
    LD_IMM64,
    LOAD_ACQ,
    MASK64,
    OPCODES,
    STORE_REL,
    XCHG,
    Alu,
    Class,
    Insn,
    Jmp,
    K,
    Mode,
    Size,
    X,
)
from xdpbatch.jit import Compiled, x86
from xdpbatch.rewrite import Xlated
from xdpbatch.testing.conformance import bare_program

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the x86 backend needs an x86-64 machine"
)

REGS = range(10)
LOAD64, STORE64 = Class.LDX | Size.DW | Mode.MEM, Class.STX | Size.DW | Mode.MEM
INPUTS, DATA, RESULTS = 0, 80, 144  # offsets in the memory that the programs work on
EDGES = [0, 1, 2, 7, 31, 32, 63, 64, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0x7FFFFFFF, 0x80000000]
EDGES += [MASK64, MASK64 - 1, 1 << 63, (1 << 63) - 1, 0xFFFFFFFF, 1 << 32, 0x0123456789ABCDEF]
IMMEDIATES = [0, 1, -1, 2, 3, -3, 31, 63, 100, 127, 128, -128, -129, 0x7FFFFFFF, -(1 << 31)]


def xlated(insns: Sequence[Insn], depth: int = 128) -> Xlated:
    program = bare_program(insns)
    return Xlated(program, program.insns, program.subprogs, (depth,) * len(program.subprogs))


def compiled(insns: Sequence[Insn]) -> Compiled:
    return x86.compile(xlated(insns), {})


def call(code: Compiled, *arguments: int) -> int:
    kinds = [ctypes.c_uint64] * len(arguments)
    return int(ctypes.CFUNCTYPE(ctypes.c_uint64, *kinds)(code.address)(*arguments))


def around(insn: Insn, result: int) -> list[Insn]:
    """`insn` with all registers loaded from INPUTS before and stored at `result` after it."""
    return [
        Insn(LOAD64, 1, 10, -8),
        *(Insn(LOAD64, r, 1, INPUTS + 8 * r) for r in REGS if r != 1),
        Insn(LOAD64, 1, 1, INPUTS + 8),
        insn,
        Insn(STORE64, 10, 1, -16),
        Insn(LOAD64, 1, 10, -8),
        *(Insn(STORE64, 1, r, result + 8 * r) for r in REGS if r != 1),
        Insn(LOAD64, 0, 10, -16),
        Insn(STORE64, 1, 0, result + 8),
    ]


class Memory:
    """Memory at an address that does not change: programs hold pointers to it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.array = aligned(size)
        self.address = address_of(self.array)

    def set(self, start: bytes) -> None:
        self.array[:] = 0
        ctypes.memmove(self.address, start, len(start))

    def get(self) -> bytes:
        return self.array.tobytes()


def agree(
    insns: Iterable[Insn], inputs: Iterable[Sequence[int]], data: bytes, memory: Memory
) -> None:
    """Each of `insns`, alone, does to registers and memory what the interpreter says."""
    each = list(insns)
    body = [around(insn, RESULTS + 80 * i) for i, insn in enumerate(each)]
    whole = [Insn(STORE64, 10, 1, -8), *itertools.chain(*body), *assemble("r0 = 0\nexit")]
    code, model = compiled(whole), Interpreter(bare_program(whole))
    region = Region(memory.address, memory.address + memory.size)
    for registers in inputs:
        start = struct.pack("<10Q", *registers) + data.ljust(RESULTS - DATA, b"\0")
        memory.set(start)
        model.call((memory.address, memory.size), [region])
        wanted = memory.get()
        memory.set(start)
        call(code, memory.address, memory.size)
        got = memory.get()
        for i, insn in enumerate(each):
            at = slice(RESULTS + 80 * i, RESULTS + 80 * i + 80)
            assert got[at] == wanted[at], f"{insn} with {[hex(r) for r in registers]}"
        assert got == wanted


def chosen(seed: str, count: int = 2) -> list[list[int]]:
    """Register contents: edge cases, and arbitrary bits."""
    source = random.Random(seed)
    return [
        [
            source.choice(EDGES),
            *(source.getrandbits(64) for _ in range(3)),
            *source.choices(EDGES, k=6),
        ]
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def memory() -> Memory:
    return Memory(RESULTS + 80 * 200)


ALU_OPS = [
    (cls, op, off)
    for cls in (Class.ALU, Class.ALU64)
    for op in Alu
    for off in ((0, 1) if op in (Alu.DIV, Alu.MOD) else (0,))
    if op not in (Alu.NEG, Alu.END)
]


@pytest.mark.parametrize(("cls", "op", "off"), ALU_OPS)
def test_alu_of_every_register_pair(cls: int, op: int, off: int, memory: Memory) -> None:
    pairs = [Insn(cls | op | X, d, s, off) for d in REGS for s in REGS]
    agree(pairs, chosen(f"pairs {cls} {op} {off}"), b"", memory)


@pytest.mark.parametrize(("cls", "op", "off"), ALU_OPS)
def test_alu_with_immediates(cls: int, op: int, off: int, memory: Memory) -> None:
    if op in (Alu.LSH, Alu.RSH, Alu.ARSH):
        values = [0, 1, 7, 8, 31, *([32, 63] if cls == Class.ALU64 else [])]
    else:
        values = IMMEDIATES
    ops = [Insn(cls | op | K, d, 0, off, v) for d in REGS for v in values]
    agree(ops, chosen(f"immediates {cls} {op} {off}"), b"", memory)


def test_unary_and_byte_order(memory: Memory) -> None:
    ops = [Insn(cls | Alu.NEG | K, d) for cls in (Class.ALU, Class.ALU64) for d in REGS]
    ends = (Class.ALU | Alu.END | K, Class.ALU | Alu.END | X, Class.ALU64 | Alu.END | K)
    ops += [Insn(op, d, 0, 0, width) for op in ends for width in (16, 32, 64) for d in REGS]
    agree(ops, chosen("unary", 4), b"", memory)


def test_sign_extending_moves(memory: Memory) -> None:
    for cls, widths in ((Class.ALU, (8, 16)), (Class.ALU64, (8, 16, 32))):
        for width in widths:
            ops = [Insn(cls | Alu.MOV | X, d, s, width) for d in REGS for s in REGS]
            agree(ops, chosen("extend"), b"", memory)


def test_wide_immediates(memory: Memory) -> None:
    agree([Insn(LD_IMM64, d, imm=v) for d in REGS for v in EDGES[:20]], [[0] * 10], b"", memory)


def pointers(memory: Memory) -> list[int]:
    return [memory.address + DATA + 8 * (r % 3) for r in REGS]


CONTENTS = bytes(range(0x79, 0x79 + 64))


@pytest.mark.parametrize("mode", [Mode.MEM, Mode.MEMSX])
@pytest.mark.parametrize("size", list(Size))
def test_loads(mode: Mode, size: Size, memory: Memory) -> None:
    op = Class.LDX | size | mode
    if op in OPCODES:
        ops = [Insn(op, d, s, off) for d in REGS for s in REGS for off in (0, 3)]
        agree(ops, [pointers(memory)], CONTENTS, memory)


@pytest.mark.parametrize("size", list(Size))
def test_stores(size: Size, memory: Memory) -> None:
    ops = [Insn(Class.STX | size | Mode.MEM, d, s, 5) for d in REGS for s in REGS]
    agree(ops, [pointers(memory)], CONTENTS, memory)
    ops = [Insn(Class.ST | size | Mode.MEM, d, 0, 1, v) for d in REGS for v in IMMEDIATES]
    agree(ops, [pointers(memory)], CONTENTS, memory)


def test_far_displacements(memory: Memory) -> None:
    ops = [Insn(LOAD64, d, s, 200) for d in REGS for s in REGS]
    agree(ops, [[memory.address + DATA - 200] * 10], CONTENTS, memory)


ATOMICS = [op | fetch for op in ATOMIC_OPS for fetch in (0, FETCH)] + [XCHG, CMPXCHG]


@pytest.mark.parametrize("imm", ATOMICS)
@pytest.mark.parametrize("size", [Size.W, Size.DW])
def test_atomics(size: Size, imm: int, memory: Memory) -> None:
    ops = [Insn(Class.STX | size | Mode.ATOMIC, d, s, 8, imm) for d in REGS for s in REGS]
    agree(ops, [pointers(memory)], CONTENTS, memory)
    # The same where memory holds what r0 does: cmpxchg succeeds.
    same = struct.pack("<Q", pointers(memory)[0]) * 8
    agree(ops, [pointers(memory)], same, memory)


@pytest.mark.parametrize("size", list(Size))
def test_acquire_and_release(size: Size, memory: Memory) -> None:
    for imm in (LOAD_ACQ, STORE_REL):
        ops = [Insn(Class.STX | size | Mode.ATOMIC, d, s, 0, imm) for d in REGS for s in REGS]
        agree(ops, [pointers(memory)], CONTENTS, memory)


JUMPS = [
    Insn(cls | jmp | kind, 1, 2, target=3)
    for cls in (Class.JMP, Class.JMP32)
    for jmp in Jmp
    if jmp not in (Jmp.JA, Jmp.CALL, Jmp.EXIT)
    for kind in (K, X)
]


@pytest.mark.parametrize("jump", JUMPS, ids=lambda j: f"{j.op:#x}")
def test_jumps(jump: Insn) -> None:
    """Short and near, on all edges."""
    tail = assemble("r0 = 0\nexit")
    padding = [Insn(Class.ALU64 | Alu.ADD | K, 3, imm=1000)] * 40
    for between in ([], padding):
        for imm in IMMEDIATES if not jump.uses_reg else [0]:
            start = [Insn(Class.ALU64 | Alu.MOV | K, 0, imm=1)]
            goal = len(start) + 1 + len(between) + 1
            there = Insn(jump.op, 1, jump.src if jump.uses_reg else 0, 0, imm, goal + 1)
            insns = [*start, there, *between, *tail, Insn(EXIT)]
            code, model = compiled(insns), Interpreter(bare_program(insns))
            for a, b in itertools.product(EDGES[::2], EDGES if jump.uses_reg else [0]):
                assert call(code, a, b) == model.call((a, b)), (insns, a, b)


def test_functions_and_addresses() -> None:
    """Calls keep r6-r9 and the stack; callx goes where an address says."""
    insns = assemble("""
      r6 = r1
      *(u64 *)(r10 - 8) = r2
      call square
      r7 = r0
      r1 = *(u64 *)(r10 - 8)
      r3 = func[square] ll
      callx r3
      r0 += r7
      r0 += r6
      exit
    square:
      r6 = r1
      r7 = 3
      *(u64 *)(r10 - 8) = r6
      r0 = *(u64 *)(r10 - 8)
      r0 *= r6
      exit
    """)
    assert call(compiled(insns), 5, 9) == 25 + 81 + 5


def test_several_exits_and_loops() -> None:
    insns = assemble("""
      r0 = 0
    again:
      if r1 == 0 goto +4
      r0 += r1
      r1 -= 1
      if r0 > 1000 goto +3
      goto again
      exit
      exit
      r0 = 7
      exit
    """)
    assert call(compiled(insns), 10) == 55
    assert call(compiled(insns), 100) == 7


REGISTER = st.integers(0, 9)
IMMEDIATE = st.one_of(st.sampled_from(IMMEDIATES), st.integers(-(1 << 31), (1 << 31) - 1))
ARITHMETIC = [op for op in OPCODES if op & 7 in (Class.ALU, Class.ALU64) and op & 0xF0 != Alu.END]
CONDITIONAL = sorted({jump.op for jump in JUMPS})


@st.composite
def programs(draw: st.DrawFn) -> list[Insn]:
    """Any arithmetic on any registers, and jumps that only go forward."""
    count = draw(st.integers(1, 30))
    out = [Insn(Class.ALU64 | Alu.MOV | X, r, 1 + r % 2) for r in REGS if r not in (1, 2)]
    start, end = len(out), len(out) + count
    for i in range(start, end):
        d, s, imm = draw(REGISTER), draw(REGISTER), draw(IMMEDIATE)
        if draw(st.integers(0, 4)) == 0:
            op = draw(st.sampled_from(CONDITIONAL))
            out.append(Insn(op, d, s if op & X else 0, 0, imm, draw(st.integers(i + 1, end))))
            continue
        op = draw(st.sampled_from(ARITHMETIC))
        if op & 0xF0 in (Alu.LSH, Alu.RSH, Alu.ARSH) and not op & X:
            imm &= 31
        signed = op & 0xF0 in (Alu.DIV, Alu.MOD) and draw(st.booleans())
        out.append(Insn(op, d, s if op & X else 0, int(signed), imm))
    fold = [Insn(Class.ALU64 | Alu.ADD | X, 0, r) for r in REGS if r]
    return [*out, *fold, Insn(EXIT)]


@settings(max_examples=200, deadline=None)
@given(programs(), st.integers(0, MASK64), st.integers(0, MASK64))
def test_random_programs(insns: list[Insn], a: int, b: int) -> None:
    assert call(compiled(insns), a, b) == Interpreter(bare_program(insns)).call((a, b))


def test_another_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(UnsupportedError, match=r"no-x86.*\n.*aarch64"):
        compiled(assemble("r0 = 0\nexit"))


def test_code_is_not_writable() -> None:
    code = compiled(assemble("r0 = 0\nexit"))
    with open("/proc/self/maps") as lines:
        modes = {
            line.split()[1]
            for line in lines
            if int(line.split("-")[0], 16) <= code.address < int(line.split("-")[1].split()[0], 16)
        }
    assert modes == {"r-xp"}
