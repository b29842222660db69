"""A plugin for the public bpf_conformance suite: runs one bare BPF program and prints its r0.

    python -m xdpbatch.testing.conformance [MEMORY_HEX] [--elf] [--backend interp|llvm|x86]

The program comes as hex bytes on standard input (with --elf: an ELF object in hex), the memory as
hex bytes in one argument. r1 is the memory, r2 its length. r0 is printed as hex; an error goes to
standard error and the exit status is 1. Analogous to libbpf_plugin of that suite, without a kernel.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from xdpbatch.errors import XdpBatchError
from xdpbatch.interp import Frame, Interpreter, Region
from xdpbatch.isa import BPF_CALL, CALL, LD_IMM64, MASK64, PSEUDO_FUNC, Insn, decode
from xdpbatch.program import Program, Subprog

if TYPE_CHECKING:
    from xdpbatch.jit import Compiled

UNWIND = 5  # the suite's own helper: returns its argument, and ends the program if that is 0
BUDGET = 1_000_000  # instructions: a program that runs longer is taken for one that hangs


class UnwindError(Exception):
    """The program ended inside a helper."""


def bare_program(insns: Sequence[Insn], name: str = "program") -> Program:
    """Instructions without an object around them; functions start where calls go."""
    starts = {0, len(insns)}
    for insn in insns:
        if (insn.op, insn.src) in ((CALL, BPF_CALL), (LD_IMM64, PSEUDO_FUNC)):
            assert insn.target is not None
            starts.add(insn.target)
    bounds = sorted(starts)
    subprogs = tuple(Subprog(f"{name}.{a}", a, b) for a, b in pairwise(bounds))
    return Program(name, ".text", tuple(insns), subprogs, {}, license="GPL")


def unwind(machine: Interpreter, frame: Frame, number: int) -> int:
    """Helper 5; there is no other."""
    if number != UNWIND:
        raise machine.error(frame, f"there is no helper {number}")
    if frame.r[1] == 0:
        raise UnwindError
    return frame.r[1]


Function = Callable[[int, int], int]  # r1, r2 -> r0


def interp(program: Program) -> Function:
    """A bare program in the interpreter."""
    machine = Interpreter(program, helper=unwind, budget=BUDGET)
    # call_local.data stores 8 bytes at r10 - 4: half of it lies above the first frame.
    overhang = Region(machine.stack_end - 8, machine.stack_end + 8)

    def function(memory: int, size: int) -> int:
        try:
            return machine.call((memory, size), [Region(memory, memory + size), overhang])
        except UnwindError:
            return 0

    return function


class NativeFunction:
    """A bare program as native code. It is not verified: what it does to memory is its affair."""

    def __init__(self, compiled: Compiled) -> None:
        self.compiled = compiled  # keeps the code mapped
        signature = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)
        self.function = signature(self.compiled.address)

    def __call__(self, memory: int, size: int) -> int:
        return int(self.function(memory, size))


def llvm(program: Program) -> Function:
    """A bare program compiled by LLVM."""
    from xdpbatch.jit.llvm import compile_bare

    return NativeFunction(compile_bare(program))


def x86(program: Program) -> Function:
    """A bare program compiled by the x86-64 backend."""
    from xdpbatch.jit import x86
    from xdpbatch.testing.bare import bare

    return NativeFunction(x86.compile(bare(program, UNWIND), {}))


BACKENDS: dict[str, Callable[[Program], Function]] = {"interp": interp, "llvm": llvm, "x86": x86}


def run(function: Function, memory: bytes) -> int:
    """r0 of one run on a copy of `memory`."""
    buffer = ctypes.create_string_buffer(memory, len(memory) + 1)
    return function(ctypes.addressof(buffer), len(memory)) & MASK64


def run_object(raw: bytes, memory: bytes, backend: str) -> int:
    """r0 of the first program of an ELF object: an XDP program over `memory` as its packet.

    A program in .text without maps is taken for a bare one, as the suite makes them.
    """
    from xdpbatch import elf
    from xdpbatch.compare import side

    obj = elf.load(raw, name="standard input", sections=(".text",))
    program = next(iter(obj.programs.values()))
    if program.section == ".text" and not obj.maps:
        return run(BACKENDS[backend](program), memory)
    return side(backend, obj, program).run([memory])[0].verdict


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    parser = argparse.ArgumentParser(prog="xdpbatch-conformance", description=__doc__)
    parser.add_argument("memory", nargs="*", help="hex bytes, white space between")
    parser.add_argument("--elf", action="store_true", help="the program is an ELF object in hex")
    parser.add_argument("--backend", choices=BACKENDS, default="interp")
    options = parser.parse_args(arguments)
    try:
        memory = bytes.fromhex("".join(options.memory))
        code = bytes.fromhex(sys.stdin.read())
        if options.elf:
            result = run_object(code, memory, options.backend)
        else:
            result = run(BACKENDS[options.backend](bare_program(decode(code))), memory)
    except (XdpBatchError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{result:x}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
