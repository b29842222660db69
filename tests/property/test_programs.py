"""Rule 1 and rule 2 on random programs: interpreter == native == every batch size == kernel."""

from __future__ import annotations

from itertools import cycle, islice

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from xdpbatch.asm import assemble, program
from xdpbatch.compare import BATCH_SIZES, compare
from xdpbatch.isa import Class
from xdpbatch.program import Object
from xdpbatch.test_run import Outcome
from xdpbatch.testing import generate
from xdpbatch.verify import verify


def agree(texts: list[str], packets: list[bytes], count: int, *against: str) -> None:
    """Fail with the first difference; the texts can be pasted into a file test."""
    obj = generate.as_object(*texts)
    report = compare(obj, islice(cycle(packets), count), against=against, batch_sizes=BATCH_SIZES)
    assert report.packets == count
    whole = "\n\n".join(texts)
    assert report.difference is None, f"{report.difference}\n{whole}"


PROGRAMS = st.lists(generate.texts(least=3), min_size=1, max_size=3)


@given(PROGRAMS, generate.packets())
def test_backends_and_batch_sizes_agree(texts: list[str], packets: list[bytes]) -> None:
    agree(texts, packets, 260, "interp", "single", "x86")


@pytest.mark.kernel
@given(PROGRAMS, generate.packets())
def test_the_kernel_agrees(texts: list[str], packets: list[bytes]) -> None:
    agree(texts, packets, 70, "kernel", "interp", "single", "x86")


@given(generate.texts(least=5, most=20))
@settings(max_examples=settings().max_examples * 2)
def test_generated_programs_are_accepted(text: str) -> None:
    note(text)
    verify(generate.as_object(text).programs["prog"])


def test_the_generator_reaches_the_instruction_set() -> None:
    """Over a few hundred programs, every class and nearly every opcode is drawn."""
    seen: set[int] = set()

    @given(generate.texts(least=5, most=20))
    @settings(max_examples=300)
    def collect(text: str) -> None:
        seen.update(insn.op for insn in assemble(text))

    collect()
    assert {op & 7 for op in seen} == {int(cls) for cls in Class}
    assert len(seen) > 100


@given(st.lists(st.binary(max_size=120), max_size=5))
def test_short_and_empty_packets(packets: list[bytes]) -> None:
    """Packets that the kernel's test run refuses go through every backend of ours."""
    text = """
        r2 = *(u32 *)(r1 + 0)
        r3 = *(u32 *)(r1 + 4)
        r0 = r3
        r0 -= r2
        r4 = r2
        r4 += 14
        if r4 > r3 goto out
        r0 = *(u8 *)(r2 + 13)
        *(u8 *)(r2 + 0) = 1
        out: exit
    """
    one = program(text)
    report = compare(Object("", {one.name: one}, {}), packets, against=("interp", "single", "x86"))
    assert report.difference is None
    assert report.packets == len(packets)


def test_a_difference_is_found_and_said() -> None:
    """The judge itself: a side that lies about packet 5 is named with what differs."""
    from xdpbatch import compare as module

    one = program("r0 = 2\nexit")
    obj = Object("", {one.name: one}, {})
    honest = module.side("interp", obj, one)
    liar = module.side("single", obj, one)
    outcomes = liar.run([bytes(20)] * 8)
    outcomes[5] = Outcome(1, bytes(20))
    liar.run = lambda packets: outcomes  # type: ignore[method-assign]
    found = module.first_difference([honest, liar], [bytes(20)] * 8, 100)
    assert found is not None
    assert str(found).splitlines() == [
        "packet 105: the verdict differs",
        "  interp       XDP_PASS",
        "  llvm single  XDP_DROP",
    ]
