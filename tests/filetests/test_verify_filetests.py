"""Programs in assembly with what the verifier must say of each: `verify/*.bpf`.

A file holds cases; each starts with `;; case NAME: ok` or `;; case NAME: error[CODE] at INSN` and
may say more in lines that start with `;;`:

    reason: TEXT          part of the error's reason
    fact INSN: WORDS      region (or Called), offset, map of an instruction's fact
    reached: INSNS        exactly the instructions that a path reaches
    depth: BYTES ...      stack of each function
    zero_stack: OFFSETS   slots of the first function that are read before they are written
    kernel: WHY           the running kernel may decide otherwise, for this reason

With root, each program is also given to the running kernel, which must decide the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from xdpbatch import asm
from xdpbatch.errors import VerifierError
from xdpbatch.facts import Access, Called
from xdpbatch.program import Object, Program
from xdpbatch.sys.kernel import KernelObject
from xdpbatch.verify import verify


@dataclass
class Case:
    name: str
    expected: str
    said: dict[str, str] = field(default_factory=dict)
    text: list[str] = field(default_factory=list)

    @property
    def program(self) -> Program:
        return asm.program("\n".join(self.text), name="prog")


def cases() -> Iterator[Case]:
    for path in sorted((Path(__file__).parent / "verify").glob("*.bpf")):
        case: Case | None = None
        for line in path.read_text().splitlines():
            if found := re.fullmatch(r";; case ([\w-]+): (.*)", line):
                if case is not None:
                    yield case
                case = Case(f"{path.stem}-{found[1]}", found[2])
            elif case is not None and (found := re.fullmatch(r";; ([a-z_]+(?: \d+)?):(.*)", line)):
                case.said[found[1]] = found[2].strip()
            elif case is not None:
                case.text.append(line)
        assert case is not None, f"{path} holds no case"
        yield case


CASES = list(cases())
assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_verdict(case: Case) -> None:
    if case.expected != "ok":
        with pytest.raises(VerifierError) as caught:
            verify(case.program)
        error = caught.value.diagnostics[0]
        found = f"error[{error.code}] at {re.findall(r'insn ([0-9]+)', error.where)[0]}"
        assert case.expected in (found, f"error[{error.code}]"), str(error)
        assert case.said.get("reason", "") in error.reason
        return
    verified = verify(case.program)
    for key, words in case.said.items():
        if key.startswith("fact "):
            assert describe(verified.program.insns[int(key[5:])].fact) == words
        elif key == "reached":
            assert sorted(verified.reached) == [int(word) for word in words.split()]
        elif key == "depth":
            assert verified.stack_depth == tuple(int(word) for word in words.split())
        elif key == "zero_stack":
            assert verified.zero_stack[0] == tuple(int(word) for word in words.split())
        else:
            assert key == "kernel", f"unknown expectation {key}"


def describe(fact: Access | Called | None) -> str:
    if isinstance(fact, Access):
        return f"{fact.region.name} {fact.offset} {fact.map or ''}".strip()
    return f"Called {fact.map}" if fact is not None else "none"


@pytest.mark.kernel
@pytest.mark.parametrize(
    "case", [case for case in CASES if "kernel" not in case.said], ids=lambda case: case.name
)
def test_the_kernel_decides_the_same(case: Case) -> None:
    program = case.program
    try:
        KernelObject(Object("", {"prog": program}, program.maps)).program("prog")
        accepted, log = True, ""
    except VerifierError as error:
        accepted, log = False, str(error)
    assert accepted == (case.expected == "ok"), log
