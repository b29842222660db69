"""Rule 3: what the verifier accepts breaks no rule of the checked interpreter.

Generated programs are safe; here they are damaged first. Most are refused then. Those that are
still accepted must run without an error, and the same on every backend.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle, islice

from hypothesis import given, settings
from hypothesis import strategies as st

from xdpbatch.compare import compare
from xdpbatch.errors import ObjectError, VerifierError
from xdpbatch.program import Object
from xdpbatch.testing import damage, generate
from xdpbatch.verify import verify


def accepted(text: str) -> Object | None:
    """The object if its program assembles and is accepted."""
    try:
        obj = generate.as_object(text)
        verify(obj.programs["prog"])
    except (ObjectError, VerifierError):
        return None
    return obj


@given(damage.texts(), generate.packets())
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
    changed = replace(one, insns=data.draw(damage.fields(one.insns)))
    obj = replace(obj, programs={"prog": changed})
    try:
        verify(changed)
    except VerifierError:
        return
    report = compare(
        obj, islice(cycle(packets), 20), against=("interp", "single", "x86"), batch_sizes=(64,)
    )
    assert report.difference is None, f"{report.difference}\n{changed.insns}"
