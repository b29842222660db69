"""The verdict on a program, taken from the disk cache where this verifier has accepted it before.

The kernel has nothing like it: it verifies at each load. An entry is found by everything that a
verdict depends on: the program, its maps, its types, and the verifier's own sources, so a changed
program or a changed verifier means a new proof. Only acceptances are kept; a refusal is argued
anew, with the source lines as they are now. What an entry says is JSON, never code; what cannot be
read is proven again.
"""

from __future__ import annotations

import json
from dataclasses import fields
from functools import cache as once
from pathlib import Path
from typing import Any

from xdpbatch import cache
from xdpbatch.facts import Access, Called, Fact, Region
from xdpbatch.program import MapSpec, Program
from xdpbatch.verify import Verified, verify
from xdpbatch.verify.walk import annotated

KIND = "verdict"
# What a verdict depends on besides the program: this package, prototypes, constants.
SOURCES = (
    *("verify/*.py", "helpers/*.py", "btf.py", "facts.py"),
    *("isa.py", "program.py", "semantics.py", "uapi.py"),
)


def verdict(program: Program) -> Verified:
    """What `verify` says, remembered. Raises VerifierError."""
    key = cache.key_of(KIND, _identity(program), _sources())
    kept = cache.get(KIND, key)
    if kept is not None:
        try:
            return _read(program, json.loads(kept))
        except (ValueError, TypeError, KeyError, IndexError):
            pass
    verified = verify(program)
    cache.put(KIND, key, json.dumps(_written(verified), separators=(",", ":")).encode())
    return verified


def _identity(program: Program) -> tuple[object, ...]:
    """All of a program that `verify` looks at, with a stable repr."""
    return (
        [(int(i.op), i.dst, i.src, i.off, i.imm, i.target, i.ref) for i in program.insns],
        [(s.name, s.start, s.end, s.btf_id, s.is_global) for s in program.subprogs],
        [_map_identity(spec) for _, spec in sorted(program.maps.items())],
        (program.attach.value, program.frags, program.license, program.kernel_btf),
    )


def _map_identity(spec: MapSpec | None) -> object:
    if spec is None:
        return None
    plain = [getattr(spec, f.name) for f in fields(spec) if f.name not in ("inner", "values")]
    return [repr(each) for each in plain], _map_identity(spec.inner), sorted(spec.values.items())


@once
def _sources() -> str:
    """The verifier's identity."""
    home = Path(__file__).parent.parent
    files = sorted(file for pattern in SOURCES for file in home.glob(pattern))
    return cache.key_of(*(file.read_bytes() for file in files))


# The format: lists and numbers only. Every `null` is a None of the fact.


def _written(verified: Verified) -> dict[str, Any]:
    insns = enumerate(verified.program.insns)
    return {
        "reached": sorted(verified.reached),
        "depth": verified.stack_depth,
        "processed": verified.processed,
        "zero": verified.zero_stack,
        "facts": [[i, _fact(insn.fact)] for i, insn in insns if insn.fact is not None],
    }


def _fact(fact: Fact | None) -> list[object] | None:
    match fact:
        case None:
            return None
        case Access():
            return [fact.region.name, fact.offset, fact.map]
        case Called():
            return [fact.map, fact.inner, [_fact(arg) for arg in fact.args], fact.consts]


def _read(program: Program, kept: dict[str, Any]) -> Verified:
    facts = {i: _fact_of(words) for i, words in kept["facts"]}
    reached = frozenset(kept["reached"])
    if not {*facts, *reached} <= set(range(len(program.insns))):
        raise ValueError("the verdict is on another program")
    return Verified(
        annotated(program, facts),
        reached,
        tuple(kept["depth"]),
        kept["processed"],
        tuple(tuple(slots) for slots in kept["zero"]),
    )


def _fact_of(words: list[Any]) -> Fact:
    if len(words) == 3:
        return _access(words)
    name, inner, args, consts = words
    return Called(name, inner, tuple(a and _access(a) for a in args), tuple(consts))


def _access(words: list[Any]) -> Access:
    region, offset, name = words
    return Access(Region[region], offset, name)
