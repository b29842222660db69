"""Rule 3: what the verifier accepts breaks no rule of the checked interpreter.

Generated programs are safe; here they are damaged first. Most are refused then. Those that are
still accepted must run without an error, and the same on every backend.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import cycle, islice

from hypothesis import given, settings
from hypothesis import strategies as st

from xdpbatch.compare import compare
from xdpbatch.errors import ObjectError, VerifierError
from xdpbatch.isa import CALL, LD_IMM64, Insn
from xdpbatch.program import Object
from xdpbatch.testing import generate
from xdpbatch.verify import verify

ODD = (0, 1, -1, 3, 4, 7, 8, 16, 64, -8, -64, -72, 255, 4096)


@st.composite
def damaged(draw: st.DrawFn) -> str:
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


def accepted(text: str) -> Object | None:
    """The object if its program assembles and is accepted."""
    try:
        obj = generate.as_object(text)
        verify(obj.programs["prog"])
    except (ObjectError, VerifierError):
        return None
    return obj


@given(damaged(), generate.packets())
@settings(max_examples=settings().max_examples * 2)
def test_accepted_programs_break_no_rule(text: str, packets: list[bytes]) -> None:
    obj = accepted(text)
    if obj is None:
        return
    report = compare(
        obj, islice(cycle(packets), 20), against=("interp", "single", "x86"), batch_sizes=(3, 64)
    )
    assert report.difference is None, f"{report.difference}\n{text}"


@given(generate.texts(least=4), st.data(), generate.packets())
@settings(max_examples=settings().max_examples * 2)
def test_accepted_after_damage_to_a_field(
    text: str, data: st.DataObject, packets: list[bytes]
) -> None:
    """The same with fields of instructions changed, whatever an assembler would say."""
    obj = generate.as_object(text)
    one = obj.programs["prog"]
    insns = list(one.insns)
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(insns) - 1))
        insns[at] = _damaged(data, insns[at], insns)
    changed = replace(one, insns=tuple(insns))
    obj = replace(obj, programs={"prog": changed})
    try:
        verify(changed)
    except VerifierError:
        return
    report = compare(
        obj, islice(cycle(packets), 20), against=("interp", "single", "x86"), batch_sizes=(64,)
    )
    assert report.difference is None, f"{report.difference}\n{changed.insns}"


def _damaged(data: st.DataObject, insn: Insn, insns: list[Insn]) -> Insn:
    """One field changed, into something that a loader could have read."""
    field = data.draw(st.sampled_from(("dst", "src", "off", "imm", "op")))
    if field == "src" and insn.op in (LD_IMM64, CALL):
        return insn  # says what `ref` and `target` are
    register, odd = data.draw(st.integers(0, 10)), data.draw(st.sampled_from(ODD))
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
    return replace(insn, op=data.draw(st.sampled_from(alike))) if plain else insn
