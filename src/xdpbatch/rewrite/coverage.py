"""Which lookups of a program its slice covers, with their source lines, or why it does not.

Analogous to the optimisation remarks of a compiler (-Rpass, -Rpass-missed): `xdpbatch dump slices`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from xdpbatch.helpers import helpers
from xdpbatch.isa import BPF_CALL, CALL, HELPER_CALL, Insn
from xdpbatch.program import Program
from xdpbatch.rewrite.patch import Code
from xdpbatch.rewrite.slice import Part, Role, parts, successors
from xdpbatch.rewrite.stage import staged
from xdpbatch.verify import Verified

NEVER = Part(Role.ENDS, "no path of the program comes here")


def coverage(verified: Verified) -> Iterator[str]:
    """The lines of `dump slices`: the slice as a whole, then each lookup in the program's order."""
    program = verified.program
    code = Code(program.insns, program.subprogs, verified.stack_depth)
    roles = parts(code, program.maps)
    roles = [part if i in verified.reached else NEVER for i, part in enumerate(roles)]
    whole = staged(verified)
    if whole.code is None:
        yield f"{program.name} has no slice: {whole.why}"
    else:
        count = len(whole.code.insns)
        yield f"{program.name}: a slice of {count} instructions, run in {whole.passes} passes"
    before = reached(code, roles)
    for i, insn in enumerate(code.insns):
        if i in verified.reached and _is_lookup(insn):
            covered = i in before and roles[i].role is Role.STAGED and whole.code is not None
            yield ""
            yield f"{_place(program, i)}: {_verdict(i, roles, before, covered)}"
            if covered:
                yield from _lines(program, code, roles, before, i)
            elif i not in before:
                ends = [j for j in sorted(before) if roles[j].role is Role.ENDS]
                yield from (f"    {_place(program, j)}: {roles[j].why}" for j in ends)


def reached(code: Code, roles: Sequence[Part]) -> set[int]:
    """Instructions that a slice may come to."""
    found: set[int] = set()
    waiting = [0]
    while waiting:
        i = waiting.pop()
        if i in found:
            continue
        found.add(i)
        if roles[i].role is Role.ENDS:
            continue
        insn = code.insns[i]
        waiting += successors(code, i)
        if insn.op == CALL and insn.src == BPF_CALL and insn.target is not None:
            waiting.append(insn.target)
    return found


def _is_lookup(insn: Insn) -> bool:
    helper = helpers().get(insn.imm) if insn.op == CALL and insn.src == HELPER_CALL else None
    return helper is not None and helper.op == "lookup"


def _verdict(i: int, roles: Sequence[Part], before: set[int], covered: bool) -> str:
    if i not in before:
        return "not covered, the slice ends before it"
    if covered:
        return f"covered: {roles[i].why}"
    if roles[i].role is Role.KEPT:
        return f"done without prefetching: {roles[i].why}"
    return f"not covered: {roles[i].why}"


def _lines(
    program: Program, code: Code, roles: Sequence[Part], before: set[int], lookup: int
) -> Iterator[str]:
    """The source lines on the way to a lookup, as far as the slice has them."""
    kept = {i for i in _leading_to(code, roles, lookup) & before if roles[i].role is Role.KEPT}
    places = {program.source_at(i) for i in kept | {lookup}} - {None}
    unique = {replace(place, col=0) for place in places if place is not None}
    for place in sorted(unique, key=lambda place: (place.file, place.line)):
        yield f"    {place.file}:{place.line:<5} {place.text.strip()}"


def _leading_to(code: Code, roles: Sequence[Part], goal: int) -> set[int]:
    """Instructions from which control can come to `goal`, through the callers of its function."""
    before: list[list[int]] = [[] for _ in code.insns]
    for i, insn in enumerate(code.insns):
        if roles[i].role is not Role.ENDS:
            for after in successors(code, i):
                before[after].append(i)
            if insn.op == CALL and insn.src == BPF_CALL and insn.target is not None:
                before[insn.target].append(i)
    found: set[int] = set()
    waiting = [goal]
    while waiting:
        i = waiting.pop()
        if i not in found:
            found.add(i)
            waiting += before[i]
    return found


def _place(program: Program, i: int) -> str:
    place = program.source_at(i)
    return f"{place.file}:{place.line}: {place.text.strip()}" if place else f"insn {i}"
