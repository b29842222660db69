"""Verdicts from the disk cache: the same as new ones, and quick for large programs."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from xdpbatch import asm
from xdpbatch.errors import VerifierError
from xdpbatch.program import MapSpec, Program
from xdpbatch.uapi import MapNumber
from xdpbatch.verify import verdict as module
from xdpbatch.verify import verify
from xdpbatch.verify.verdict import verdict

COUNTS = MapSpec("counts", MapNumber.ARRAY, 4, 8, 16)
LOOKUP = """
    r6 = r1
    *(u32 *)(r10 - 4) = 3
    r2 = r10
    r2 += -4
    r1 = map[counts] ll
    call map_lookup_elem
    if r0 == 0 goto out
    r1 = *(u64 *)(r10 - 16)
    *(u64 *)(r0 + 0) = r1
out:
    r0 = 2
    exit
"""


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDPBATCH_CACHE", str(tmp_path))
    return tmp_path


def lookup() -> Program:
    return asm.program(LOOKUP, maps=(COUNTS,))


def unrolled(steps: int) -> Program:
    """A parser of TLV options, unrolled: each step reads a type and a length and moves on."""
    lines = ["r2 = *(u32 *)(r1 + 0)", "r3 = *(u32 *)(r1 + 4)", "r7 = 0", "r8 = r2", "r8 += 14"]
    for i in range(steps):
        lines += [
            "r4 = r8",
            "r4 += 2",
            "if r4 > r3 goto out",
            "r5 = *(u8 *)(r8 + 0)",
            "r4 = *(u8 *)(r8 + 1)",
            f"if r5 != {i % 7} goto other{i}",
            "r7 += 1",
            f"goto next{i}",
            f"other{i}:",
            "r4 &= 15",
            f"next{i}:",
            "r4 &= 63",
            "r8 += r4",
        ]
    return asm.program("\n".join([*lines, "out:", "r0 = r7", "exit"]))


def test_a_verdict_read_back_is_the_verdict(folder: Path) -> None:
    first = verdict(lookup())
    assert list(folder.glob("*.verdict"))
    assert first == verify(lookup())
    assert verdict(lookup()) == first


def test_the_second_time_nothing_is_proven(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = verdict(lookup())
    monkeypatch.setattr(module, "verify", None)
    assert verdict(lookup()) == first


@pytest.mark.parametrize(
    "change",
    [
        {"license": "Proprietary"},
        {"maps": {"counts": replace(COUNTS, value_size=16)}},
        {"maps": {"counts": replace(COUNTS, frozen=True)}},
        {"frags": True},
        {"kernel_btf": b"types"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_program_is_another_entry(folder: Path, change: dict[str, object]) -> None:
    verdict(lookup())
    verdict(replace(lookup(), **change))  # type: ignore[arg-type]
    assert len(list(folder.glob("*.verdict"))) == 2


def test_refusals_are_not_kept(folder: Path) -> None:
    unsafe = asm.program("r0 = *(u64 *)(r1 + 0)\nexit")
    for _ in range(2):
        with pytest.raises(VerifierError):
            verdict(unsafe)
    assert not list(folder.glob("*.verdict"))


@pytest.mark.parametrize(
    "contents",
    [b"", b"{}", b"[1]", b'{"facts": [[99, ["CTX", 0, null]]], "reached": []}', b"\xff"],
)
def test_what_cannot_be_read_is_proven_again(
    folder: Path, contents: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = verdict(lookup())
    monkeypatch.setattr("xdpbatch.cache.get", lambda *_: contents)
    assert verdict(lookup()) == first


def test_a_damaged_entry_is_proven_again(folder: Path) -> None:
    first = verdict(lookup())
    (entry,) = folder.glob("*.verdict")
    entry.write_bytes(entry.read_bytes().replace(b"reached", b"Reached"))
    assert verdict(lookup()) == first


def test_a_large_program_is_not_walked_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second verdict comes from the cache. `make verifier-tests` shows both times."""
    program = unrolled(500)
    assert len(program.insns) > 5_000
    start = time.perf_counter()
    first = verdict(program)
    cold = time.perf_counter() - start
    monkeypatch.setattr(module, "verify", lambda _: pytest.fail("the program was walked again"))
    start = time.perf_counter()
    again = verdict(program)
    warm = time.perf_counter() - start
    assert again == first
    print(f"{len(program.insns)} instructions: {cold:.2f} s, from the cache {warm:.3f} s")
