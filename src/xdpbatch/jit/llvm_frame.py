"""Registers and stack of one BPF function in LLVM IR.

Analogous to the frame that emit_prologue() of arch/x86/net/bpf_jit_comp.c sets up, left to LLVM:
a register is an alloca that mem2reg turns into SSA values; the stack is one alloca, reached by
constant GEPs wherever the verifier knows the offset, so that LLVM sees what is stored where; each
slot of a rewrite (`Region.SLOT`) is an alloca of its own and so becomes a register.
An address that is not known to be in the frame is an integer that is made a pointer.
"""

from __future__ import annotations

from llvmlite import ir

from xdpbatch.facts import Access, Fact, Region
from xdpbatch.isa import FP
from xdpbatch.jit.intrinsics import I1, I8, I64, PTR, declare

UNDEFINED = ir.Constant(I64, ir.Undefined)
OVERHANG = 16  # bytes above the frame, for bare programs that nobody verified


class Frame:
    """Made at the entry of a function; `arguments` are the values of r1, r2, ...

    `initial` is what all other registers hold.
    """

    def __init__(
        self, b: ir.IRBuilder, depth: int, arguments: list[ir.Value], initial: ir.Value
    ) -> None:
        self.b = b
        self.depth = (depth + 15) & -16
        self.size = self.depth + OVERHANG
        self._registers = [b.alloca(I64, name=f"r{i}") for i in range(FP)]
        self._stack = b.alloca(ir.ArrayType(I8, self.size), name="stack")
        self._stack.align = 16
        self._stack.type = ir.PointerType()  # bytes: anything may be loaded and stored
        self._slots: dict[int, ir.Value] = {}
        for i, register in enumerate(self._registers):
            given = 1 <= i <= len(arguments)
            b.store(arguments[i - 1] if given else initial, register)
        self._top = b.ptrtoint(self._at(0), I64, name="r10")

    def get(self, register: int) -> ir.Value:
        """The value of a register."""
        return self._top if register == FP else self.b.load(self._registers[register], typ=I64)

    def set(self, register: int, value: ir.Value) -> None:
        """Write a register; r10 cannot be written."""
        self.b.store(value, self._registers[register])

    def forget(self, *registers: int) -> None:
        """These registers hold nothing that the program may read."""
        for register in registers:
            self.set(register, UNDEFINED)

    def forget_stack(self) -> None:
        """The stack holds nothing that the program may read."""
        for name in ("llvm.lifetime.end.p0", "llvm.lifetime.start.p0"):
            self.b.call(declare(self.b, name, ir.VoidType(), ir.PointerType()), [self._stack])

    def slot(self, offset: int) -> ir.Value:
        """Where the 8 bytes of a slot are."""
        if offset not in self._slots:
            with self.b.goto_entry_block():
                self._slots[offset] = self.b.alloca(I64, name=f"slot{-offset}")
            self._slots[offset].type = ir.PointerType()  # the slides' loop counter is 4 bytes
        return self._slots[offset]

    def pointer(self, base: int, offset: int, fact: Fact | None) -> ir.Value:
        """What a load, store or atomic at register `base` + `offset` goes to."""
        if isinstance(fact, Access) and fact.offset is not None:
            if fact.region is Region.SLOT:
                return self.slot(fact.offset)
            if fact.region is Region.STACK:
                return self._at(fact.offset)
        if base == FP:
            return self._at(offset)
        pointer = self.b.inttoptr(self.get(base), ir.PointerType())
        return self.b.gep(pointer, [I64(offset)], source_etype=I8) if offset else pointer

    def address(self, register: int, known: Access | None) -> ir.Value:
        """The value of a register that is passed as a pointer, of which `known` is proven."""
        if known and known.region is Region.STACK and known.offset is not None:
            return self.b.ptrtoint(self._at(known.offset), I64)
        return self.get(register)

    def copied(self, offset: int, size: int) -> ir.Value:
        """The address of a copy of `size` bytes of the stack, for somebody who only reads them."""
        with self.b.goto_entry_block():
            copy = self.b.alloca(ir.ArrayType(I8, size))
        copy.align, copy.type = 8, ir.PointerType()
        memcpy = declare(self.b, "llvm.memcpy.p0.p0.i64", ir.VoidType(), PTR, PTR, I64, I1)
        self.b.call(memcpy, [copy, self._at(offset), I64(size), I1(0)])
        return self.b.ptrtoint(copy, I64)

    def _at(self, offset: int) -> ir.Value:
        """A place in the stack by its distance from r10."""
        return self.b.gep(self._stack, [I64(self.depth + offset)], source_etype=I8)
