"""The x86-64 backend: a template for each BPF instruction, in the shape of Linux's JIT.

Analogous to do_jit of arch/x86/net/bpf_jit_comp.c: the register map, the frame and, for a program
that calls nothing, every byte of prologue and epilogue are those of Linux 5.3. Differences: what
the kernel's verifier patches in (division by zero, 32-bit cmpxchg) is part of the template here;
a program that makes calls has its frame aligned to 16 bytes, as the C ABI wants, with r12 saved
and holding the current XdpBuff.

Frame of a function, from %rbp down: the BPF stack, rounded up; rbx r13 r14 r15 [r12] 0.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping

from xdpbatch.errors import UnsupportedError
from xdpbatch.isa import (
    ATOMIC_OPS,
    BPF_CALL,
    CALL,
    CALLX,
    CMPXCHG,
    EXIT,
    FETCH,
    GOTOL,
    JA,
    LOAD_ACQ,
    NATIVE_CALL,
    PREFETCH,
    PSEUDO_FUNC,
    STORE_REL,
    XCHG,
    Alu,
    Class,
    Insn,
    Jmp,
    Mode,
)
from xdpbatch.jit import Compiled
from xdpbatch.jit.code import Code
from xdpbatch.jit.x86_call import AUX, AX, BPF_REG, BUFF, call
from xdpbatch.jit.x86_encode import Assembler, Gpr, Mem
from xdpbatch.jit.x86_link import Line, link
from xdpbatch.native import Hidden, Native
from xdpbatch.rewrite import Batched, Layout, Xlated

SAVED = (Gpr.RBX, Gpr.R13, Gpr.R14, Gpr.R15)  # r6 to r9
ALU = {Alu.ADD: "add", Alu.SUB: "sub", Alu.OR: "or", Alu.AND: "and", Alu.XOR: "xor"}
SHIFT = {Alu.LSH: "shl", Alu.RSH: "shr", Alu.ARSH: "sar"}
JUMP = {
    Jmp.JEQ: "je",
    Jmp.JNE: "jne",
    Jmp.JGT: "ja",
    Jmp.JGE: "jae",
    Jmp.JLT: "jb",
    Jmp.JLE: "jbe",
    Jmp.JSGT: "jg",
    Jmp.JSGE: "jge",
    Jmp.JSLT: "jl",
    Jmp.JSLE: "jle",
    Jmp.JSET: "jne",
}


def compile(xlated: Xlated, maps: Mapping[str, int]) -> Compiled:  # noqa: A001
    """Machine code of `xlated`; `maps` has the address of each map that it refers to.

    Raises UnsupportedError on a machine that is not x86-64.
    """
    require_machine()
    natives, keep = bind(xlated)
    lines = assemble(xlated, maps, natives)
    code = Code(b"".join(line.code for line in lines), keep)
    return Compiled("x86", xlated.program.name, code.address, code.size, code)


def require_machine() -> None:
    """UnsupportedError unless this machine runs x86-64 code."""
    if platform.machine() not in ("x86_64", "AMD64"):
        raise UnsupportedError.of(
            "no-x86",
            "the x86 backend makes code for x86-64 only",
            reason=f"this machine is {platform.machine()}",
            suggestion="use --backend llvm",
        )


def bind(xlated: Xlated) -> tuple[dict[Native, int], object]:
    """Machine code of the native functions that `xlated` calls."""
    called = {insn.native.function for insn in xlated.insns if insn.native}
    functions = sorted(called, key=lambda function: function.symbol)  # one order, one cache entry
    if not functions:
        return {}, None
    from xdpbatch.jit.native import compile_native  # brings LLVM, which a bare program never needs

    code = compile_native(*functions)
    return {function: code.address(function) for function in functions}, code


def assemble(xlated: Xlated, maps: Mapping[str, int], natives: Mapping[Native, int]) -> list[Line]:
    """The instructions of `xlated`; `natives` says where each native function is."""
    return Lowering(xlated, maps, natives).program()


class Lowering:
    """A BPF program being turned into machine code, function by function."""

    def __init__(
        self, xlated: Xlated, maps: Mapping[str, int], natives: Mapping[Native, int]
    ) -> None:
        self.asm = Assembler()
        self.xlated, self.maps, self.natives = xlated, maps, natives
        calls = any(insn.op in (CALL, CALLX) for insn in xlated.insns)
        self.saved = (*SAVED, BUFF) if calls else SAVED
        self.alignment = 16 if calls else 8
        self.wants_buff = any(
            Hidden.BUFF in insn.native.arguments for insn in xlated.insns if insn.native
        )
        self.entries: set[int] = set()  # functions whose r1 is an XdpBuff that BUFF is not yet
        if xlated.layout is Layout.SINGLE:
            self.entries.add(0)
        if isinstance(xlated, Batched) and xlated.sliced:
            self.entries.add(xlated.sliced)
        self.start = 0  # of the current function
        self.has_exit = False
        self.labels = 0

    def program(self) -> list[Line]:
        """Prologue and instructions of each function; its epilogue stands at its first exit."""
        for subprog, depth in zip(self.xlated.subprogs, self.xlated.stack_depth, strict=True):
            self.start, self.has_exit = subprog.start, False
            self.prologue(depth)
            for i in range(subprog.start, subprog.end):
                self.asm.label(i)
                self.enter_body(i)
                insn = self.xlated.insns[i]
                EMIT[insn.cls](self, insn)
        return link(self.asm.items)

    def enter_body(self, index: int) -> None:
        """Where a packet starts: BUFF is its XdpBuff, if some native function wants it."""
        xlated = self.xlated
        if self.wants_buff and isinstance(xlated, Batched) and index == xlated.body:
            self.asm.load(Mem(Gpr.RBP, xlated.buff_slot), BUFF, 64)

    def prologue(self, depth: int) -> None:
        """As emit_prologue of Linux 5.3; the pushed 0 is its count of tail calls."""
        asm = self.asm
        asm.label(("function", self.start))
        asm.push(Gpr.RBP)
        asm.binary("mov", Gpr.RSP, Gpr.RBP)
        asm.reserve(-(-depth // self.alignment) * self.alignment)
        for reg in self.saved:
            asm.push(reg)
        asm.plain("pushq $0x0")
        if self.wants_buff and self.start in self.entries:
            asm.binary("mov", Gpr.RDI, BUFF)

    def exit(self) -> None:
        """The epilogue, or a jump to it if this function has one already."""
        asm, label = self.asm, ("exit", self.start)
        if self.has_exit:
            asm.jump("jmp", label)
            return
        self.has_exit = True
        asm.label(label)
        asm.pop(Gpr.RBX)  # the count of tail calls
        for reg in reversed(self.saved):
            asm.pop(reg)
        asm.plain("leaveq")
        asm.plain("retq")

    def fresh(self) -> tuple[str, int]:
        """A label of its own."""
        self.labels += 1
        return "local", self.labels

    def alu(self, insn: Insn) -> None:
        """ALU and ALU64 (RFC 9669, section 4)."""
        asm, dst, op = self.asm, BPF_REG[insn.dst], insn.op & 0xF0
        bits = 64 if insn.cls == Class.ALU64 else 32
        src = BPF_REG[insn.src] if insn.uses_reg else insn.imm
        if op in ALU:
            asm.binary(ALU[Alu(op)], src, dst, bits)
        elif op in SHIFT:
            self.shift(SHIFT[Alu(op)], src, dst, bits)
        elif op == Alu.MUL:
            asm.multiply(src, dst, bits)
        elif op in (Alu.DIV, Alu.MOD):
            self.divide(src, dst, bits, signed=bool(insn.off), modulo=op == Alu.MOD)
        elif op == Alu.NEG:
            asm.unary("neg", dst, bits)
        elif op == Alu.END:
            self.byte_order(dst, insn.imm, swap=insn.cls == Class.ALU64 or insn.uses_reg)
        elif not isinstance(src, Gpr):
            asm.move_imm(src if bits == 64 else src & 0xFFFFFFFF, dst)
        elif insn.off:
            asm.extend(src, dst, signed=True, bits=insn.off, to=bits)
        else:
            asm.binary("mov", src, dst, bits)

    def shift(self, name: str, src: Gpr | int, dst: Gpr, bits: int) -> None:
        """The machine shifts by %cl modulo its width, as BPF does by its register."""
        asm, cl = self.asm, Gpr.RCX
        if not isinstance(src, Gpr):
            asm.shift(name, src & (bits - 1), dst, bits)
        elif src is cl and dst is not cl:
            asm.shift(name, None, dst, bits)
        else:
            kept, to = (AUX, AUX) if dst is cl else (AX, dst)
            asm.binary("mov", cl, kept)
            if src is not cl:
                asm.binary("mov", src, cl)
            asm.shift(name, None, to, bits)
            asm.binary("mov", kept, cl)

    def divide(self, src: Gpr | int, dst: Gpr, bits: int, signed: bool, modulo: bool) -> None:
        """x / 0 = 0, x % 0 = x, MIN / -1 = MIN, MIN % -1 = 0 (RFC 9669, section 4.1); the
        machine would trap on each."""
        asm, zero, minus_one, done = self.asm, self.fresh(), self.fresh(), self.fresh()
        if isinstance(src, Gpr):
            asm.binary("mov", src, AUX, bits)
        else:
            asm.move_imm(src, AUX)
        asm.binary("test", AUX, AUX, bits)
        asm.jump("je", zero)
        if signed:
            asm.binary("cmp", -1, AUX, bits)
            asm.jump("je", minus_one)
        asm.push(Gpr.RAX)
        asm.push(Gpr.RDX)
        asm.binary("mov", dst, Gpr.RAX, bits)
        if signed:
            asm.plain("cqto" if bits == 64 else "cltd")
        else:
            asm.move_imm(0, Gpr.RDX)
        asm.unary("idiv" if signed else "div", AUX, bits)
        asm.binary("mov", Gpr.RDX if modulo else Gpr.RAX, AUX, bits)
        asm.pop(Gpr.RDX)
        asm.pop(Gpr.RAX)
        asm.binary("mov", AUX, dst, bits)
        asm.jump("jmp", done)
        asm.label(zero)
        if modulo:
            asm.binary("mov", dst, dst, bits)
        else:
            asm.move_imm(0, dst)
        if signed:
            asm.jump("jmp", done)
            asm.label(minus_one)
            if modulo:
                asm.move_imm(0, dst)
            else:
                asm.unary("neg", dst, bits)
        asm.label(done)

    def byte_order(self, dst: Gpr, bits: int, swap: bool) -> None:
        """le, be and bswap of 16, 32 or 64 bits; the rest becomes 0 (RFC 9669, section 4.2)."""
        asm = self.asm
        if bits == 16:
            if swap:
                asm.shift("ror", 8, dst, 16)
            asm.extend(dst, dst, signed=False, bits=16)
        elif swap:
            asm.bswap(dst, bits)
        elif bits == 32:
            asm.binary("mov", dst, dst, 32)

    def jump(self, insn: Insn) -> None:
        """JMP and JMP32 (RFC 9669, section 4.3)."""
        asm, dst = self.asm, BPF_REG[insn.dst]
        if insn.op in (JA, GOTOL):
            asm.jump("jmp", insn.target)
        elif insn.op == EXIT:
            self.exit()
        elif insn.op in (CALL, CALLX):
            self.call(insn)
        else:
            op, bits = Jmp(insn.op & 0xF0), 64 if insn.cls == Class.JMP else 32
            src = BPF_REG[insn.src] if insn.uses_reg else insn.imm
            if op == Jmp.JSET and not isinstance(src, Gpr):
                asm.test_imm(src, dst, bits)
            else:
                asm.binary("test" if op == Jmp.JSET else "cmp", src, dst, bits)
            asm.jump(JUMP[op], insn.target)

    def call(self, insn: Insn) -> None:
        """A BPF function by its place or address, or native code."""
        if insn.op == CALLX:
            self.asm.call_reg(BPF_REG[insn.call_register])
        elif insn.src == BPF_CALL:
            self.asm.call(("function", insn.target))
        elif insn.src == NATIVE_CALL and insn.native:
            call(self.asm, self.natives[insn.native.function], insn.native.arguments)
        else:
            raise ValueError(f"call of {insn.imm} was not rewritten before the JIT")

    def load(self, insn: Insn) -> None:
        """LDX (RFC 9669, section 5.1 and 5.2), and PREFETCH."""
        mem, dst, bits = Mem(BPF_REG[insn.src], insn.off), BPF_REG[insn.dst], insn.width * 8
        signed = insn.op & 0xE0 == Mode.MEMSX
        if insn.op == PREFETCH:
            self.asm.prefetch(mem)
        elif signed or bits < 32:
            self.asm.extend(mem, dst, signed, bits)
        else:
            self.asm.load(mem, dst, bits)

    def load_imm64(self, insn: Insn) -> None:
        """LD_IMM64: a constant, an address in a map's block, or a function's address."""
        if insn.src == PSEUDO_FUNC:
            self.asm.address_of(("function", insn.target), BPF_REG[insn.dst])
        else:
            base = self.maps[insn.ref] if insn.ref else 0
            self.asm.move_imm(base + insn.imm, BPF_REG[insn.dst])

    def store_imm(self, insn: Insn) -> None:
        self.asm.store_imm(insn.imm, Mem(BPF_REG[insn.dst], insn.off), insn.width * 8)

    def store(self, insn: Insn) -> None:
        """STX, plain or atomic; x86 stores are releases and loads acquires as they are."""
        if insn.is_atomic and insn.imm == LOAD_ACQ:
            self.load(insn)
        elif insn.is_atomic and insn.imm != STORE_REL:
            self.atomic(insn)
        else:
            mem = Mem(BPF_REG[insn.dst], insn.off)
            self.asm.binary("mov", BPF_REG[insn.src], mem, insn.width * 8)

    def atomic(self, insn: Insn) -> None:
        """Read-modify-write (RFC 9669, section 5.3)."""
        asm, src, bits = self.asm, BPF_REG[insn.src], insn.width * 8
        mem = Mem(BPF_REG[insn.dst], insn.off)
        if insn.imm == CMPXCHG:
            asm.locked("cmpxchg", src, mem, bits)
            if bits == 32:  # where it succeeds it leaves the high half of rax alone
                asm.binary("mov", Gpr.RAX, Gpr.RAX, 32)
        elif insn.imm == XCHG:
            asm.locked("xchg", src, mem, bits)
        elif not insn.imm & FETCH:
            asm.locked(ATOMIC_OPS[insn.imm], src, mem, bits)
        elif ATOMIC_OPS[insn.imm & ~FETCH] == "add":
            asm.locked("xadd", src, mem, bits)
        else:
            self.fetch(ATOMIC_OPS[insn.imm & ~FETCH], src, mem, bits)

    def fetch(self, name: str, src: Gpr, mem: Mem, bits: int) -> None:
        """or, and, xor that return the old value: a loop around cmpxchg, which needs rax."""
        asm, again = self.asm, self.fresh()
        asm.binary("mov", Gpr.RAX, AUX)  # kept there, and found there by the operands
        operand = AUX if src is Gpr.RAX else src
        mem = Mem(AUX, mem.off) if mem.base is Gpr.RAX else mem
        asm.load(mem, Gpr.RAX, bits)
        asm.label(again)
        asm.binary("mov", Gpr.RAX, AX, bits)
        asm.binary(name, operand, AX, bits)
        asm.locked("cmpxchg", AX, mem, bits)
        asm.jump("jne", again)
        asm.binary("mov", Gpr.RAX, src, bits)
        if src is not Gpr.RAX:
            asm.binary("mov", AUX, Gpr.RAX)


EMIT: dict[int, Callable[[Lowering, Insn], None]] = {
    Class.LD: Lowering.load_imm64,
    Class.LDX: Lowering.load,
    Class.ST: Lowering.store_imm,
    Class.STX: Lowering.store,
    Class.ALU: Lowering.alu,
    Class.ALU64: Lowering.alu,
    Class.JMP: Lowering.jump,
    Class.JMP32: Lowering.jump,
}
