"""Tail calls, callbacks, global data and maps of maps: every side against the kernel."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pytest
from compiled import compile_text, compiler

from xdpbatch import cc
from xdpbatch.asm import program
from xdpbatch.compare import compare, side
from xdpbatch.program import MapSpec, Object
from xdpbatch.uapi import MapNumber

pytestmark = pytest.mark.kernel
__all__ = ["compiler"]

SIDES = ("interp", "single", "x86", "kernel")
PACKETS = [bytes(pair) + bytes(62) for pair in product((0, 1, 2, 3, 200), repeat=2)]


def agree(obj: Object, packets: Sequence[bytes] = PACKETS) -> None:
    for name in obj.programs:
        report = compare(obj, packets, name=name, against=SIDES)
        assert report.difference is None, f"{name}: {report.difference}"


JUMPS = MapSpec("jumps", MapNumber.PROG_ARRAY, 4, 4, 4, values={0: "one", 1: "two", 3: "entry"})
RUNS = MapSpec("runs", MapNumber.ARRAY, 4, 8, 3)
COUNT_AND_JUMP = """
    r6 = r1
    *(u32 *)(r10 - 4) = {number}
    r1 = map[runs] ll
    r2 = r10
    r2 += -4
    call bpf_map_lookup_elem
    if r0 == 0 goto none
    r1 = 1
    lock *(u64 *)(r0 + 0) += r1
    none:
    r2 = *(u32 *)(r6 + 0)
    r4 = *(u32 *)(r6 + 4)
    r3 = r2
    r3 += 14
    if r3 > r4 goto out
    r3 = *(u8 *)(r2 + {byte})
    r1 = r6
    r2 = map[jumps] ll
    call bpf_tail_call
    out:
    r0 = {verdict}
    exit
"""


def test_tail_calls_and_their_limit() -> None:
    """Chains that end by a missing entry, by an index out of range, and by the 33rd call."""
    made = {
        name: program(
            COUNT_AND_JUMP.format(number=i, byte=i % 2, verdict=i + 1), name, [JUMPS, RUNS]
        )
        for i, name in enumerate(("entry", "one", "two"))
    }
    obj = Object("", made, made["entry"].maps)
    agree(obj)
    runs = side("interp", obj, made["entry"])
    runs.run([bytes(64)])  # to itself's neighbour and on, as long as it may
    assert sum(int.from_bytes(v, "little") for v in runs.contents(RUNS).values()) == 34


LOOP = """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4);
         __type(key, __u32); __type(value, __u64); } seen SEC(".maps");
static long (*loop)(__u32, void *, void *, __u64) = (void *)181;
static const volatile __u32 limit = 50;
static volatile __u64 total;

static long step(__u32 i, void *ctx)
{
    __u32 *left = ctx;
    total += i;
    return --*left == 0;
}

SEC("xdp")
int count(struct xdp_md *ctx)
{
    unsigned char *data = (void *)(long)ctx->data;
    __u32 key = 1, left;
    __u64 *value;
    if (data + 14 > (unsigned char *)(long)ctx->data_end)
        return XDP_ABORTED;
    left = data[0] + 1;
    long made = loop(data[1] * 3, step, &left, 0);
    value = bpf_map_lookup_elem(&seen, &key);
    if (value)
        *value += made;
    return made > limit ? XDP_DROP : XDP_PASS;
}
"""


def test_callbacks_and_global_data(compiler: cc.Compiler, tmp_path: Path) -> None:
    obj = compile_text(compiler, tmp_path, LOOP)
    agree(obj)
    one = side("kernel", obj, obj.programs["count"])
    assert {outcome.verdict for outcome in one.run(PACKETS)} == {1, 2}


INNER = MapSpec("inner", MapNumber.ARRAY, 4, 8, 2)
OUTER = MapSpec("outer", MapNumber.ARRAY_OF_MAPS, 4, 4, 3, inner=INNER, values={0: "a", 2: "b"})


def test_maps_of_maps() -> None:
    text = """
        r6 = r1
        r2 = *(u32 *)(r6 + 0)
        r3 = *(u32 *)(r6 + 4)
        r4 = r2
        r4 += 14
        r7 = 9
        if r4 > r3 goto go
        r7 = *(u8 *)(r2 + 0)
        go: *(u32 *)(r10 - 4) = r7
        r1 = map[outer] ll
        r2 = r10
        r2 += -4
        call bpf_map_lookup_elem
        if r0 == 0 goto none
        *(u32 *)(r10 - 4) = 1
        r1 = r0
        r2 = r10
        r2 += -4
        call bpf_map_lookup_elem
        if r0 == 0 goto none
        r1 = 3
        lock *(u64 *)(r0 + 0) += r1
        r0 = 2
        exit
        none: r0 = 1
        exit
    """
    a, b = (MapSpec(name, MapNumber.ARRAY, 4, 8, 2) for name in "ab")
    one = program(text, maps=[a, b, OUTER])
    obj = Object("", {"prog": one}, one.maps)
    agree(obj)
    ran = side("kernel", obj, one)
    assert {outcome.verdict for outcome in ran.run(PACKETS)} == {1, 2}
    assert ran.contents(a)
    assert ran.contents(b)
