"""Helpers without a kernel: each definition in the interpreter and as machine code."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdpbatch.data.layout import address_of, aligned
from xdpbatch.data.records import append, commit, read, records_init, records_size, reserve
from xdpbatch.data.trace import TraceRing
from xdpbatch.helpers import helpers
from xdpbatch.jit.native import compile_native
from xdpbatch.maps import Map
from xdpbatch.native import Native
from xdpbatch.program import MapSpec
from xdpbatch.test_run import Bench, Outcome
from xdpbatch.uapi import HELPER_NAMES, MapNumber

PACKET = bytes(range(100))
MEMORY = 256
COMPILED: dict[Native, tuple[object, Callable[..., int]]] = {}
QUICK = settings(max_examples=40, deadline=None)
PLACES = st.one_of(st.integers(-300, 300), st.integers(-(2**63), 2**63 - 1))


def compiled(function: Native) -> Callable[..., int]:
    if function not in COMPILED:
        code = compile_native(function)
        kind = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * len(function.params))
        COMPILED[function] = code, kind(code.address(function))
    return COMPILED[function][1]


class World:
    """A packet, and MEMORY bytes that hold 0, 1, 2, ..."""

    def __init__(self) -> None:
        self.bench = Bench(1, clock=1_000_000_007)
        self.bench.fill([PACKET])
        self.trace = TraceRing(1 << 16)
        self.bench.rxq["trace"] = self.trace.address
        self.memory = aligned(MEMORY)
        self.memory[:] = range(MEMORY)

    def run(self, function: Callable[..., int], params: tuple[str, ...], *numbers: int) -> object:
        """What a call returns, and the packet, the memory and the lines after it."""
        hidden = [self.bench.buff(0)] if params[0] == "buff" else []
        result = function(*hidden, *numbers[: len(params) - len(hidden)])
        outcome: Outcome = self.bench.outcome(0)
        return result, outcome, self.memory.tobytes(), list(self.trace.lines())


def alike(name: str, *numbers: int | str) -> None:
    """Both forms of a helper agree; a string argument is an offset in the memory."""
    function = next(h.native for h in helpers().values() if h.name == name)
    assert function is not None
    ran = []
    for one in (function, compiled(function)):
        world = World()
        base = address_of(world.memory)
        given_numbers = [base + int(n) if isinstance(n, str) else n for n in numbers]
        ran.append(world.run(one, function.params, *given_numbers))
    assert ran[0] == ran[1]


@given(helper=st.sampled_from(["head", "tail", "meta"]), offset=PLACES)
@QUICK
def test_adjust(helper: str, offset: int) -> None:
    alike(f"xdp_adjust_{helper}", 0, offset)


@given(helper=st.sampled_from(["load", "store"]), offset=PLACES, size=st.integers(0, MEMORY))
@QUICK
def test_bytes(helper: str, offset: int, size: int) -> None:
    alike(f"xdp_{helper}_bytes", 0, offset, "0", size)


@given(st.integers(0, 100), st.integers(0, 100), PLACES)
@QUICK
def test_checksum(source: int, to: int, seed: int) -> None:
    alike("csum_diff", "0", source, "101", to, seed)


NUMBERS = st.integers(-(2**63), 2**63 - 1)
PARTS = ["%", "d", "5", "-", "0", "l", "x", "X", "c", "s", "p", "I4", "I6", " ", "+", "u", "text"]


@given(st.lists(st.sampled_from(PARTS), max_size=20), NUMBERS, NUMBERS, NUMBERS)
@settings(max_examples=200, deadline=None)
def test_formats(parts: list[str], a: int, b: int, c: int) -> None:
    """Any format is printed or refused alike, and nothing is written past the room."""
    function = next(h.native for h in helpers().values() if h.name == "trace_printk")
    assert function is not None
    text = "".join(parts).encode()[: MEMORY - 1] + b"\0"
    ran = []
    for one in (function, compiled(function)):
        world = World()
        world.memory[: len(text)] = list(text)
        where = address_of(world.memory)
        ran.append(world.run(one, function.params, where, len(text), a, b, c))
    assert ran[0] == ran[1]


@pytest.mark.parametrize("name", ["jiffies64", "ktime_get_ns", "get_prandom_u32", "redirect"])
def test_that_need_the_queue(name: str) -> None:
    alike(name, 7, 0, 0)


def test_names_and_numbers_are_the_kernels() -> None:
    for number, helper in helpers().items():
        assert HELPER_NAMES[number] == helper.name
        assert number == helper.id
        assert bool(helper.params) == bool(helper.op)
        if helper.native is not None:
            hidden = int(helper.native.takes_buff)
            assert len(helper.native.params) == hidden + len(helper.args)
        if helper.op:
            assert len(helper.params) == len(helper.args)


def test_redirect_map_keeps_the_last_target() -> None:
    bench = Bench(2)
    bench.fill([PACKET, PACKET])
    m = Map(MapSpec("ports", MapNumber.DEVMAP, 4, 4, 4))
    for port in (1, 2):
        m[port.to_bytes(4, "little")] = (port + 10).to_bytes(4, "little")
    arguments = {"buff": bench.buff(0), "flags": 0}
    assert m.call(m.kind.redirect, key=1, **arguments) == 4
    assert m.call(m.kind.redirect, key=2, **arguments) == 4
    assert m.call(m.kind.redirect, key=1, buff=bench.buff(1), flags=0) == 4
    assert m.call(m.kind.redirect, key=3, buff=bench.buff(1), flags=2) == 2
    first, second = bench.outcome(0).redirect, bench.outcome(1).redirect
    assert first is not None
    assert second is not None
    assert (first.map_type, first.index) == (MapNumber.DEVMAP, 2)
    assert (second.map_type, second.index) == (0, 1)


@given(st.lists(st.binary(max_size=300), max_size=60))
@QUICK
def test_records_arrive_whole_and_in_order(samples: list[bytes]) -> None:
    memory = aligned(records_size(512))
    ring = address_of(memory)
    records_init(ring, 512)
    for sample in samples:
        held = ctypes.create_string_buffer(sample, len(sample) + 1)
        assert append(ring, ctypes.addressof(held), len(sample)) == 1
        assert list(read(ring)) == [sample]


def test_a_record_that_is_being_written_holds_the_reader_up() -> None:
    memory = aligned(records_size(4096))
    ring = address_of(memory)
    records_init(ring, 4096)
    first, second = reserve(ring, 8), reserve(ring, 16)
    commit(second, 0)
    assert list(read(ring)) == []
    commit(first, 1)
    assert [len(sample) for sample in read(ring)] == [16]
