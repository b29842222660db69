"""Programs in assembly with what the rewrites must make of each: `rewrite/*.bpf`.

A file holds cases; each is `;; case NAME`, a program, and the expected listing (as `xdpbatch dump`
prints it) after `;; xlated` or `;; batched`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from xdpbatch import asm
from xdpbatch.isa import slot_of
from xdpbatch.rewrite import Xlated, xlate
from xdpbatch.rewrite.batch import batch
from xdpbatch.verify import verify


@dataclass
class Case:
    name: str
    parts: dict[str, list[str]] = field(default_factory=dict)


def cases() -> Iterator[Case]:
    for path in sorted((Path(__file__).parent / "rewrite").glob("*.bpf")):
        case: Case | None = None
        part: list[str] = []
        for line in path.read_text().splitlines():
            if found := re.fullmatch(r";; case ([\w-]+)", line):
                if case is not None:
                    yield case
                case, part = Case(f"{path.stem}-{found[1]}"), []
                case.parts["program"] = part
            elif case is not None and (found := re.fullmatch(r";; (xlated|batched)", line)):
                part = case.parts.setdefault(found[1], [])
            elif line.strip():
                part.append(line)
        assert case is not None, f"{path} holds no case"
        yield case


CASES = list(cases())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_listing(case: Case) -> None:
    xlated = xlate(verify(asm.program("\n".join(case.parts["program"]))))
    expected = {name: text for name, text in case.parts.items() if name != "program"}
    assert expected, "nothing is expected of this case"
    for stage, text in expected.items():
        code = batch(xlated) if stage == "batched" else xlated
        assert list(listing(code)) == text


def listing(code: Xlated) -> Iterator[str]:
    """Each function's name, then its instructions behind their slots."""
    names = {subprog.start: subprog.name for subprog in code.subprogs}
    slots = slot_of(code.insns)
    for i, line in enumerate(asm.disassemble(code.insns)):
        if i in names:
            yield f"{names[i]}:"
        yield f"{slots[i]:>5}: {line}"
