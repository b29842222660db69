"""Programs without some of their checks, guarded: no rule is broken, all backends agree."""

from __future__ import annotations

import re
from itertools import cycle, islice

from hypothesis import given, settings
from hypothesis import strategies as st

from xdpbatch.compare import compare
from xdpbatch.errors import ObjectError, VerifierError
from xdpbatch.rewrite.guard import guarded
from xdpbatch.testing import generate

CHECK = re.compile(r"if r\d+ > r\d+ goto|if r\d+ == 0 goto")


@st.composite
def unchecked(draw: st.DrawFn) -> str:
    """A generated program without some of its comparisons, mostly those that prove an access."""
    lines = draw(generate.texts(least=3, most=10)).splitlines()
    checks = [i for i, line in enumerate(lines) if CHECK.match(line)]
    gone = draw(st.sets(st.sampled_from(checks), min_size=1)) if checks else set()
    return "\n".join(line for i, line in enumerate(lines) if i not in gone)


@given(unchecked(), generate.packets())
@settings(max_examples=settings().max_examples * 2)
def test_guarded_programs_break_no_rule(text: str, packets: list[bytes]) -> None:
    try:
        obj, _ = guarded(generate.as_object(text), "prog")
    except (ObjectError, VerifierError):
        return
    report = compare(
        obj, islice(cycle(packets), 20), against=("interp", "single", "x86"), batch_sizes=(3, 64)
    )
    assert report.difference is None, f"{report.difference}\n{text}"
