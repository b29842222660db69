"""Lowers an Xlated or Batched program to LLVM IR, function by function.

Analogous to do_jit() of arch/x86/net/bpf_jit_comp.c, one method per instruction class. A BPF
function becomes `i64 f(i64 r1, ..., i64 r5, i64 buff)`, `buff` being the XdpBuff of the current
packet, which native functions ask for. Memory accesses promise no alignment (packets have none),
except atomics.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from llvmlite import ir

from xdpbatch.errors import UnsupportedError
from xdpbatch.facts import Access, Called, Region
from xdpbatch.isa import (
    ATOMIC_OPS,
    BPF_CALL,
    CALL,
    CALLX,
    CMPXCHG,
    EXIT,
    FETCH,
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
from xdpbatch.jit import llvm_alu as alu
from xdpbatch.jit.intrinsics import I8, I32, I64, atom, declare, prefetch
from xdpbatch.jit.llvm_frame import UNDEFINED, Frame
from xdpbatch.native import Argument, Field, Hidden, NativeCall, Reg
from xdpbatch.program import Subprog
from xdpbatch.rewrite import Batched, Xlated

ENTRY = "xdpbatch.entry"
ARGUMENTS = 5  # r1 to r5
FUNCTION = ir.FunctionType(I64, [I64] * (ARGUMENTS + 1))
READ = {"key": "key_size", "value": "value_size"}  # parameters of map operations; their sizes
UNWIND = 5  # helper of the bpf_conformance suite: its argument; the program ends if that is 0


def lower(xlated: Xlated, symbols: Mapping[str, str], *, bare: bool = False) -> ir.Module:
    """A module that exports `u64 xdpbatch.entry(u64 r1, u64 r2, u64 r3)`.

    `symbols` has the name of the external symbol that stands for each map. In a `bare` program,
    which nobody verified, registers start as 0 and a call of helper 5 is the conformance suite's.
    """
    module = ir.Module()
    functions = {
        subprog.start: ir.Function(module, FUNCTION, symbol("bpf", subprog.start, subprog.name))
        for subprog in xlated.subprogs
    }
    for subprog, depth in zip(xlated.subprogs, xlated.stack_depth, strict=True):
        Lowering(xlated, subprog, depth, functions, symbols, bare).run()
    entry = ir.Function(module, ir.FunctionType(I64, [I64] * 3), ENTRY)
    b = ir.IRBuilder(entry.append_basic_block())
    given = entry.args[:2] if bare else entry.args
    rest = [I64(0) if bare else UNDEFINED] * (ARGUMENTS - len(given))
    b.ret(b.call(functions[0], [*given, *rest, given[0]]))
    return module


def symbol(kind: str, number: int, name: str) -> str:
    """A name for LLVM: unique by its number, and harmless whatever the object calls things."""
    return f"{kind}.{number}.{re.sub(r'[^A-Za-z0-9_.]', '_', name)}"


class Lowering:
    """One function on its way to LLVM IR."""

    def __init__(
        self,
        xlated: Xlated,
        subprog: Subprog,
        depth: int,
        functions: Mapping[int, ir.Function],
        symbols: Mapping[str, str],
        bare: bool,
    ) -> None:
        self.xlated, self.subprog, self.symbols, self.bare = xlated, subprog, symbols, bare
        self.functions = functions
        function = functions[subprog.start]
        self.b = b = ir.IRBuilder(function.append_basic_block("entry"))
        *arguments, self._buff = function.args
        self.frame = Frame(b, depth, arguments, I64(0) if bare else UNDEFINED)
        self.blocks = {
            i: function.append_basic_block(f"insn{i}")
            for i in sorted(self._leaders())
            if i < subprog.end
        }
        b.branch(self.blocks[subprog.start])

    def _leaders(self) -> set[int]:
        """Instructions that start a basic block."""
        leaders = {self.subprog.start}
        for i in range(self.subprog.start, self.subprog.end):
            insn = self.xlated.insns[i]
            if insn.is_jump and insn.target is not None:
                leaders |= {insn.target, i + 1}
            elif insn.op == EXIT:
                leaders.add(i + 1)
        if isinstance(self.xlated, Batched) and self.subprog.start == 0:
            leaders.add(self.xlated.body)
        return leaders

    def run(self) -> None:
        """All instructions, in order."""
        for i in range(self.subprog.start, self.subprog.end):
            if i in self.blocks:
                if not self.b.block.is_terminated:
                    self.b.branch(self.blocks[i])
                self.b.position_at_end(self.blocks[i])
            if isinstance(self.xlated, Batched) and i == self.xlated.body:
                # nothing is carried from packet to packet
                self.frame.forget(0, *range(2, 10))
                self.frame.forget_stack()
            EMIT[self.xlated.insns[i].cls](self, i, self.xlated.insns[i])
        if not self.b.block.is_terminated:
            self.b.ret(I64(0))  # only a bare program runs off its end

    @property
    def buff(self) -> ir.Value:
        """The XdpBuff of the current packet."""
        if isinstance(self.xlated, Batched) and self.subprog.start == 0:
            return self.b.load(self.frame.slot(self.xlated.buff_slot), typ=I64)
        return self._buff

    def second(self, insn: Insn, bits: int) -> ir.Value:
        """The second operand of ALU and JMP."""
        if insn.uses_reg:
            return alu.narrow(self.b, self.frame.get(insn.src), bits)
        return ir.IntType(bits)(insn.imm)

    def alu(self, i: int, insn: Insn) -> None:
        """ALU and ALU64 (RFC 9669, section 4)."""
        b, op = self.b, insn.op & 0xF0
        bits = 64 if insn.cls == Class.ALU64 else 32
        old = self.frame.get(insn.dst)
        if op == Alu.END:
            swap = insn.cls == Class.ALU64 or insn.uses_reg
            self.frame.set(insn.dst, alu.byte_order(b, old, insn.imm, swap=swap))
            return
        operand = self.second(insn, bits)
        if op == Alu.MOV and insn.off:
            operand = alu.widen(b, alu.narrow(b, operand, insn.off), bits, signed=True)
        table = alu.SIGNED if insn.off and op in alu.SIGNED else alu.BINARY
        result = table[op](b, alu.narrow(b, old, bits), operand)
        self.frame.set(insn.dst, alu.widen(b, result))

    def jmp(self, i: int, insn: Insn) -> None:
        """JMP and JMP32: jumps, calls and exit (section 4.3)."""
        if insn.op == EXIT:
            self.b.ret(self.frame.get(0))
        elif insn.op in (CALL, CALLX):
            self.call(i, insn)
        elif insn.op & 0xF0 == Jmp.JA:
            self.b.branch(self.goal(insn))
        else:
            bits = 64 if insn.cls == Class.JMP else 32
            first = alu.narrow(self.b, self.frame.get(insn.dst), bits)
            taken = alu.compare(self.b, insn.op & 0xF0, first, self.second(insn, bits))
            self.b.cbranch(taken, self.goal(insn), self.blocks[i + 1])

    def goal(self, insn: Insn) -> ir.Block:
        """The block that a jump goes to."""
        assert insn.target is not None
        return self.blocks[insn.target]

    def call(self, i: int, insn: Insn) -> None:
        """Calls of BPF functions, of native functions, and by register."""
        if insn.src == NATIVE_CALL and insn.native is not None:
            values = [self.argument(insn, argument) for argument in insn.native.arguments]
            for name, size in READ.items():
                self.shield(insn, insn.native, name, size, values)
            callee = declare(self.b, insn.native.function.symbol, I64, *[I64] * len(values))
            result = self.b.call(callee, values)
        elif insn.op == CALL and insn.src == BPF_CALL and insn.target is not None:
            result = self.b.call(self.functions[insn.target], self.registers())
        elif insn.op == CALLX:
            result = self.call_register(insn)
        elif self.bare and insn.imm == UNWIND:
            result = self.unwind()
        else:
            raise UnsupportedError.of(
                "unsupported-helper",
                f"the program calls helper {insn.imm}",
                where=f"insn {i}",
                reason="a call by number is left only in a program without an object",
            )
        self.frame.set(0, result)
        if not self.bare:
            self.frame.forget(1, 2, 3, 4, 5)

    def shield(
        self, insn: Insn, call: NativeCall, name: str, size: str, values: list[ir.Value]
    ) -> None:
        """Pass a copy of what is on the stack, if parameter `name` is that: a callee that is not
        inlined, such as an update after a failed lookup, would otherwise hold all of the stack in
        memory. Where the callee is inlined, the copy vanishes."""
        at = call.parameter(name)
        length = call.parameter(size)
        if at is None or length is None:
            return
        argument, bytes_ = call.arguments[at], call.arguments[length]
        if isinstance(argument, Reg) and isinstance(bytes_, int):
            known = self.known(insn, argument)
            if known and known.region is Region.STACK and known.offset is not None:
                values[at] = self.frame.copied(known.offset, bytes_)

    def registers(self) -> list[ir.Value]:
        """What a BPF function is called with."""
        return [*(self.frame.get(r) for r in range(1, ARGUMENTS + 1)), self.buff]

    def known(self, insn: Insn, argument: Reg) -> Access | None:
        """What the verifier proved of an argument of a call."""
        called = insn.fact if isinstance(insn.fact, Called) else Called()
        return called.args[argument.number - 1] if 1 <= argument.number <= ARGUMENTS else None

    def argument(self, insn: Insn, argument: Argument) -> ir.Value:
        """An argument of a native call."""
        match argument:
            case Reg(number):
                return self.frame.address(number, self.known(insn, argument))
            case Field(register, offset):
                pointer = self.frame.pointer(register, offset, None)
                return alu.widen(self.b, self.b.load(pointer, typ=I32, align=4))
            case Hidden.BUFF:
                return self.buff
        return I64(argument)

    def call_register(self, insn: Insn) -> ir.Value:
        """CALLX: a function by its address; in a bare program also helper 5 by its number."""
        goal = self.frame.get(insn.call_register)
        function = self.b.inttoptr(goal, FUNCTION.as_pointer())
        if not self.bare:
            return self.b.call(function, self.registers())
        is_helper = self.b.icmp_unsigned("==", goal, I64(UNWIND))
        with self.b.if_else(is_helper) as (yes, no):
            with yes:
                unwound, yes_block = self.unwind(), self.b.block
            with no:
                called, no_block = self.b.call(function, self.registers()), self.b.block
        result = self.b.phi(I64)
        result.add_incoming(unwound, yes_block)
        result.add_incoming(called, no_block)
        return result

    def unwind(self) -> ir.Value:
        """Helper 5 of the conformance suite."""
        value = self.frame.get(1)
        with self.b.if_then(self.b.icmp_unsigned("==", value, I64(0))):
            self.b.ret(I64(0))
        return value

    def ld(self, i: int, insn: Insn) -> None:
        """LD_IMM64: a constant, a map's address, or a function's (section 5.4)."""
        if insn.src == PSEUDO_FUNC and insn.target is not None:
            value = self.b.ptrtoint(self.functions[insn.target], I64)
        elif insn.ref is not None:
            value = self.b.add(self.b.ptrtoint(self.map(insn.ref), I64), I64(insn.imm))
        else:
            value = I64(insn.imm)
        self.frame.set(insn.dst, value)

    def map(self, name: str) -> ir.Value:
        """The block of a map, an external symbol."""
        known = self.b.module.globals.get(self.symbols[name])
        return known or ir.GlobalVariable(self.b.module, ir.ArrayType(I8, 0), self.symbols[name])

    def ldx(self, i: int, insn: Insn) -> None:
        """LDX: loads, zero-extending or sign-extending (sections 5.1, 5.2); and PREFETCH."""
        pointer = self.frame.pointer(insn.src, insn.off, insn.fact)
        if insn.op == PREFETCH:
            prefetch(self.b, pointer)
            return
        value = self.b.load(pointer, typ=ir.IntType(8 * insn.width), align=1)
        signed = insn.op & 0xE0 == Mode.MEMSX
        self.frame.set(insn.dst, alu.widen(self.b, value, signed=signed))

    def st(self, i: int, insn: Insn) -> None:
        """ST and STX: stores and atomics."""
        if insn.is_atomic:
            self.atomic(insn)
            return
        pointer, bits = self.frame.pointer(insn.dst, insn.off, insn.fact), 8 * insn.width
        value = self.frame.get(insn.src) if insn.cls == Class.STX else I64(insn.imm)
        self.b.store(alu.narrow(self.b, value, bits), pointer, align=1)

    def atomic(self, insn: Insn) -> None:
        """Atomics (section 5.3). One that returns the old value is fully ordered, as in Linux."""
        b, bits, frame = self.b, 8 * insn.width, self.frame
        base = insn.src if insn.imm == LOAD_ACQ else insn.dst
        pointer = atom(b, b.ptrtoint(frame.pointer(base, insn.off, insn.fact), I64), bits)
        if insn.imm == LOAD_ACQ:
            frame.set(insn.dst, alu.widen(b, b.load_atomic(pointer, "acquire", insn.width)))
            return
        source = alu.narrow(b, frame.get(insn.src), bits)
        if insn.imm == STORE_REL:
            b.store_atomic(source, pointer, "release", insn.width)
        elif insn.imm == CMPXCHG:
            expected = alu.narrow(b, frame.get(0), bits)
            pair = b.cmpxchg(pointer, expected, source, "seq_cst", "seq_cst")
            frame.set(0, alu.widen(b, b.extract_value(pair, 0)))
        elif insn.imm == XCHG:
            frame.set(insn.src, alu.widen(b, b.atomic_rmw("xchg", pointer, source, "seq_cst")))
        else:
            ordering = "seq_cst" if insn.imm & FETCH else "monotonic"
            old = b.atomic_rmw(ATOMIC_OPS[insn.imm & ~FETCH], pointer, source, ordering)
            if insn.imm & FETCH:
                frame.set(insn.src, alu.widen(b, old))


EMIT: dict[int, Callable[[Lowering, int, Insn], None]] = {
    Class.LD: Lowering.ld,
    Class.LDX: Lowering.ldx,
    Class.ST: Lowering.st,
    Class.STX: Lowering.st,
    Class.ALU: Lowering.alu,
    Class.JMP: Lowering.jmp,
    Class.JMP32: Lowering.jmp,
    Class.ALU64: Lowering.alu,
}
