"""A program as text at each stage: analogous to `bpftool prog dump xlated|jited`.

raw       as loaded, with its source lines
xlated    after the rewrites of ctx, maps and calls
batched   inside the trampoline
slices    which lookups --stage prefetches, and why others are not
llvm      LLVM IR after optimisation
jited     machine code
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from xdpbatch.disasm import disassemble
from xdpbatch.errors import UnsupportedError
from xdpbatch.isa import encode, slot_of
from xdpbatch.program import Program
from xdpbatch.rewrite import Xlated
from xdpbatch.rewrite.coverage import coverage
from xdpbatch.rewrite.form import Form
from xdpbatch.runtime import Stages

SOMEWHERE = 0x7F00_0000_0000  # a map's address, which only a run knows: of the usual length


def lines(program: Program, stage: str, form: Form, backend: str, opcodes: bool) -> Iterator[str]:
    """The lines of one stage. Raises VerifierError where the stage needs a safe program."""
    if stage == "raw":
        yield from _bpf(program, opcodes)
        return
    stages = Stages.of(program)
    if stage == "xlated":
        yield from _bpf(stages.xlated, opcodes)
    elif stage == "batched":
        yield from _bpf(form.around(stages.xlated), opcodes)
    elif stage == "slices":
        yield from coverage(stages.verified)
    elif stage == "llvm":
        from xdpbatch.jit.llvm import ir_text

        yield from ir_text(form.around(stages.xlated)).splitlines()
    else:
        yield from _machine(form.around(stages.xlated), backend, opcodes)


def _bpf(code: Program | Xlated, opcodes: bool) -> Iterator[str]:
    """BPF instructions, numbered by slot, under the names of their functions."""
    names = {subprog.start: subprog.name for subprog in code.subprogs}
    source: Mapping[int, object] = code.lines if isinstance(code, Program) else {}
    slots = slot_of(code.insns)
    raw = encode(code.insns)
    for i, text in enumerate(disassemble(code.insns)):
        if i in names:
            yield f"{names[i]}:"
        if i in source:
            yield f"; {getattr(source[i], 'text', '')}"
        yield f"{slots[i]:>5}: {text}"
        if opcodes:
            yield f"       {raw[8 * slots[i] : 8 * slots[i + 1]].hex(' ')}"


def _machine(code: Xlated, backend: str, opcodes: bool) -> Iterator[str]:
    if backend == "x86":
        from xdpbatch.jit import x86
        from xdpbatch.jit.disasm import listing

        x86.require_machine()
        natives, _keep = x86.bind(code)
        maps = dict.fromkeys(code.program.maps, SOMEWHERE)
        yield from listing(x86.assemble(code, maps, natives), opcodes).splitlines()
    elif backend == "llvm":
        from xdpbatch.jit.llvm import asm_text

        yield from asm_text(code).splitlines()
    else:
        raise UnsupportedError.of(
            "no-machine-code",
            f"backend {backend} makes no machine code",
            suggestion="use --backend llvm or x86",
        )
