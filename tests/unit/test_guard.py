"""Guards: what fires, what is counted, what costs nothing, what is refused all the same."""

from __future__ import annotations

import struct

import pytest

from xdpbatch import asm
from xdpbatch.compare import compare
from xdpbatch.errors import VerifierError
from xdpbatch.interp import Interpreter
from xdpbatch.program import MapSpec, Object
from xdpbatch.rewrite.guard import COUNTS, Guard, fired, guarded
from xdpbatch.runtime import Instance
from xdpbatch.uapi import MapNumber

HASH = MapSpec("table", MapNumber.HASH, 4, 8, 8)
SHORT, LONG = bytes(14), bytes(range(64))
BEYOND = """
    r2 = *(u32 *)(r1 + 0)
    r0 = *(u8 *)(r2 + 40)
    exit
"""
LOOKUP = """
    *(u32 *)(r10 - 4) = 1
    r2 = r10
    r2 += -4
    r1 = map[table] ll
    call map_lookup_elem
    *(u64 *)(r0 + 0) = 7
    r0 = 2
    exit
"""


def of(text: str) -> tuple[Object, tuple[Guard, ...]]:
    program = asm.program(text, name="prog", maps=(HASH,))
    return guarded(Object("", {"prog": program}, program.maps), "prog")


def agree(obj: Object, packets: list[bytes]) -> None:
    report = compare(obj, packets, against=("interp", "single", "x86"), batch_sizes=(3, 64))
    assert report.difference is None, report.difference


def test_what_is_proven_is_not_changed() -> None:
    program = asm.program("r0 = 2\nexit", name="prog")
    obj = Object("", {"prog": program}, {})
    assert guarded(obj, "prog") == (obj, ())
    assert guarded(obj, "prog")[0] is obj


def test_a_packet_that_is_too_short_is_aborted_and_counted() -> None:
    obj, guards = of(BEYOND)
    assert [str(guard) for guard in guards] == [
        "packet-bounds at insn 1, program prog (section xdp)"
    ]
    from xdpbatch.api import Runnable

    for backend in ("llvm", "x86", "interp"):
        instance = Instance(obj)
        runnable = Runnable(instance, obj.programs["prog"], backend, 8)
        results = runnable.run([SHORT, LONG, SHORT, LONG[:40], LONG[:41]])
        assert list(results.actions) == [0, 40, 0, 0, 40]
        assert fired(instance.maps, guards) == {guards[0]: 3}
        assert struct.unpack("<Q", instance.maps[COUNTS][bytes(4)]) == (3,)


def test_null_is_not_followed() -> None:
    obj, guards = of(LOOKUP)
    assert [guard.code for guard in guards] == ["null-deref"]
    agree(obj, [LONG] * 4)


def test_stores_scratch_registers_and_several_guards() -> None:
    """All of r0-r9 are in use, so that the check must borrow two and give them back."""
    lines = ["r6 = r1", "r2 = *(u32 *)(r6 + 0)", "r7 = r2"]
    lines += [f"r{r} = {r}" for r in (0, 1, 3, 4, 5, 8, 9)]
    lines += ["*(u32 *)(r7 + 20) = 5", "*(u16 *)(r7 + 50) = r3"]
    lines += [f"r0 += r{r}" for r in (1, 3, 4, 5, 8, 9)]
    obj, guards = of("\n".join([*lines, "r1 = *(u8 *)(r2 + 60)", "r0 += r1", "exit"]))
    assert len(guards) == 3
    packets = [LONG[:n] for n in (14, 23, 24, 51, 52, 60, 61, 64)]
    agree(obj, packets)


def test_a_loop_back_to_the_start_keeps_the_ctx() -> None:
    agree(of(f"r9 = 0\nbegin: r9 += 1\nif r9 < 3 goto begin\n{BEYOND}")[0], [SHORT, LONG])


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("r0 = *(u64 *)(r1 + 0)\nexit", "invalid-ctx-access"),
        ("r0 = r3\nexit", "uninit-register"),
        (
            "r2 = *(u32 *)(r1 + 0)\nr3 = *(u32 *)(r1 + 16)\nr2 += r3\nr0 = *(u8 *)(r2 + 0)\nexit",
            "packet-bounds",  # up to 4 GiB away: no comparison proves that
        ),
        ("begin: r0 = 1\ngoto begin\nexit", "unreachable-insn"),
        (
            "r2 = *(u32 *)(r1 + 0)\ncall f\nr0 = 2\nexit\nf:\nr1 = *(u32 *)(r1 + 0)\n"
            "r0 = *(u8 *)(r1 + 9)\nexit",
            "packet-bounds",  # a function cannot end the packet
        ),
    ],
)
def test_what_guards_do_not_make_safe_is_refused(text: str, code: str) -> None:
    with pytest.raises(VerifierError, match=code):
        of(text)


def test_the_error_speaks_of_the_program_as_it_was() -> None:
    with pytest.raises(VerifierError, match="insn 2, program prog") as caught:
        of("r2 = *(u32 *)(r1 + 0)\nr0 = *(u8 *)(r2 + 40)\nr0 = r7\nexit")
    assert "1 accesses before it have a guard" in str(caught.value)


def test_a_reference_that_is_held_cannot_be_lost() -> None:
    ring = MapSpec("ring", MapNumber.RINGBUF, 0, 0, 4096)
    text = """
        r6 = r1
        r1 = map[ring] ll
        r2 = 8
        r3 = 0
        call ringbuf_reserve
        if r0 == 0 goto out
        r7 = r0
        r2 = *(u32 *)(r6 + 0)
        r0 = *(u8 *)(r2 + 40)
        r1 = r7
        r2 = 0
        call ringbuf_submit
    out:
        r0 = 2
        exit
    """
    program = asm.program(text, name="prog", maps=(ring,))
    with pytest.raises(VerifierError, match="unreleased-reference"):
        guarded(Object("", {"prog": program}, program.maps), "prog")


def test_the_interpreter_checks_every_access_of_a_guarded_program() -> None:
    obj, _ = of(BEYOND)
    instance = Instance(obj)
    assert isinstance(instance.interpreter(obj.programs["prog"]), Interpreter)
    agree(obj, [LONG[:n] for n in range(14, 64)])
