"""Retpoline: an indirect jump that no branch predictor can be trained to send elsewhere.

Analogous to __x86_indirect_thunk_r11 of arch/x86/lib/retpoline.S, which a kernel built with
CONFIG_RETPOLINE uses for every indirect call; a driver paid it for each packet until the BPF
dispatcher (Linux 5.6) and the hardware's own mitigations. The jump is a return whose predicted
target is a loop that goes nowhere, so that every one is mispredicted. That is what the slides'
"less indirect calls" saved. It needs user shadow stacks to be off, as they are unless a process
asks for them.
"""

from __future__ import annotations

from xdpbatch.jit.code import Code
from xdpbatch.jit.x86 import require_machine
from xdpbatch.jit.x86_encode import Assembler, Gpr, Mem
from xdpbatch.jit.x86_link import Line, link


def retpoline(address: int) -> Code:
    """A function with the arguments and the result of the one at `address`, which it jumps to
    through a retpoline. Keep the returned Code, and what it jumps to, as long as it may be called.

    Raises UnsupportedError on a machine that is not x86-64.
    """
    require_machine()
    return Code(b"".join(line.code for line in thunk(address)))


def thunk(address: int) -> list[Line]:
    """Its instructions: r11 is free at a call in the C ABI, all argument registers are kept."""
    asm = Assembler()
    asm.move_imm(address, Gpr.R11)
    asm.call("target")
    asm.label("capture")
    asm.plain("pause")
    asm.plain("lfence")
    asm.jump("jmp", "capture")
    asm.label("target")
    asm.binary("mov", Gpr.R11, Mem(Gpr.RSP))
    asm.plain("retq")
    return link(asm.items)
