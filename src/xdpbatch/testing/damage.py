"""Damaged programs: generated ones with a few lines or fields changed. Hypothesis strategies.

Analogous to the mutations of a fuzzer like syzkaller. Most are refused then; that those still
accepted are safe, and accepted by the kernel too, is what tests ask.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import strategies as st

from xdpbatch.isa import CALL, LD_IMM64, Insn
from xdpbatch.testing import generate

__all__ = ["fields", "texts"]

ODD = (0, 1, -1, 3, 4, 7, 8, 16, 64, -8, -64, -72, 255, 4096)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """A generated program with one to three lines dropped, doubled, swapped or changed."""
    lines = draw(generate.texts(least=4, most=12)).splitlines()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(1, len(lines) - 1))
        kind = draw(st.sampled_from(("drop", "double", "number", "register", "size", "swap")))
        if kind == "drop":
            del lines[at]
        elif kind == "double" and not lines[at].endswith(":"):
            lines.insert(at, lines[at])
        elif kind == "number":
            lines[at] = _replaced(draw, r"(?<![\w#])-?\d+\b(?! ll)", lines[at], ODD)
        elif kind == "register":
            lines[at] = _replaced(draw, r"\br\d+\b", lines[at], [f"r{n}" for n in range(11)])
        elif kind == "size":
            lines[at] = _replaced(draw, r"(?<=\(u)(8|16|32|64)\b", lines[at], (8, 16, 32, 64))
        else:
            lines[at - 1], lines[at] = lines[at], lines[at - 1]
    return "\n".join(lines)


def _replaced(
    draw: st.DrawFn, pattern: str, line: str, choices: tuple[int, ...] | list[str]
) -> str:
    """One match of the pattern in the line replaced by one of the choices."""
    found = list(re.finditer(pattern, line))
    if not found:
        return line
    match = draw(st.sampled_from(found))
    return line[: match.start()] + str(draw(st.sampled_from(choices))) + line[match.end() :]


@st.composite
def fields(draw: st.DrawFn, insns: Sequence[Insn]) -> tuple[Insn, ...]:
    """Instructions of which one or two have a field changed, whatever an assembler would say."""
    out = list(insns)
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(out) - 1))
        out[at] = _changed(draw, out[at], out)
    return tuple(out)


def _changed(draw: st.DrawFn, insn: Insn, insns: Sequence[Insn]) -> Insn:
    """One field changed, into something that a loader could have read."""
    field = draw(st.sampled_from(("dst", "src", "off", "imm", "op")))
    if field == "src" and insn.op in (LD_IMM64, CALL):
        return insn  # says what `ref` and `target` are
    register, odd = draw(st.integers(0, 10)), draw(st.sampled_from(ODD))
    match field:
        case "dst":
            return replace(insn, dst=register)
        case "src":
            return replace(insn, src=register)
        case "off":
            return replace(insn, off=odd)
        case "imm":
            return replace(insn, imm=odd)
    alike = [i.op for i in insns if (i.target, i.ref) == (None, None) and i.op != LD_IMM64]
    plain = insn.target is None and insn.op != LD_IMM64
    return replace(insn, op=draw(st.sampled_from(alike))) if plain else insn
