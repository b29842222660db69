"""Listings of machine code in AT&T syntax, as `bpftool prog dump jited` prints them.

What the x86 backend made is listed by its own assembler's text, which is objdump's of the slides'
time: `leaveq`, `retq`, `pushq $0x0`.
"""

from __future__ import annotations

from collections.abc import Iterable

from xdpbatch.jit.x86_link import Line


def listing(lines: Iterable[Line], opcodes: bool = False) -> str:
    """One line for each instruction: offset, text, and with `opcodes` the bytes."""
    return "".join(f"{_line(line, opcodes)}\n" for line in lines)


def _line(line: Line, opcodes: bool) -> str:
    head = f"{line.offset:4x}:"
    return f"{head} {line.code.hex(' '):<30} {line.text}" if opcodes else f"{head} {line.text}"
