"""Calls of native functions from x86 code: argument registers, stack arguments, alignment."""

from __future__ import annotations

import ctypes
import platform
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdpbatch.asm import assemble
from xdpbatch.isa import CALL, NATIVE_CALL, Insn
from xdpbatch.jit import x86
from xdpbatch.jit.x86_call import call
from xdpbatch.jit.x86_encode import Assembler, Gpr
from xdpbatch.jit.x86_link import link
from xdpbatch.mem import add64, load32, mul64
from xdpbatch.native import Argument, Field, Hidden, NativeCall, Reg, native
from xdpbatch.rewrite import Batched, Layout, Xlated
from xdpbatch.testing.conformance import bare_program

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the x86 backend needs an x86-64 machine"
)
MASK = (1 << 64) - 1


@native
def mix(a: int, b: int, c: int, d: int, e: int, f: int, g: int, h: int, i: int) -> int:
    """A different result for any two arguments that change places."""
    total = add64(mul64(a, 3), b)
    total = add64(mul64(total, 3), c)
    total = add64(mul64(total, 3), d)
    total = add64(mul64(total, 3), e)
    total = add64(mul64(total, 3), f)
    total = add64(mul64(total, 3), g)
    total = add64(mul64(total, 3), h)
    return add64(mul64(total, 3), i)


@native
def first_word(buff: int, factor: int) -> int:
    return mul64(load32(buff), factor)


def fold(values: list[int]) -> int:
    total = 0
    for value in values:
        total = total * 3 + value
    return total & MASK


REGISTERS = st.integers(0, 9)
ARGUMENT: st.SearchStrategy[Argument] = st.one_of(
    st.builds(Reg, REGISTERS),
    st.builds(Field, st.just(6), st.sampled_from([0, 4, 300])),
    st.builds(Field, st.just(1), st.sampled_from([0, 4])),
    st.sampled_from([Hidden.BUFF, 0, 1, -1, 1 << 40, 4096]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ARGUMENT, min_size=9, max_size=9))
def test_nine_arguments_of_every_kind(arguments: list[Argument]) -> None:
    memory = ctypes.create_string_buffer(struct.pack("<100I", *range(1000, 1100)), 400)
    base = ctypes.addressof(memory)
    setup = [f"r{r} = {r * 1111 + 5}" for r in (0, 2, 3, 4, 5, 7, 8, 9)]
    registers = {r: r * 1111 + 5 for r in range(10)} | {1: base, 6: base}
    insns = assemble("\n".join(["r6 = r1", *setup]))
    insns += [Insn(CALL, src=NATIVE_CALL, native=NativeCall(mix, tuple(arguments)))]
    insns += assemble("r0 += r7\nr0 += r8\nr0 += r9\nexit")
    program = bare_program(insns)
    code = x86.compile(Xlated(program, program.insns, program.subprogs, (0,)), {})
    got = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)(code.address)(base)

    def value(argument: Argument) -> int:
        if isinstance(argument, Reg):
            return registers[argument.number]
        if isinstance(argument, Field):
            return int(struct.unpack_from("<I", memory, argument.offset)[0])
        return base if argument is Hidden.BUFF else int(argument)

    kept = sum(registers[r] for r in (7, 8, 9))
    assert got == (fold([value(a) for a in arguments]) + kept) & MASK


def test_the_stack_is_aligned_at_calls() -> None:
    """For every stack depth and number of stack arguments: rsp is a multiple of 16."""
    probe = Assembler()  # returns its rsp at entry
    probe.binary("mov", Gpr.RSP, Gpr.RAX)
    probe.plain("retq")
    from xdpbatch.jit.code import Code

    function = Code(b"".join(line.code for line in link(probe.items)))
    for depth in (0, 8, 12, 16, 24, 500):
        for count in range(10):
            arguments = tuple(range(count))
            program = bare_program(
                [
                    Insn(CALL, src=NATIVE_CALL, native=NativeCall(mix, arguments)),
                    *assemble("exit"),
                ]
            )
            whole = Xlated(program, program.insns, program.subprogs, (depth,))
            lines = x86.assemble(whole, {}, {mix: function.address})
            code = Code(b"".join(line.code for line in lines))
            rsp = ctypes.CFUNCTYPE(ctypes.c_uint64)(code.address)()
            assert rsp % 16 == 8  # the return address is above it


def test_moves_are_as_few_as_the_arguments_allow() -> None:
    """The first five registers in order need none; a swap goes through one scratch register."""
    asm = Assembler()
    call(asm, 0x1234, [Reg(n) for n in range(1, 6)])
    assert [line.text for line in link(asm.items)] == ["mov $0x1234,%eax", "callq *%rax"]
    asm = Assembler()
    call(asm, 0x1234, [Reg(2), Reg(1), Hidden.BUFF])
    assert [line.text for line in link(asm.items)] == [
        "mov %r12,%rdx",
        "mov %rdi,%r11",
        "mov %rsi,%rdi",
        "mov %r11,%rsi",
        "mov $0x1234,%eax",
        "callq *%rax",
    ]


def test_batched_programs_pass_the_current_buff() -> None:
    """Also where the program has long overwritten its r1, and in its functions."""
    native_call = Insn(CALL, src=NATIVE_CALL, native=NativeCall(first_word, (Hidden.BUFF, 7)))
    insns = assemble("""
      *(u64 *)(r10 - 16) = r1
      *(u64 *)(r10 - 8) = r2
    body:
      if r2 == 0 goto out
      r1 = 0
      call function
      r1 = *(u64 *)(r10 - 16)
      r2 = *(u64 *)(r10 - 8)
      *(u32 *)(r1 + 48) = r0
      r1 += 56
      r2 += -1
      *(u64 *)(r10 - 16) = r1
      *(u64 *)(r10 - 8) = r2
      goto body
    out:
      exit
    function:
      r0 = 0
      exit
    """)
    insns[-2] = native_call
    program = bare_program(insns)
    whole = Batched(
        program, program.insns, program.subprogs, (16, 0), Layout.BATCH, body=2, buff_slot=-16
    )
    buffs = ctypes.create_string_buffer(56 * 5)
    for i in range(5):
        struct.pack_into("<I", buffs, 56 * i, 10 + i)
    code = x86.compile(whole, {})
    kind = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)
    kind(code.address)(ctypes.addressof(buffs), 5)
    acts = [struct.unpack_from("<I", buffs, 56 * i + 48)[0] for i in range(5)]
    assert acts == [7 * (10 + i) for i in range(5)]
