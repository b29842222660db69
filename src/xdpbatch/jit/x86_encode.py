"""x86-64 machine instructions from tables: bytes and AT&T text together.

Analogous to the EMIT macros of arch/x86/net/bpf_jit_comp.c. Operands stand in AT&T order (source
first), as in the text. Encodings: Intel SDM, volume 2. Only the forms that Linux's JIT uses are
here: a memory operand is base + displacement.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from xdpbatch.isa import MASK64
from xdpbatch.jit.x86_link import Branch, Fixed, Here, Item, Label, little_endian


class Gpr(IntEnum):
    """General purpose registers by their numbers in ModRM and REX."""

    RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 = range(16)

    def name_of(self, bits: int) -> str:
        """The name of its low `bits` bits, with the % of AT&T."""
        if self >= Gpr.R8:
            return f"%r{int(self)}" + {64: "", 32: "d", 16: "w", 8: "b"}[bits]
        stem = self.name[1:].lower()
        if bits == 8:
            return f"%{stem[0]}l" if self < Gpr.RSP else f"%{stem}l"
        return {64: "%r", 32: "%e", 16: "%"}[bits] + stem


@dataclass(frozen=True, slots=True)
class Mem:
    """A memory operand `off(%base)`."""

    base: Gpr
    off: int = 0

    def __str__(self) -> str:
        return f"{_hex(self.off)}({self.base.name_of(64)})"


Place = Gpr | Mem


BINARY = {  # opcode /r: the register operand is the source
    "add": 0x01,
    "or": 0x09,
    "and": 0x21,
    "sub": 0x29,
    "xor": 0x31,
    "cmp": 0x39,
    "test": 0x85,
    "xchg": 0x87,
    "mov": 0x89,
}
IMMEDIATE = {"add": 0, "or": 1, "and": 4, "sub": 5, "xor": 6, "cmp": 7}  # 83 /n ib, 81 /n id
UNARY = {"neg": 3, "div": 6, "idiv": 7}  # f7 /n
SHIFT = {"ror": 1, "shl": 4, "shr": 5, "sar": 7}  # c1 /n ib, d3 /n
ATOMIC = {"xadd": b"\x0f\xc1", "cmpxchg": b"\x0f\xb1"}
EXTEND = {  # (signed, bits of the source): opcode and mnemonic, without the destination's suffix
    (False, 8): (b"\x0f\xb6", "movzb"),
    (False, 16): (b"\x0f\xb7", "movzw"),
    (True, 8): (b"\x0f\xbe", "movsb"),
    (True, 16): (b"\x0f\xbf", "movsw"),
    (True, 32): (b"\x63", "movsl"),
}
PLAIN = {
    "leaveq": b"\xc9",
    "retq": b"\xc3",
    "cqto": b"\x48\x99",
    "cltd": b"\x99",
    "pause": b"\xf3\x90",
    "lfence": b"\x0f\xae\xe8",
    "pushq $0x0": b"\x6a\x00",
}
CONDITION = {
    "jb": 0x72,
    "jae": 0x73,
    "je": 0x74,
    "jne": 0x75,
    "jbe": 0x76,
    "ja": 0x77,
    "jl": 0x7C,
    "jge": 0x7D,
    "jle": 0x7E,
    "jg": 0x7F,
}
SUFFIX = {8: "b", 16: "w", 32: "l", 64: "q"}


class Assembler:
    """Collects instructions and labels in `items`, for x86_link.link."""

    def __init__(self) -> None:
        self.items: list[Item] = []

    def _put(self, code: bytes, text: str) -> None:
        self.items.append(Fixed(code, text))

    def plain(self, text: str) -> None:
        """An instruction of PLAIN."""
        self._put(PLAIN[text], text)

    def binary(self, name: str, src: Gpr | int, dst: Place, bits: int = 64) -> None:
        """`name` of BINARY; an immediate is 32 bits, sign-extended, and only for IMMEDIATE."""
        if isinstance(src, Gpr):
            byte = _byte_form(BINARY[name], bits)
            self._put(
                _modrm(byte, src, dst, bits), f"{name} {src.name_of(bits)},{_text(dst, bits)}"
            )
            return
        short = -128 <= src < 128
        code = _modrm(b"\x83" if short else b"\x81", IMMEDIATE[name], dst, bits)
        self._put(
            code + little_endian(src, 1 if short else 4),
            f"{name} {_imm(src, bits)},{_text(dst, bits)}",
        )

    def test_imm(self, value: int, dst: Gpr, bits: int) -> None:
        """test with a 32-bit immediate."""
        code = _modrm(b"\xf7", 0, dst, bits) + little_endian(value, 4)
        self._put(code, f"test {_imm(value, bits)},{dst.name_of(bits)}")

    def move_imm(self, value: int, dst: Gpr) -> None:
        """A 64-bit constant in the shortest of xor, mov imm32, mov simm32 and movabs."""
        value &= MASK64
        if value == 0:
            self.binary("xor", dst, dst, 32)
        elif value < 1 << 32:
            code = _rex(0, 0, dst) + bytes([0xB8 + (dst & 7)]) + little_endian(value, 4)
            self._put(code, f"mov {_imm(value, 32)},{dst.name_of(32)}")
        elif value >= MASK64 + 1 - (1 << 31):
            code = _modrm(b"\xc7", 0, dst, 64) + little_endian(value, 4)
            self._put(code, f"mov {_imm(value, 64)},{dst.name_of(64)}")
        else:
            code = _rex(8, 0, dst) + bytes([0xB8 + (dst & 7)]) + little_endian(value, 8)
            self._put(code, f"movabs {_imm(value, 64)},{dst.name_of(64)}")

    def store_imm(self, value: int, dst: Mem, bits: int) -> None:
        """Store a constant; 64 bits: a sign-extended 32-bit one."""
        code = _modrm(_byte_form(0xC7, bits), 0, dst, bits) + little_endian(
            value, min(bits // 8, 4)
        )
        self._put(code, f"mov{SUFFIX[bits]} {_imm(value, bits)},{dst}")

    def load(self, src: Mem, dst: Gpr, bits: int) -> None:
        """Load 32 or 64 bits; 32 zero-extend."""
        self._put(_modrm(b"\x8b", dst, src, bits), f"mov {src},{dst.name_of(bits)}")

    def extend(self, src: Place, dst: Gpr, signed: bool, bits: int, to: int = 64) -> None:
        """Load or move `bits` bits, zero- or sign-extended to `to` bits (then to 64 by zeros)."""
        opcode, name = EXTEND[signed, bits]
        code = _modrm(opcode, dst, src, to, byte_rm=bits == 8)
        self._put(code, f"{name}{SUFFIX[to]} {_text(src, bits)},{dst.name_of(to)}")

    def multiply(self, src: Gpr | int, dst: Gpr, bits: int) -> None:
        """imul: the low half is the same for signed and unsigned."""
        name = dst.name_of(bits)
        if isinstance(src, Gpr):
            code = _modrm(b"\x0f\xaf", dst, src, bits)
            self._put(code, f"imul {src.name_of(bits)},{name}")
        else:
            code = _modrm(b"\x69", dst, dst, bits) + little_endian(src, 4)
            self._put(code, f"imul {_imm(src, bits)},{name},{name}")

    def unary(self, name: str, dst: Gpr, bits: int) -> None:
        """`name` of UNARY."""
        self._put(_modrm(b"\xf7", UNARY[name], dst, bits), f"{name} {dst.name_of(bits)}")

    def shift(self, name: str, count: int | None, dst: Gpr, bits: int) -> None:
        """`name` of SHIFT by a constant, or by %cl if `count` is None."""
        opcode = b"\xd3" if count is None else b"\xc1"
        code = _modrm(opcode, SHIFT[name], dst, bits)
        if count is None:
            self._put(code, f"{name} %cl,{dst.name_of(bits)}")
        else:
            self._put(code + bytes([count]), f"{name} ${count:#x},{dst.name_of(bits)}")

    def bswap(self, dst: Gpr, bits: int) -> None:
        """Swap all bytes of 32 or 64 bits."""
        code = _rex(8 * (bits == 64), 0, dst) + bytes([0x0F, 0xC8 + (dst & 7)])
        self._put(code, f"bswap {dst.name_of(bits)}")

    def locked(self, name: str, src: Gpr, dst: Mem, bits: int) -> None:
        """`name` of ATOMIC or of BINARY, with a lock prefix."""
        opcode = ATOMIC.get(name) or bytes([BINARY[name]])
        code = b"\xf0" + _modrm(opcode, src, dst, bits)
        self._put(code, f"lock {name} {src.name_of(bits)},{dst}")

    def push(self, reg: Gpr) -> None:
        self._put(_rex(0, 0, reg) + bytes([0x50 + (reg & 7)]), f"push {reg.name_of(64)}")

    def pop(self, reg: Gpr) -> None:
        self._put(_rex(0, 0, reg) + bytes([0x58 + (reg & 7)]), f"pop {reg.name_of(64)}")

    def reserve(self, size: int) -> None:
        """sub $size,%rsp, always with 32 bits, as the prologue of Linux has it."""
        self._put(b"\x48\x81\xec" + little_endian(size, 4), f"sub ${size:#x},%rsp")

    def call_reg(self, reg: Gpr) -> None:
        self._put(_modrm(b"\xff", 2, reg, 32), f"callq *{reg.name_of(64)}")

    def prefetch(self, src: Mem) -> None:
        self._put(_modrm(b"\x0f\x18", 1, src, 32), f"prefetcht0 {src}")

    def label(self, label: Label) -> None:
        self.items.append(Here(label))

    def jump(self, name: str, label: Label) -> None:
        """jmp, or a jump of CONDITION."""
        if name == "jmp":
            branch = Branch(label, b"\xeb", b"\xe9", "jmp {target:#x}")
        else:
            opcode = CONDITION[name]
            near = bytes([0x0F, opcode + 0x10])
            branch = Branch(label, bytes([opcode]), near, name + " {target:#x}")
        self.items.append(branch)

    def call(self, label: Label) -> None:
        self.items.append(Branch(label, b"", b"\xe8", "callq {target:#x}"))

    def address_of(self, label: Label, dst: Gpr) -> None:
        """lea: the address of a label, wherever the code will be."""
        near = _rex(8, dst, 0) + bytes([0x8D, 0x05 | (dst & 7) << 3])
        text = f"lea {{distance:#x}}(%rip),{dst.name_of(64)}"
        self.items.append(Branch(label, b"", near, text))


def _rex(wide: int, reg: int, base: int, force: bool = False) -> bytes:
    """The REX prefix, if one is needed. `wide` is 8 for 64-bit operands."""
    rex = 0x40 | wide | reg >> 3 << 2 | base >> 3
    return bytes([rex]) if rex != 0x40 or force else b""


def _modrm(opcode: bytes, reg: int, rm: Place, bits: int, byte_rm: bool = False) -> bytes:
    """Prefixes, opcode, ModRM and displacement; displacement 0 is written out, as in Linux."""
    base = rm.base if isinstance(rm, Mem) else rm
    # spl, bpl, sil and dil exist only with a REX prefix; without, the numbers mean ah to bh.
    force = (bits == 8 and reg >= 4) or (byte_rm and isinstance(rm, Gpr) and rm >= 4)
    prefix = b"\x66" if bits == 16 else b""
    head = prefix + _rex(8 * (bits == 64), reg, base, force) + opcode
    low = (reg & 7) << 3 | base & 7
    if isinstance(rm, Gpr):
        return head + bytes([0xC0 | low])
    sib = b"\x24" if base & 7 == Gpr.RSP else b""  # rsp and r12 as base: SIB without an index
    if -128 <= rm.off < 128:
        return head + bytes([0x40 | low]) + sib + little_endian(rm.off, 1)
    return head + bytes([0x80 | low]) + sib + little_endian(rm.off, 4)


def _byte_form(opcode: int, bits: int) -> bytes:
    return bytes([opcode - 1 if bits == 8 else opcode])


def _hex(value: int) -> str:
    return f"-{-value:#x}" if value < 0 else f"{value:#x}"


def _imm(value: int, bits: int) -> str:
    return f"${value & ((1 << bits) - 1):#x}"


def _text(place: Place, bits: int) -> str:
    return place.name_of(bits) if isinstance(place, Gpr) else str(place)
