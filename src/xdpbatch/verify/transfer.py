"""What an instruction does to the state. Analogous to check_alu_op, check_mem_access, check_atomic
and check_ld_imm of kernel/bpf/verifier.c.

`steps` has one function per opcode: it raises Refusal, or changes the state and returns the index
of the next instruction. Calls and exits are in `call`, conditional jumps in `branch`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from xdpbatch.isa import (
    ATOMIC_OPS,
    CMPXCHG,
    FETCH,
    FP,
    GOTOL,
    JA,
    LD_IMM64,
    LOAD_ACQ,
    OPCODES,
    PREFETCH,
    PSEUDO_FUNC,
    PSEUDO_MAP_FD,
    PSEUDO_MAP_VALUE,
    STORE_REL,
    WIDTH,
    XCHG,
    Alu,
    Class,
    Insn,
    Mode,
    Size,
)
from xdpbatch.uapi import BPF_F_RDONLY_PROG, MapNumber
from xdpbatch.verify import require, stack
from xdpbatch.verify.arith import alu, negate
from xdpbatch.verify.domain import SIGNED, UNKNOWN, UNSIGNED, const, sext, zext
from xdpbatch.verify.explain import Refusal
from xdpbatch.verify.links import link
from xdpbatch.verify.offsets import point
from xdpbatch.verify.require import reserved
from xdpbatch.verify.state import (
    Frame,
    Kind,
    Pointer,
    Scalar,
    State,
    Value,
    derived,
)

if TYPE_CHECKING:
    from xdpbatch.verify.walk import Walk

StepFunction = Callable[["Walk", State, Frame, Insn, int], int]


def operand(frame: Frame, number: int) -> Value:
    """What a register that is read holds."""
    value = frame.regs[number]
    if value is None:
        raise require.uninitialised(number)
    return value


def define(frame: Frame, number: int, value: Value) -> None:
    """Write a register."""
    if number == FP:
        raise Refusal("frame-pointer", "r10 is written, but the frame pointer is read-only")
    frame.regs[number] = value


def second(frame: Frame, insn: Insn) -> Value:
    """The second operand of ALU: a register, or the immediate."""
    if insn.op & 0x08:
        reserved(insn, insn.imm)
        return operand(frame, insn.src)
    reserved(insn, insn.src)
    return Scalar(const(insn.imm))


# ALU


def move(walk: Walk, state: State, frame: Frame, insn: Insn, index: int) -> int:
    """MOV, MOV32 and their sign-extending forms (offset 8, 16, 32)."""
    wide = insn.op & 7 == Class.ALU64
    value = second(frame, insn)
    bits = insn.off
    if bits and (not insn.op & 0x08 or bits not in ((8, 16, 32) if wide else (8, 16))):
        reserved(insn, bits)
    if isinstance(value, Pointer):
        if bits or not wide:  # a privileged program may look at a pointer's low bits
            value = Scalar(UNKNOWN if wide else UNSIGNED[32])
    elif bits or not wide:
        num = sext(value.num, bits) if bits else value.num
        num = num if wide else zext(num, 32)
        value = value if num is value.num else derived(num, value)
    define(frame, insn.dst, value)
    return index + 1


def arithmetic(walk: Walk, state: State, frame: Frame, insn: Insn, index: int) -> int:
    """ADD ... ARSH, on numbers; on pointers ADD and SUB."""
    op, wide = insn.op & 0xF0, insn.op & 7 == Class.ALU64
    a = operand(frame, insn.dst)
    b = second(frame, insn)
    signed = insn.off == 1 and op in (Alu.DIV, Alu.MOD)
    if not signed:
        reserved(insn, insn.off)
    if not insn.op & 0x08:
        if op in (Alu.DIV, Alu.MOD) and not insn.imm:
            raise Refusal("div-by-zero", "division by the constant 0")
        if op in (Alu.LSH, Alu.RSH, Alu.ARSH) and not 0 <= insn.imm < (64 if wide else 32):
            raise Refusal("bad-shift", f"shift by {insn.imm}, more than the register's width")
    if isinstance(a, Scalar) and isinstance(b, Scalar):
        num = alu(op, wide, a.num, b.num, signed)
        out = derived(num, a, b)
        if op in (Alu.ADD, Alu.SUB) and wide and not b.num.mask:
            link(walk, frame, out, a, b.num.value if op == Alu.ADD else -b.num.value)
        define(frame, insn.dst, out)
    else:
        define(frame, insn.dst, point(walk, insn, a, b))
    return index + 1


def negation(walk: Walk, state: State, frame: Frame, insn: Insn, index: int) -> int:
    """NEG; of a pointer it is a number."""
    reserved(insn, insn.src, insn.off, insn.imm)
    wide = insn.op & 7 == Class.ALU64
    value = operand(frame, insn.dst)
    if isinstance(value, Scalar):
        out = derived(negate(wide, value.num), value)
    else:
        out = Scalar(UNKNOWN if wide else UNSIGNED[32])
    define(frame, insn.dst, out)
    return index + 1


def byte_swap(walk: Walk, state: State, frame: Frame, insn: Insn, index: int) -> int:
    """END: to little endian truncates, to big endian or `bswap` reverses the low bytes."""
    if insn.imm not in (16, 32, 64):
        raise Refusal("reserved-field", f"byte swap of {insn.imm} bits")
    reserved(insn, insn.src, insn.off)
    value = operand(frame, insn.dst)
    num = UNSIGNED[insn.imm]
    if isinstance(value, Scalar):
        swaps = insn.op & 0x08 or insn.op & 7 == Class.ALU64
        if not swaps:
            num = zext(value.num, insn.imm)
        elif not value.num.mask:
            low = value.num.value & ((1 << insn.imm) - 1)
            num = const(int.from_bytes(low.to_bytes(insn.imm // 8, "little"), "big"))
        out = value if num is value.num else derived(num, value)
    else:
        out = Scalar(num)
    define(frame, insn.dst, out)
    return index + 1


# Loads and stores


def read(walk: Walk, state: State, base: Pointer, number: int, insn: Insn, index: int) -> Value:
    """The value of a load through a checked pointer; records the access."""
    size, off, kind = WIDTH[Size(insn.op & 0x18)], insn.off, base.kind
    walk.accessed(state, index, base, off)
    if kind == Kind.STACK:
        return stack.load(walk, state, base, off, size)
    if kind == Kind.CTX:
        field = require.context(number, base, off, size, False, walk.program.attach)
        return Scalar(UNSIGNED[32]) if field is None else Pointer(field)
    require.memory(number, base, off, size, False)
    if kind == Kind.MAP_VALUE and not base.num.mask:
        spec = base.map
        if spec and spec.frozen and spec.contents is not None and spec.flags & BPF_F_RDONLY_PROG:
            at = base.off + off + base.num.smin
            return Scalar(const(int.from_bytes(spec.contents[at : at + size], "little")))
    return Scalar(UNSIGNED[8 * size])


def load(walk: Walk, state: State, frame: Frame, insn: Insn, index: int) -> int:
    """LDX; with mode MEMSX sign-extending. A PREFETCH takes any address and gives nothing."""
    reserved(insn, insn.imm)
    if insn.op == PREFETCH:
        reserved(insn, insn.dst)
        operand(frame, insn.src)
        return index + 1
    base = require.pointer(insn.src, operand(frame, insn.src), False)
    value = read(walk, state, base, insn.src, insn, index)
    if insn.op & 0xE0 == Mode.MEMSX:
        bits = 8 * WIDTH[Size(insn.op & 0x18)]
        if isinstance(value, Pointer):
            raise Refusal("invalid-ctx-access", "sign-extending load of a pointer", repr(value))
        num = SIGNED[bits] if value.num is UNSIGNED[bits] else sext(value.num, bits)
        value = derived(num, value)
    define(frame, insn.dst, value)
    return index + 1


def write(
    walk: Walk, state: State, base: Pointer, number: int, insn: Insn, value: Value, index: int
) -> None:
    """A store of a value through a checked pointer; records the access."""
    size = WIDTH[Size(insn.op & 0x18)]
    walk.accessed(state, index, base, insn.off)
    if base.kind == Kind.STACK:
        stack.store(walk, state, base, insn.off, size, value)
    elif base.kind == Kind.CTX:
        require.context(number, base, insn.off, size, True, walk.program.attach)
    else:
        require.memory(number, base, insn.off, size, True)


def store(walk: Walk, state: State, frame: Frame, insn: Insn, index: int) -> int:
    """STX and ST."""
    if insn.op & 7 == Class.STX:
        reserved(insn, insn.imm)
        value = operand(frame, insn.src)
    else:
        reserved(insn, insn.src)
        value = Scalar(const(insn.imm))
    base = require.pointer(insn.dst, operand(frame, insn.dst), True)
    write(walk, state, base, insn.dst, insn, value, index)
    return index + 1


def atomic(walk: Walk, state: State, frame: Frame, insn: Insn, index: int) -> int:
    """Read-modify-write, and load-acquire and store-release."""
    op = insn.imm
    size = WIDTH[Size(insn.op & 0x18)]
    if op == LOAD_ACQ:
        base = require.pointer(insn.src, operand(frame, insn.src), False)
        require.atomic_target(insn.src, base, insn.off, size)
        define(frame, insn.dst, read(walk, state, base, insn.src, insn, index))
        return index + 1
    value = operand(frame, insn.src)
    if op == STORE_REL:
        base = require.pointer(insn.dst, operand(frame, insn.dst), True)
        require.atomic_target(insn.dst, base, insn.off, size)
        write(walk, state, base, insn.dst, insn, value, index)
        return index + 1
    if (op & ~FETCH not in ATOMIC_OPS and op not in (XCHG, CMPXCHG)) or size < 4:
        raise Refusal("bad-atomic", f"no atomic operation {op:#x} of {size} bytes")
    if op == CMPXCHG:
        operand(frame, 0)
    base = require.pointer(insn.dst, operand(frame, insn.dst), True)
    require.atomic_target(insn.dst, base, insn.off, size)
    old = read(walk, state, base, insn.dst, insn, index)
    if base.kind == Kind.STACK:  # whatever was spilled there is not what it was
        stack.store(walk, state, base, insn.off, size, Scalar(UNSIGNED[8 * size]))
    else:
        require.memory(insn.dst, base, insn.off, size, True)
    if op & FETCH:
        define(frame, 0 if op == CMPXCHG else insn.src, old)
    return index + 1


# Others


def wide_immediate(walk: Walk, state: State, frame: Frame, insn: Insn, index: int) -> int:
    """LD_IMM64: a constant, a map, an address in a map's value, a function."""
    reserved(insn, insn.off)
    if insn.src == 0:
        define(frame, insn.dst, Scalar(const(insn.imm)))
    elif insn.src in (PSEUDO_MAP_FD, PSEUDO_MAP_VALUE):
        spec = walk.program.maps.get(insn.ref or "")
        if spec is None:
            raise Refusal("unknown-map", f"no map named {insn.ref}")
        if insn.src == PSEUDO_MAP_FD:
            define(frame, insn.dst, Pointer(Kind.MAP, map=spec))
        else:
            if spec.type != MapNumber.ARRAY or spec.max_entries != 1:
                raise Refusal(
                    "map-access",
                    f"address of a value of map {spec.name}",
                    "only arrays of one element have such addresses",
                )
            if not 0 <= insn.imm < spec.value_size:
                raise Refusal(
                    "map-value-bounds",
                    f"address outside of the value of {spec.name}",
                    f"offset {insn.imm} of {spec.value_size} bytes",
                )
            define(frame, insn.dst, Pointer(Kind.MAP_VALUE, insn.imm, map=spec))
    elif insn.src == PSEUDO_FUNC and insn.target is not None:
        define(frame, insn.dst, Pointer(Kind.FUNC, frame=insn.target))
    else:
        raise Refusal(
            "unsupported",
            f"address of kernel symbol {insn.ref or insn.imm}",
            "this runtime has no kernel variables",
        )
    return index + 1


def jump(walk: Walk, state: State, frame: Frame, insn: Insn, index: int) -> int:
    """JA and GOTOL."""
    reserved(insn, insn.dst, insn.src, insn.off, insn.imm)
    assert insn.target is not None
    walk.jumps += 1
    return insn.target


def steps() -> dict[int, StepFunction]:
    """One function per opcode of ALU, memory and unconditional jumps."""
    table: dict[int, StepFunction] = {LD_IMM64: wide_immediate, JA: jump, GOTOL: jump}
    for op in OPCODES:
        cls = op & 7
        if cls in (Class.ALU, Class.ALU64):
            special = {Alu.MOV: move, Alu.NEG: negation, Alu.END: byte_swap}
            table[op] = special.get(Alu(op & 0xF0), arithmetic)
        elif cls == Class.LDX:
            table[op] = load
        elif cls in (Class.ST, Class.STX):
            table[op] = atomic if op & 0xE0 == Mode.ATOMIC else store
    return table
