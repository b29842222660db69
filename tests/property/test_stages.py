"""Rule 1 under staging: interpreter == plain batch == staged by any number of packets."""

from __future__ import annotations

import random
import struct
from itertools import cycle, islice

import pytest
from hypothesis import given, settings

from xdpbatch.asm import program
from xdpbatch.compare import compare
from xdpbatch.program import MapSpec, Object
from xdpbatch.rewrite import slice as slicing
from xdpbatch.rewrite import xlate
from xdpbatch.rewrite.batch import batch
from xdpbatch.testing import generate
from xdpbatch.uapi import MapNumber
from xdpbatch.verify import verify

WINDOWS = (1, 8, 32, 64)
SIZES = (1, 7, 64, 100)

# r6 = ctx, r7 = data: the key is the first 4 bytes behind the Ethernet header, r8 the next byte
HEADER = """
        r6 = r1
        r7 = *(u32 *)(r6 + 0)
        r3 = *(u32 *)(r6 + 4)
        r1 = r7
        r1 += 20
        r0 = 1
        if r1 > r3 goto out
        r8 = *(u8 *)(r7 + 18)
        r1 = *(u32 *)(r7 + 14)
        *(u32 *)(r10 - 4) = r1
"""
LOOKUP = """
        r2 = r10
        r2 += -4
        r1 = map[{map}] ll
        call bpf_map_lookup_elem#1
"""
# what is found counts; a small r8 deletes the key; what is not found is entered
CHANGE = f"""{HEADER}{LOOKUP}
        if r0 == 0 goto miss
        r1 = *(u64 *)(r0 + 0)
        r1 += 1
        *(u64 *)(r0 + 0) = r1
        *(u8 *)(r7 + 19) = r1
        if r8 > 40 goto pass
        r2 = r10
        r2 += -4
        r1 = map[{{map}}] ll
        call bpf_map_delete_elem#3
    pass:
        r0 = 2
        goto out
    miss:
        *(u64 *)(r10 - 16) = r8
        r2 = r10
        r2 += -4
        r3 = r10
        r3 += -16
        r4 = 0
        r1 = map[{{map}}] ll
        call bpf_map_update_elem#2
    out:
        exit
"""
# the value found in the first map is the key of the second, found by a function
CHAIN = f"""{HEADER}{LOOKUP}
        if r0 == 0 goto enter
        r1 = *(u32 *)(r0 + 0)
        *(u64 *)(r0 + 0) = r8
        call second
        goto out
    enter:
        *(u64 *)(r10 - 16) = r8
        r2 = r10
        r2 += -4
        r3 = r10
        r3 += -16
        r4 = 0
        r1 = map[{{map}}] ll
        call bpf_map_update_elem#2
        r0 = 3
    out:
        exit
    second:
        *(u32 *)(r10 - 4) = r1
        r2 = r10
        r2 += -4
        r1 = map[other] ll
        call bpf_map_lookup_elem#1
        if r0 == 0 goto none
        r1 = 1
        lock *(u64 *)(r0 + 0) += r1
        r0 = 2
        exit
    none:
        r0 = 1
        exit
"""
TYPES = {
    "hash": MapSpec("subject", MapNumber.HASH, 4, 8, 16),
    "lru_hash": MapSpec("subject", MapNumber.LRU_HASH, 4, 8, 16),
    "percpu_hash": MapSpec("subject", MapNumber.PERCPU_HASH, 4, 8, 16),
    "lru_percpu_hash": MapSpec("subject", MapNumber.LRU_PERCPU_HASH, 4, 8, 16),
    "array": MapSpec("subject", MapNumber.ARRAY, 4, 8, 16),
    "percpu_array": MapSpec("subject", MapNumber.PERCPU_ARRAY, 4, 8, 16),
}
OTHER = MapSpec("other", MapNumber.HASH, 4, 8, 64)


@pytest.fixture(autouse=True)
def _no_map_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    """The maps of these tests are small: stage them all the same."""
    monkeypatch.setattr(slicing, "NEAR", 0)


def made(text: str, *maps: MapSpec) -> Object:
    one = program(text, "prog", maps)
    return Object("staged", {"prog": one}, one.maps, "GPL")


def traffic(keys: int, count: int, seed: int = 1) -> list[bytes]:
    draw = random.Random(seed)
    return [
        bytes(14) + struct.pack("<IBB", draw.randrange(keys), draw.randrange(256), 0)
        for _ in range(count)
    ] + [bytes(14)]


def agree(obj: Object, packets: list[bytes], backend: str, against: tuple[str, ...]) -> None:
    one = obj.programs["prog"]
    assert batch(xlate(verify(one)), stage=8).stage == 8
    report = compare(
        obj, packets, against=against, backend=backend, batch_sizes=SIZES, windows=WINDOWS
    )
    assert report.packets == len(packets)
    assert report.difference is None, str(report.difference)


@pytest.mark.parametrize("backend", ["llvm", "x86"])
@pytest.mark.parametrize("kind", TYPES)
def test_maps_that_the_batch_itself_changes(kind: str, backend: str) -> None:
    obj = made(CHANGE.replace("{map}", "subject"), TYPES[kind])
    agree(obj, traffic(40, 700), backend, ("interp", "single"))


@pytest.mark.kernel
@pytest.mark.parametrize("kind", TYPES)
def test_the_kernel_agrees(kind: str) -> None:
    """LRU maps too: a slice must not count as a use of what it looks up."""
    obj = made(CHANGE.replace("{map}", "subject"), TYPES[kind])
    agree(obj, traffic(40, 700)[:-1], "llvm", ("kernel", "interp"))


@pytest.mark.parametrize("kind", ["hash", "lru_hash", "array"])
def test_a_chain_of_lookups_through_a_function(kind: str) -> None:
    text = CHAIN.replace("{map}", "subject")
    obj = made(text, TYPES[kind], OTHER)
    one = obj.programs["prog"]
    staged = batch(xlate(verify(one)), stage=8)
    assert sum("slice." in s.name for s in staged.subprogs) == 2
    packets = traffic(40, 500)
    entries = {"other": {struct.pack("<I", key): bytes(8) for key in range(0, 256, 5)}}
    report = compare(obj, packets, batch_sizes=SIZES, windows=WINDOWS, entries=entries)
    assert report.packets == len(packets)
    assert report.difference is None, str(report.difference)


@given(generate.texts(least=8), generate.packets())
@settings(max_examples=max(settings().max_examples // 2, 8))
def test_random_programs(text: str, packets: list[bytes]) -> None:
    obj = generate.as_object(text)
    report = compare(
        obj,
        islice(cycle(packets), 130),
        against=("interp",),
        batch_sizes=(5, 64),
        windows=WINDOWS[1:],
    )
    assert report.packets == 130
    assert report.difference is None, f"{report.difference}\n{text}"


def test_random_programs_are_staged_often_enough() -> None:
    """The property above would be empty if generated programs had no slices."""
    found: list[int] = []

    @given(generate.texts(least=8))
    @settings(max_examples=40)
    def collect(text: str) -> None:
        one = generate.as_object(text).programs["prog"]
        found.append(batch(xlate(verify(one)), stage=8).stage)

    collect()
    assert found.count(8) > len(found) // 5
