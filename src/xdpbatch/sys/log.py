"""The log of the kernel's verifier, in the shape of this project's errors.

The log (print_verifier_state and verbose() of kernel/bpf/verifier.c) is text for people: a line per
instruction walked, with the registers that changed; then, unnumbered, what was wrong; then figures.
"""

from __future__ import annotations

import re

from xdpbatch.errors import Diagnostic
from xdpbatch.program import Program
from xdpbatch.verify.explain import place

WALKED = re.compile(r"(\d+): \([0-9a-f]{2}\) ")
FIGURES = ("processed ", "verification time ", "stack depth ", "cur state:", "old state:")
SHOWN = 8  # instructions of the log before the refusal


def refusal(program: Program, log: str, errno: str) -> Diagnostic:
    """Why the kernel refused the program; `errno` is what bpf(2) came back with."""
    lines = [line for line in log.strip().splitlines() if not line.startswith(FIGURES)]
    walked = [i for i, line in enumerate(lines) if WALKED.match(line)]
    last = walked[-1] if walked else -1
    said = [line for line in lines[last + 1 :] if line and not line.startswith(";")]
    found = WALKED.match(lines[last]) if walked else None
    index = _index(program, int(found[1])) if found else None
    return Diagnostic(
        "kernel-verifier",
        f"the kernel refuses program {program.name}" + (f": {said[0]}" if said else ""),
        where=f"program {program.name} (section {program.section})"
        if index is None
        else place(program, index),
        source=program.source_at(index) if index is not None else None,
        reason="; ".join([*said[1:], errno]),
        notes=tuple(lines[i] for i in walked[-SHOWN:]),
    )


def _index(program: Program, slot: int) -> int | None:
    """The instruction at a slot of 8 bytes, as the kernel counts."""
    at = 0
    for index, insn in enumerate(program.insns):
        if at >= slot:
            return index
        at += insn.slots
    return None
