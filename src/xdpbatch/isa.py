"""The BPF instruction set (RFC 9669), as numbers and as one instruction type.

Analogous to `struct bpf_insn` of include/uapi/linux/bpf.h, with two differences that make
rewriting safe: a 64-bit immediate is ONE instruction, and a jump names the index of the
instruction it goes to (`target`) instead of a distance, so that inserting code cannot break it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from xdpbatch.errors import ObjectError
from xdpbatch.facts import Fact
from xdpbatch.native import NativeCall


class Class(IntEnum):
    """Instruction classes, the low three bits of the opcode (RFC 9669, section 3)."""

    LD, LDX, ST, STX, ALU, JMP, JMP32, ALU64 = range(8)


class Size(IntEnum):
    """Width field of a load or store (RFC 9669, section 5)."""

    W, H, B, DW = 0x00, 0x08, 0x10, 0x18


class Mode(IntEnum):
    """Mode field of a load or store (RFC 9669, section 5)."""

    IMM, ABS, IND, MEM, MEMSX, ATOMIC = 0x00, 0x20, 0x40, 0x60, 0x80, 0xC0
    HINT = 0xE0  # this runtime's own: RFC 9669 leaves it free, see PREFETCH


class Alu(IntEnum):
    """Operation field of ALU and ALU64 (RFC 9669, section 4.1)."""

    ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, NEG, MOD, XOR, MOV, ARSH, END = range(0, 0xE0, 0x10)


class Jmp(IntEnum):
    """Operation field of JMP and JMP32 (RFC 9669, section 4.3)."""

    JA, JEQ, JGT, JGE, JSET, JNE, JSGT, JSGE, CALL, EXIT, JLT, JLE, JSLT, JSLE = range(
        0, 0xE0, 0x10
    )


K, X = 0x00, 0x08  # second operand: immediate or register (also: to little / to big endian)

FETCH = 0x01  # atomics (RFC 9669, section 5.3)
XCHG = 0xE0 | FETCH
CMPXCHG = 0xF0 | FETCH
LOAD_ACQ, STORE_REL = 0x100, 0x110  # Linux 6.15, include/uapi/linux/bpf.h
ATOMIC_OPS = {0x00: "add", 0x40: "or", 0x50: "and", 0xA0: "xor"}

LD_IMM64 = Class.LD | Size.DW | Mode.IMM
CALL = Class.JMP | Jmp.CALL
CALLX = Class.JMP | Jmp.CALL | X
EXIT = Class.JMP | Jmp.EXIT
JA = Class.JMP | Jmp.JA
GOTOL = Class.JMP32 | Jmp.JA
# Not of any RFC: a hint that the cache line at src + off will be wanted. Any address is allowed, no
# register or memory changes; dst and imm are 0. It answers question 1 of the slides.
PREFETCH = Class.LDX | Size.B | Mode.HINT
MOV64_REG = Class.ALU64 | Alu.MOV | X
MOV64_IMM = Class.ALU64 | Alu.MOV | K

# src of LD_IMM64 (RFC 9669, section 5.4) and of CALL (section 4.3.1)
PSEUDO_MAP_FD, PSEUDO_MAP_VALUE, PSEUDO_BTF_ID, PSEUDO_FUNC = 1, 2, 3, 4
PSEUDO_MAP_IDX, PSEUDO_MAP_IDX_VALUE = 5, 6
HELPER_CALL, BPF_CALL, KFUNC_CALL = 0, 1, 2
NATIVE_CALL = 15  # only after rewrite.calls: a function of this runtime, `Insn.native`

FP = 10
MASK64, MASK32 = (1 << 64) - 1, (1 << 32) - 1
WIDTH = {Size.B: 1, Size.H: 2, Size.W: 4, Size.DW: 8}


@dataclass(frozen=True, slots=True)
class Insn:
    """One instruction. `imm` is signed 32 bits, or 64 bits unsigned for LD_IMM64.

    `target` is an index into the program: of a jump, of a bpf-to-bpf call, and of the function
    that LD_IMM64 with src PSEUDO_FUNC takes the address of.
    `ref` is the name of what `imm` stands for: a map (LD_IMM64 with src PSEUDO_MAP_FD, or
    PSEUDO_MAP_VALUE where `imm` is the offset in the value), a kfunc, a kernel symbol.
    `fact` is what the verifier proved of it; `native` what a NATIVE_CALL calls.
    """

    op: int
    dst: int = 0
    src: int = 0
    off: int = 0
    imm: int = 0
    target: int | None = None
    ref: str | None = None
    fact: Fact | None = None
    native: NativeCall | None = None

    @property
    def cls(self) -> int:
        """Its Class, as an int."""
        return self.op & 0x07

    @property
    def is_alu(self) -> bool:
        return self.cls in (Class.ALU, Class.ALU64)

    @property
    def is_jump(self) -> bool:
        """Any JMP or JMP32 except call, callx and exit."""
        return self.cls in (Class.JMP, Class.JMP32) and self.op & 0xF0 not in (
            Jmp.CALL,
            Jmp.EXIT,
        )

    @property
    def is_load(self) -> bool:
        """LDX; a PREFETCH is none, for it gives no value."""
        return self.cls == Class.LDX and self.op != PREFETCH

    @property
    def is_atomic(self) -> bool:
        return self.cls == Class.STX and self.op & 0xE0 == Mode.ATOMIC

    @property
    def is_store(self) -> bool:
        """ST or STX that is not an atomic."""
        return self.cls in (Class.ST, Class.STX) and not self.is_atomic

    @property
    def width(self) -> int:
        """Bytes that a load, store or atomic touches."""
        return WIDTH[Size(self.op & 0x18)]

    @property
    def slots(self) -> int:
        """How many 8-byte units the encoding takes: 2 for LD_IMM64."""
        return 2 if self.op == LD_IMM64 else 1

    @property
    def falls_through(self) -> bool:
        """Whether the next instruction can follow this one."""
        return self.op not in (EXIT, JA, GOTOL)

    @property
    def call_register(self) -> int:
        """Of a CALLX: the register that holds what is called.

        clang 19 and later put it into dst, earlier ones into imm; bpf_conformance once used src.
        """
        return self.dst or self.src or self.imm

    @property
    def uses_reg(self) -> bool:
        """Whether the second operand of ALU or JMP is a register."""
        return bool(self.op & X)


def slot_of(insns: Sequence[Insn]) -> list[int]:
    """The encoded position of each instruction, and of the end: len(insns) + 1 numbers."""
    out, slot = [], 0
    for insn in insns:
        out.append(slot)
        slot += insn.slots
    out.append(slot)
    return out


def encode(insns: Sequence[Insn]) -> bytes:
    """The bytes of a program as the kernel takes them: 8 per slot, little endian.

    `ref`s are not encoded: their imm field is what `imm` holds (0 for a map).
    """
    slots = slot_of(insns)
    out = bytearray()
    for i, insn in enumerate(insns):
        off, imm = insn.off, insn.imm
        if insn.target is not None:
            distance = slots[insn.target] - slots[i] - 1
            if insn.is_jump and insn.op != GOTOL:
                off = distance
            else:
                imm = distance
        regs = insn.src << 4 | insn.dst
        out += struct.pack("<BBhI", insn.op, regs, off, imm & MASK32)
        if insn.slots == 2:
            out += struct.pack("<BBhI", 0, 0, 0, imm >> 32 & MASK32)
    return bytes(out)


def decode(code: bytes) -> list[Insn]:
    """Instructions of encoded bytes; jumps and calls within them get their `target`.

    Raises ObjectError for a length that is no multiple of 8, a half 64-bit immediate, an unknown
    opcode, a register above r10, or a jump into the middle of an instruction or out of the code.
    """
    if len(code) % 8:
        raise _bad(len(code) // 8, f"{len(code)} bytes is not a multiple of 8")
    index_of: dict[int, int] = {}
    raw: list[tuple[int, Insn]] = []
    slot, total = 0, len(code) // 8
    while slot < total:
        op, regs, off, imm = struct.unpack_from("<BBhi", code, slot * 8)
        dst, src = regs & 15, regs >> 4
        if op not in OPCODES:
            raise _bad(slot, f"unknown opcode 0x{op:02x}")
        if dst > FP or src > FP:
            raise _bad(slot, f"register r{max(dst, src)} does not exist")
        if op == LD_IMM64:
            if slot + 1 >= total:
                raise _bad(slot, "64-bit immediate without its second half")
            op2, regs2, off2, imm2 = struct.unpack_from("<BBhi", code, slot * 8 + 8)
            if op2 or regs2 or off2:
                raise _bad(slot, "second half of a 64-bit immediate has fields that must be 0")
            imm = imm & MASK32 | (imm2 & MASK32) << 32
        index_of[slot] = len(raw)
        raw.append((slot, Insn(op, dst, src, off, imm)))
        slot += raw[-1][1].slots
    return [_with_target(slot, insn, index_of) for slot, insn in raw]


def _with_target(slot: int, insn: Insn, index_of: dict[int, int]) -> Insn:
    if insn.op == GOTOL or (insn.op == CALL and insn.src == BPF_CALL):
        goal = slot + 1 + insn.imm
    elif insn.op == LD_IMM64 and insn.src == PSEUDO_FUNC:
        goal = slot + 1 + ((insn.imm & MASK32) ^ 1 << 31) - (1 << 31)
    elif insn.is_jump:
        goal = slot + 1 + insn.off
    else:
        return insn
    if goal not in index_of:
        raise _bad(slot, "jump out of range or into the middle of a 64-bit immediate")
    off = 0 if insn.is_jump and insn.op != GOTOL else insn.off
    imm = insn.imm if insn.is_jump and insn.op != GOTOL else 0
    return Insn(insn.op, insn.dst, insn.src, off, imm, index_of[goal])


def _bad(slot: int, why: str) -> ObjectError:
    return ObjectError.of(
        "bad-instruction", "not a valid BPF instruction", where=f"slot {slot}", reason=why
    )


def _opcodes() -> Iterable[int]:
    for op in Alu:
        for cls in (Class.ALU, Class.ALU64):
            yield cls | op | K
            yield cls | op | X
    for jmp in Jmp:
        if jmp not in (Jmp.JA, Jmp.CALL, Jmp.EXIT):
            for cls in (Class.JMP, Class.JMP32):
                yield cls | jmp | K
                yield cls | jmp | X
    yield from (JA, GOTOL, CALL, CALLX, EXIT, LD_IMM64, PREFETCH)
    for size in Size:
        yield Class.LDX | size | Mode.MEM
        yield Class.ST | size | Mode.MEM
        yield Class.STX | size | Mode.MEM
        yield Class.STX | size | Mode.ATOMIC
        if size != Size.DW:
            yield Class.LDX | size | Mode.MEMSX


# Every defined opcode and PREFETCH, but not NEG with a register and END of ALU64 with X, which no
# RFC defines.
OPCODES = frozenset(_opcodes()) - {
    Class.ALU | Alu.NEG | X,
    Class.ALU64 | Alu.NEG | X,
    Class.ALU64 | Alu.END | X,
}
