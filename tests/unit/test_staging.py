"""Staging: what a slice leaves out, what is said of it, the choice that a queue makes."""

from __future__ import annotations

import pytest

from xdpbatch.asm import program
from xdpbatch.data.staging import EVERY, PLAIN, ROUNDS, TRIAL, WARM_UP, WIDTHS, Staging
from xdpbatch.errors import XdpBatchError
from xdpbatch.isa import CALL, HELPER_CALL
from xdpbatch.program import MapSpec, Program
from xdpbatch.rewrite import slice as slicing
from xdpbatch.rewrite import xlate
from xdpbatch.rewrite.batch import batch
from xdpbatch.rewrite.coverage import coverage
from xdpbatch.rewrite.form import ADAPTIVE, Form, stage_of
from xdpbatch.uapi import MapNumber
from xdpbatch.verify import verify

LARGE = MapSpec("large", MapNumber.HASH, 4, 8, 1 << 16)
SMALL = MapSpec("small", MapNumber.HASH, 4, 8, 4)
TRIE = MapSpec("trie", MapNumber.LPM_TRIE, 8, 8, 1 << 16, flags=1)
START = """
        r6 = r1
        r7 = *(u32 *)(r6 + 0)
        r3 = *(u32 *)(r6 + 4)
        r1 = r7
        r1 += 20
        r0 = 1
        if r1 > r3 goto out
        r1 = *(u32 *)(r7 + 14)
        *(u32 *)(r10 - 4) = r1
        *(u32 *)(r10 - 8) = 32
        *(u8 *)(r7 + 0) = 1
"""


def looked_up(name: str, key: int = -4) -> str:
    return f"""
        r2 = r10
        r2 += {key}
        r1 = map[{name}] ll
        call bpf_map_lookup_elem#1
    """


def made(*parts: str) -> Program:
    text = "".join((START, *parts, "\nr0 = 2\nout: exit"))
    return program(text, "prog", (LARGE, SMALL, TRIE))


def said(one: Program) -> str:
    return "\n".join(coverage(verify(one)))


def sliced(one: Program) -> Program:
    found = slicing.slice_of(verify(one))
    assert found.verified is not None, found.why
    return found.verified.program


def test_a_slice_stores_only_into_its_own_stack() -> None:
    one = sliced(made(looked_up("large"), "if r0 == 0 goto out\n*(u64 *)(r0 + 0) = 1"))
    stores = [insn for insn in one.insns if insn.is_store]
    assert [(insn.dst, insn.off) for insn in stores] == [(10, -4), (10, -8)]


def test_a_slice_ends_at_its_last_lookup() -> None:
    one = sliced(made(looked_up("large"), "call bpf_ktime_get_ns#5"))
    calls = [insn.imm for insn in one.insns if insn.op == CALL and insn.src == HELPER_CALL]
    assert calls == [1]


def test_effects_before_a_lookup_are_dropped() -> None:
    delete = looked_up("small").replace("lookup_elem#1", "delete_elem#3")
    one = sliced(made(delete, "call bpf_get_prandom_u32#7\n", looked_up("large")))
    calls = [insn.imm for insn in one.insns if insn.op == CALL and insn.src == HELPER_CALL]
    assert calls == [1]


def test_what_moves_the_packet_ends_a_slice() -> None:
    one = made("r1 = r6\nr2 = -4\ncall bpf_xdp_adjust_head#44\n", looked_up("large"))
    assert slicing.slice_of(verify(one)).verified is None
    text = said(one)
    assert "prog has no slice: no lookup is reached before the slice ends" in text
    assert "not covered, the slice ends before it" in text
    assert "bpf_xdp_adjust_head has effects" in text


def test_each_lookup_is_accounted_for() -> None:
    text = said(made(looked_up("small"), looked_up("large"), looked_up("trie", -8)))
    assert "run in 2 passes" in text
    assert "done without prefetching: map small is small" in text
    assert "covered: map large, prefetched in 2 passes" in text
    assert "not covered: a lookup in a map of type lpm_trie" in text


def test_a_program_without_lookups_is_not_staged() -> None:
    xlated = xlate(verify(made()))
    plain, staged = batch(xlated), batch(xlated, stage=32)
    assert staged.insns == plain.insns
    assert (staged.stage, staged.unstaged) == (0, "it has no lookup that is worth it")
    assert Form(stage=32).staging(xlated) == "off: it has no lookup that is worth it"


def test_the_option() -> None:
    assert [stage_of(text) for text in ("off", "auto", "32")] == [0, ADAPTIVE, 32]
    for text in ("0", "-1", "513", "", "eight"):
        with pytest.raises(XdpBatchError):
            stage_of(text)


def slices(staging: Staging, cost: dict[int, float], count: int) -> list[int]:
    """Run that many slices, at so many nanoseconds a packet for each width; the widths run."""
    widths = []
    for _ in range(count):
        width, most = staging.next()
        packets = most or 16 * TRIAL
        staging.tell(packets, int(packets * cost[width]))
        widths.append(width)
    return widths


START_UP = WARM_UP + ROUNDS * len(WIDTHS)


def test_the_fastest_width_is_chosen_and_kept() -> None:
    staging = Staging()
    slices(staging, {0: 100, 8: 60, 16: 50, 32: 40, 64: 45}, START_UP)
    assert staging.chosen == 32
    later = slices(staging, {0: 100, 8: 60, 16: 50, 32: 40, 64: 45}, 10 * EVERY)
    assert later.count(32) > len(later) * EVERY // (EVERY + len(WIDTHS))
    assert staging.chosen == 32


def test_a_small_gain_is_none() -> None:
    staging = Staging()
    slices(staging, {0: 100, 8: 99, 16: 98, 32: 97, 64: 99}, START_UP)
    assert staging.chosen == PLAIN


def test_the_choice_follows_the_traffic() -> None:
    staging = Staging()
    slices(staging, {0: 100, 8: 60, 16: 50, 32: 40, 64: 45}, START_UP)
    slices(staging, {0: 20, 8: 30, 16: 31, 32: 32, 64: 33}, 10 * EVERY)
    assert staging.chosen == PLAIN


def test_one_interruption_decides_nothing() -> None:
    staging = Staging()
    slices(staging, {0: 50, 8: 60, 16: 60, 32: 60, 64: 60}, WARM_UP + 2 * len(WIDTHS))
    slices(staging, {0: 900, 8: 60, 16: 60, 32: 60, 64: 60}, len(WIDTHS))
    slices(staging, {0: 50, 8: 60, 16: 60, 32: 60, 64: 60}, 2 * len(WIDTHS))
    assert staging.chosen == PLAIN
    assert staging.measured[0] == 50


def test_short_slices_say_nothing() -> None:
    staging = Staging()
    for _ in range(100):
        staging.next()
        staging.tell(10, 1)
    assert (staging.chosen, dict(staging.measured)) == (PLAIN, {})
