"""Calls of native functions from BPF code: arguments into the registers of the C ABI.

BPF's r1-r5 are the first five argument registers of the System V ABI, so Linux's JIT moves nothing.
Here a native function may also take the hidden XdpBuff, fields of a map and constants, in any
order and number: each argument is one move, and all moves happen at once.

Before: NATIVE_CALL lookup(r1, r2, 4, 8)
After:  mov $0x4,%edx    mov $0x8,%ecx    movabs $lookup,%rax    callq *%rax
"""

from __future__ import annotations

from collections.abc import Sequence

from xdpbatch.jit.x86_encode import Assembler, Gpr, Mem
from xdpbatch.native import Argument, Field, Hidden, Reg

BPF_REG = (
    Gpr.RAX,
    Gpr.RDI,
    Gpr.RSI,
    Gpr.RDX,
    Gpr.RCX,
    Gpr.R8,
    Gpr.RBX,
    Gpr.R13,
    Gpr.R14,
    Gpr.R15,
    Gpr.RBP,
)  # r0 to r10: reg2hex[] of bpf_jit_comp.c
AX, AUX = Gpr.R10, Gpr.R11  # scratch, never live between two BPF instructions
BUFF = Gpr.R12  # the current XdpBuff, in programs that make calls
ARGUMENTS = (Gpr.RDI, Gpr.RSI, Gpr.RDX, Gpr.RCX, Gpr.R8, Gpr.R9)

Source = Gpr | Mem | int


def call(asm: Assembler, function: int, arguments: Sequence[Argument]) -> None:
    """Call native code at address `function`; the stack is 16-byte aligned before and after."""
    sources = [_source(argument) for argument in arguments]
    on_stack = sources[len(ARGUMENTS) :]
    padding = len(on_stack) % 2
    for source in [0] * padding + on_stack[::-1]:
        _move(asm, source, AUX)
        asm.push(AUX)
    _parallel_move(asm, dict(zip(ARGUMENTS, sources, strict=False)))
    asm.move_imm(function, Gpr.RAX)
    asm.call_reg(Gpr.RAX)
    if on_stack:
        asm.binary("add", 8 * (len(on_stack) + padding), Gpr.RSP)


def _source(argument: Argument) -> Source:
    if isinstance(argument, Reg):
        return BPF_REG[argument.number]
    if isinstance(argument, Field):
        return Mem(BPF_REG[argument.register], argument.offset)
    return BUFF if argument is Hidden.BUFF else int(argument)


def _parallel_move(asm: Assembler, moves: dict[Gpr, Source]) -> None:
    """Every destination gets what its source held before the first move.

    A move is safe when no other move still reads its destination; if none is, there is a
    cycle, and one register steps aside into AUX.
    """
    waiting = {to: source for to, source in moves.items() if source is not to}
    while waiting:
        read = {to: _register(source) for to, source in waiting.items()}
        free = [to for to in waiting if all(r is not to or d is to for d, r in read.items())]
        if free:
            _move(asm, waiting.pop(free[0]), free[0])
            continue
        aside = next(iter(waiting))
        asm.binary("mov", aside, AUX)
        waiting = {to: _renamed(source, aside) for to, source in waiting.items()}


def _register(source: Source) -> Gpr | None:
    return source.base if isinstance(source, Mem) else source if isinstance(source, Gpr) else None


def _renamed(source: Source, old: Gpr) -> Source:
    if isinstance(source, Mem) and source.base is old:
        return Mem(AUX, source.off)
    return AUX if source is old else source


def _move(asm: Assembler, source: Source, to: Gpr) -> None:
    if isinstance(source, Mem):
        asm.load(source, to, 32)
    elif isinstance(source, Gpr):
        asm.binary("mov", source, to)
    else:
        asm.move_imm(source, to)
