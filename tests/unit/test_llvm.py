"""The LLVM backend: what is not the meaning of an instruction (test_conformance has those)."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xdpbatch import asm
from xdpbatch.data.buff import RXQ_INFO, XDP_BUFF
from xdpbatch.data.layout import address_of, aligned
from xdpbatch.errors import UnsupportedError
from xdpbatch.facts import Access, Called, Region
from xdpbatch.interp import Interpreter
from xdpbatch.interp import Region as Memory
from xdpbatch.isa import CALL, MASK64, NATIVE_CALL, Alu, Class, Insn
from xdpbatch.jit import Compiled, llvm
from xdpbatch.mem import load64, store64
from xdpbatch.native import Argument, Field, Hidden, Native, NativeCall, Reg, native
from xdpbatch.rewrite import Xlated
from xdpbatch.rewrite.batch import batch
from xdpbatch.testing.conformance import bare_program

U64 = ctypes.c_uint64


@native
def mix(buff: int, a: int, b: int, c: int) -> int:
    return ((buff & 0xFFFF) << 32) + (a << 16) + (b << 8) + c


@native
def sum_of_two(address: int) -> int:
    return load64(address) + load64(address + 8)


@native
def write_twice(address: int, value: int) -> int:
    store64(address, value)
    store64(address + 8, value)
    return 0


def xlated(text: str, *depths: int) -> Xlated:
    program = asm.program(text)
    return Xlated(program, program.insns, program.subprogs, depths or (0,))


def calling(before: Xlated, index: int, function: Native, *arguments: Argument) -> Xlated:
    """`before` with a native call in the place of an instruction; r2 is known to be the stack."""
    fact = Called(args=(None, Access(Region.STACK, -16), None, None, None))
    call = Insn(CALL, src=NATIVE_CALL, native=NativeCall(function, arguments), fact=fact)
    insns = (*before.insns[:index], call, *before.insns[index + 1 :])
    return replace(before, insns=insns)


def run(code: Compiled, *arguments: int) -> int:
    kind = ctypes.CFUNCTYPE(U64, U64, U64, U64)
    return int(kind(code.address)(*[*arguments, 0, 0, 0][:3]))


def test_every_kind_of_argument() -> None:
    memory = aligned(64)
    memory.view("<u4")[:3] = 0, 0, 0x21
    before = xlated("r6 = 7\nr7 = r1\nr0 = 0\nexit")
    program = calling(before, 2, mix, Hidden.BUFF, Reg(6), Field(7, 8), 5)
    buff = address_of(memory)
    assert run(llvm.compile(program, {}), buff) == ((buff & 0xFFFF) << 32) + 0x7_2105


def test_stack_arguments_are_seen_by_native_functions() -> None:
    text = "*(u64 *)(r10 - 16) = 40\n*(u64 *)(r10 - 8) = 2\nr2 = r10\nr2 += -16\nr0 = 0\nexit"
    program = calling(xlated(text, 16), 4, sum_of_two, Reg(2))
    assert run(llvm.compile(program, {})) == 42
    assert "call" not in llvm.ir_text(program)


def test_stack_that_a_native_function_writes() -> None:
    text = """
        *(u64 *)(r10 - 16) = 1
        *(u64 *)(r10 - 8) = 2
        r2 = r10
        r2 += -16
        r3 = 21
        r0 = 0
        r0 = *(u64 *)(r10 - 16)
        r1 = *(u64 *)(r10 - 8)
        r0 += r1
        exit
    """
    program = calling(xlated(text, 16), 5, write_twice, Reg(2), Reg(3))
    assert run(llvm.compile(program, {})) == 42


def test_facts_find_the_stack_whatever_the_register() -> None:
    """With the offset known, the stack is not memory any more."""
    plain = xlated("r6 = r10\nr6 += -8\n*(u64 *)(r6 + 0) = 5\nr0 = *(u64 *)(r10 - 8)\nexit", 8)
    insns = list(plain.insns)
    insns[2] = replace(insns[2], fact=Access(Region.STACK, -8))
    program = replace(plain, insns=tuple(insns))
    assert run(llvm.compile(program, {})) == 5
    assert "ret i64 5" in llvm.ir_text(program)
    assert "alloca" not in llvm.ir_text(program)


def test_functions_get_the_current_packet() -> None:
    before = xlated("r1 = 3\ncall f\nexit\nf: r6 = r1\nr0 = 0\nexit", 0, 0)
    program = batch(calling(before, 4, mix, Hidden.BUFF, Reg(6), 0, 0))
    buffs = XDP_BUFF.array(4)
    code = llvm.compile(program, {})
    assert run(code, address_of(buffs), 3) == 0
    assert list(buffs["act"]) == [3 << 16, 3 << 16, 3 << 16, 0]  # the low half: u32


@pytest.mark.parametrize("n", [0, 1, 2, 63, 64, 65])
def test_as_many_packets_as_asked(n: int) -> None:
    text = "r0 = *(u64 *)(r1 + 32)\nif r0 & 1 goto odd\nr0 += 100\nexit\nodd: exit"
    buffs = XDP_BUFF.array(66)
    buffs["handle"] = range(66)
    buffs["act"] = 9
    run(llvm.compile(batch(xlated(text)), {}), address_of(buffs), n)
    want = [i if i % 2 else i + 100 for i in range(n)]
    assert list(buffs["act"]) == want + [9] * (66 - n)


def test_addresses_of_maps() -> None:
    """They are filled in when code is loaded, wherever maps are; `imm` is added."""
    program = xlated("r0 = map[far] ll\nr1 = map[near] ll\nr0 -= r1\nexit")
    insns = (replace(program.insns[0], imm=136), *program.insns[1:])
    program = replace(program, insns=insns)
    for far, near in ((1 << 46, 4096), (8192, 8192 + (1 << 40))):
        assert run(llvm.compile(program, {"far": far, "near": near})) == (far + 136 - near) & MASK64


def test_two_names_of_one_map() -> None:
    text = """
        r6 = map[one] ll
        r7 = map[two] ll
        *(u64 *)(r6 + 0) = 1
        *(u64 *)(r7 + 0) = 2
        r0 = *(u64 *)(r6 + 0)
        exit
    """
    memory = aligned(64)
    address = address_of(memory)
    assert run(llvm.compile(xlated(text), {"one": address, "two": address})) == 2
    other = aligned(64)
    assert run(llvm.compile(xlated(text), {"one": address, "two": address_of(other)})) == 1


@pytest.mark.parametrize("name", ['a"b', "x\ndefine i64 @f() {", "\\00", "ünïcode", "a b", ""])
def test_names_of_an_object_are_harmless(name: str) -> None:
    program = xlated("r0 = map[m] ll\ncall f\nexit\nf: exit", 0, 0)
    insns = (replace(program.insns[0], ref=name), *program.insns[1:])
    subprogs = tuple(replace(subprog, name=name) for subprog in program.subprogs)
    named = replace(program.program, name=name)
    hostile = replace(program, program=named, insns=insns, subprogs=subprogs)
    before = llvm.compile(hostile, {name: 4096})
    assert before.address


def test_callbacks_are_called_by_address() -> None:
    text = "r6 = func[f] ll\nr1 = 20\ncallx r6\nexit\nf: r0 = r1\nr0 += 22\nexit"
    assert run(llvm.compile(xlated(text, 0, 0), {})) == 42


def test_helpers_by_number_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="the program calls helper 6"):
        llvm.compile(xlated("call 6\nexit"), {})
    with pytest.raises(UnsupportedError, match="the program calls helper 6"):
        llvm.compile_bare(bare_program(asm.assemble("call 6\nexit")))


def test_texts() -> None:
    program = batch(xlated("r0 = 1\nexit"))
    assert "define noundef i64 @xdpbatch.entry" in llvm.ir_text(program)
    assert "insn7:" in llvm.ir_text(program, optimised=False)
    assert "xdpbatch.entry:" in llvm.asm_text(program)
    assert llvm.compile(program, {}).size > 10


def test_second_start_loads_only() -> None:
    """Another process finds the object in the cache; it needs neither numba nor LLVM's passes."""
    llvm.compile(calling(xlated("r2 = r1\nr0 = 0\nexit"), 1, sum_of_two, Reg(2)), {})
    code = """
import sys
from test_llvm import *
from xdpbatch.jit import engine
engine.optimise = None
llvm.compile(calling(xlated("r2 = r1\\nr0 = 0\\nexit"), 1, sum_of_two, Reg(2)), {})
assert "numba" not in sys.modules
"""
    folder = __file__.rpartition("/")[0]
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)


REGISTERS = st.integers(0, 9)
IMMEDIATES = st.one_of(st.integers(-(2**31), 2**31 - 1), st.integers(-70, 70))
OPERATIONS = [op for op in Alu if op not in (Alu.END, Alu.NEG)]
SIGNED = (Alu.DIV, Alu.MOD)


@st.composite
def arithmetic(draw: st.DrawFn) -> Insn:
    """Any ALU or ALU64 instruction."""
    cls, dst = draw(st.sampled_from([Class.ALU, Class.ALU64])), draw(REGISTERS)
    op = draw(st.sampled_from(list(Alu)))
    if op == Alu.NEG:
        return Insn(cls | op, dst)
    if op == Alu.END:
        source = draw(st.sampled_from([0, 8])) if cls == Class.ALU else 0
        return Insn(cls | op | source, dst, imm=draw(st.sampled_from([16, 32, 64])))
    off = draw(st.sampled_from([0, 1])) if op in SIGNED else 0
    if draw(st.booleans()):
        if op == Alu.MOV:
            off = draw(st.sampled_from([0, 8, 16] if cls == Class.ALU else [0, 8, 16, 32]))
        return Insn(cls | op | 8, dst, draw(REGISTERS), off)
    return Insn(cls | op, dst, off=off, imm=draw(IMMEDIATES))


VALUES = st.one_of(
    st.integers(0, MASK64),
    st.sampled_from([0, 1, MASK64, 1 << 63, (1 << 63) - 1, 1 << 31, (1 << 32) - 1, 1 << 32]),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(arithmetic(), min_size=1, max_size=40),
    st.lists(st.lists(VALUES, min_size=10, max_size=10), min_size=1, max_size=5),
)
def test_arithmetic_is_the_interpreters(body: list[Insn], inputs: list[list[int]]) -> None:
    """Any sequence of ALU instructions on any registers: the hash of all results agrees."""
    start = "".join(f"r{i} = *(u64 *)(r1 + {8 * i})\n" for i in (0, *range(2, 10)))
    end = "".join(f"r0 *= 31\nr0 ^= r{i}\n" for i in range(1, 10))
    text = start + "r1 = *(u64 *)(r1 + 8)\n"
    program = bare_program([*asm.assemble(text), *body, *asm.assemble(end + "exit")])
    code = llvm.compile_bare(program)
    memory = aligned(80).view("<u8")
    address = address_of(memory)
    for values in inputs:
        memory[:10] = values
        want = Interpreter(program).call((address, 80), [Memory(address, address + 80)])
        assert run(code, address, 80) == want


def test_nothing_is_carried_between_packets() -> None:
    """A packet's registers and stack are undefined at the next: LLVM keeps nothing alive for it."""
    text = "*(u64 *)(r10 - 8) = r1\nr6 = *(u64 *)(r10 - 8)\nr0 = *(u32 *)(r6 + 32)\nexit"
    rxq = RXQ_INFO.array(1)
    buffs = XDP_BUFF.array(2)
    buffs["rxq"] = address_of(rxq)
    buffs["handle"] = 7, 8
    program = batch(xlated(text, 8))
    run(llvm.compile(program, {}), address_of(buffs), 2)
    assert list(buffs["act"]) == [7, 8]
    assert "alloca" not in llvm.ir_text(program)
