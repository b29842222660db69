"""The interpreter refuses what its verifier should have: no access outside of what it was given."""

from __future__ import annotations

import ctypes
import struct

import pytest

from xdpbatch.asm import program
from xdpbatch.callback import SIGNATURE, PerPacket
from xdpbatch.interp import ExecutionError, Interpreter
from xdpbatch.maps import Map
from xdpbatch.program import MapSpec
from xdpbatch.test_run import Bench, Redirect
from xdpbatch.uapi import Action, MapNumber

ARRAY = MapSpec("numbers", MapNumber.ARRAY, 4, 16, 4)
HASH = MapSpec("table", MapNumber.HASH, 4, 8, 4)
DATA = MapSpec(
    ".rodata", MapNumber.ARRAY, 4, 8, 1, flags=0x80, contents=bytes(range(8)), frozen=True
)
PACKET = bytes(range(64))


def machine(text: str, *specs: MapSpec) -> tuple[Interpreter, dict[str, Map]]:
    maps = {spec.name: Map(spec) for spec in specs}
    return Interpreter(program(text, maps=specs), maps, budget=10_000), maps


def verdict(text: str, *specs: MapSpec, packet: bytes = PACKET) -> int:
    bench = Bench(1)
    bench.fill([packet])
    return machine(text, *specs)[0].run(bench.buff(0))


LOAD = "r2 = *(u32 *)(r1 + 0)\nr3 = *(u32 *)(r1 + 4)\n"


def test_context_fields() -> None:
    bench = Bench(1, ifindex=7, queue=3)
    bench.fill([PACKET])
    for text, want in (
        (f"{LOAD}r3 -= r2\nr0 = r3\nexit", 64),
        (f"{LOAD}r0 = *(u8 *)(r2 + 63)\nexit", 63),
        ("r2 = *(u32 *)(r1 + 0)\nr3 = *(u32 *)(r1 + 8)\nr0 = r2\nr0 -= r3\nexit", 0),
        ("r0 = *(u32 *)(r1 + 12)\nexit", 7),
        ("r0 = *(u32 *)(r1 + 16)\nexit", 3),
        ("r0 = *(u32 *)(r1 + 20)\nexit", 0),
    ):
        assert machine(text)[0].run(bench.buff(0)) == want


def test_verdict_is_the_low_half_of_r0() -> None:
    assert verdict("r0 = 0xffffffff00000002 ll\nexit") == 2
    assert verdict("r0 = -1\nexit") == 0xFFFFFFFF


def test_store_to_the_packet_is_seen() -> None:
    bench = Bench(1)
    bench.fill([PACKET])
    machine(f"{LOAD}*(u16 *)(r2 + 62) = 0x1122\nr0 = 3\nexit")[0].run(bench.buff(0))
    outcome = bench.outcome(0, 3)
    assert outcome.data == PACKET[:62] + b"\x22\x11"
    assert outcome.meta == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{LOAD}r0 = *(u8 *)(r2 + 64)\nexit", "read of 1 bytes"),
        (f"{LOAD}r0 = *(u8 *)(r2 - 1)\nexit", "read of 1 bytes"),
        (f"{LOAD}r0 = *(u64 *)(r2 + 57)\nexit", "read of 8 bytes"),
        (f"{LOAD}*(u8 *)(r3 + 0) = 1\nexit", "write of 1 bytes"),
        ("r0 = *(u8 *)(r10 + 0)\nexit", "read of 1 bytes"),
        ("r0 = *(u64 *)(r10 - 520)\nexit", "read of 8 bytes"),
        ("r0 = *(u64 *)(r10 - 4)\nexit", "read of 8 bytes"),
        ("r2 = 0\nr0 = *(u64 *)(r2 + 0)\nexit", "read of 8 bytes at 0x0"),
        ("r2 = -1\nr0 = *(u64 *)(r2 + 0)\nexit", "read of 8 bytes"),
        ("r0 = *(u64 *)(r1 + 0)\nexit", "xdp_md has no 8-byte field at 0"),
        ("r0 = *(u32 *)(r1 + 2)\nexit", "xdp_md has no 4-byte field at 2"),
        ("r0 = *(u32 *)(r1 + 24)\nexit", "xdp_md has no 4-byte field at 24"),
        ("*(u32 *)(r1 + 0) = 0\nexit", "write of 4 bytes"),
        ("r2 = 1\nlock *(u64 *)(r1 + 0) += r2\nexit", "write of 8 bytes"),
        ("r1 = map[numbers] ll\nr0 = *(u64 *)(r1 + 0)\nexit", "read of 8 bytes"),
        ("call 250\nexit", "no helper 250"),
        ("call kfunc[bpf_rdonly_cast]\nexit", "kernel functions"),
        ("r2 = ksym[jiffies] ll\nr0 = 0\nexit", "ksym"),
        ("again: goto again", "instructions"),
        ("r0 = 0", "ran past the last instruction"),
        ("call f\nexit\nf: call f\nexit", "nested calls"),
    ],
)
def test_broken_rules(text: str, reason: str) -> None:
    with pytest.raises(ExecutionError) as caught:
        verdict(text, ARRAY)
    assert reason.replace("ksym", "64-bit immediate") in str(caught.value)
    assert "insn " in str(caught.value)
    assert "program prog" in str(caught.value)


KEY = "*(u32 *)(r10 - 4) = {key}\nr1 = map[{name}] ll\nr2 = r10\nr2 += -4\n"
LOOKUP = KEY + "call bpf_map_lookup_elem\nif r0 == 0 goto none\n"


def test_map_values() -> None:
    text = LOOKUP.format(key=2, name="numbers") + (
        "*(u64 *)(r0 + 8) = 5\nr1 = 7\nlock *(u64 *)(r0 + 0) += r1\nr0 = 2\nexit\n"
        "none: r0 = 0\nexit"
    )
    one, maps = machine(text, ARRAY)
    bench = Bench(1)
    bench.fill([PACKET])
    assert one.run(bench.buff(0)) == one.run(bench.buff(0)) == 2
    assert maps["numbers"][b"\2\0\0\0"] == struct.pack("<QQ", 14, 5)


@pytest.mark.parametrize(
    "access", ["r0 = *(u8 *)(r0 + 16)", "*(u64 *)(r0 + 9) = 1", "r0 = *(u8 *)(r0 - 1)"]
)
def test_map_value_bounds(access: str) -> None:
    with pytest.raises(ExecutionError, match="outside its memory"):
        verdict(LOOKUP.format(key=1, name="numbers") + f"{access}\nexit\nnone: r0 = 0\nexit", ARRAY)


def test_a_map_value_is_granted_for_one_run_only() -> None:
    """What run 1 may touch is no licence for run 2, which forges the same address."""
    one, maps = machine(
        LOOKUP.format(key=0, name="numbers") + "r0 = 1\nexit\nnone: r0 = 0\nexit", ARRAY
    )
    bench = Bench(1)
    bench.fill([PACKET])
    assert one.run(bench.buff(0)) == 1
    (granted,) = one.granted.values()
    one.program = program(f"r2 = {granted.start:#x} ll\nr0 = *(u64 *)(r2 + 0)\nexit")
    with pytest.raises(ExecutionError, match="outside its memory"):
        one.run(bench.buff(0))
    assert len(maps) == 1


def test_data_section() -> None:
    read = "r1 = map_value[.rodata+2] ll\nr0 = *(u16 *)(r1 + 0)\nexit"
    assert verdict(read, DATA) == 0x302
    with pytest.raises(ExecutionError, match="write of 1 bytes"):
        verdict("r1 = map_value[.rodata+2] ll\n*(u8 *)(r1 + 0) = 1\nexit", DATA)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("r1 = 0\nr2 = r10\nr2 += -4\ncall bpf_map_lookup_elem\nexit", "is not a map"),
        ("r1 = map[table] ll\nr2 = 0\ncall bpf_map_lookup_elem\nexit", "read of 4 bytes"),
        ("r1 = map[table] ll\nr2 = r10\ncall bpf_map_lookup_elem\nexit", "read of 4 bytes"),
        (KEY.format(key=1, name="table") + "r3 = r10\nr4 = 0\ncall bpf_map_update_elem\nexit",
         "read of 8 bytes"),
    ],
)  # fmt: skip
def test_helper_arguments(text: str, reason: str) -> None:
    with pytest.raises(ExecutionError, match=reason):
        verdict(text, HASH)


def test_redirect_is_recorded_for_each_packet() -> None:
    text = f"{LOAD}r1 = *(u8 *)(r2 + 0)\nr2 = 0\ncall bpf_redirect\nexit"
    one, _ = machine(text)
    bench = Bench(3)
    bench.fill([bytes([i]) * 20 for i in (4, 5, 6)])
    outcomes = [bench.outcome(i, one.run(bench.buff(i))) for i in range(3)]
    assert [o.verdict for o in outcomes] == [Action.XDP_REDIRECT] * 3
    assert [o.redirect for o in outcomes] == [Redirect(0, i, 0) for i in (4, 5, 6)]


def test_native_signature() -> None:
    """The poll loop calls the interpreter like compiled code; an error is kept and raised later."""
    one, _ = machine(f"{LOAD}r0 = *(u8 *)(r2 + 20)\nexit")
    bench = Bench(4)
    entry = PerPacket(one.run)
    function = SIGNATURE(entry.address)
    bench.fill([bytes([i]) * 21 for i in (1, 2, 3, 4)])
    assert function(bench.address, 4) == 0
    assert [bench.outcome(i).verdict for i in range(4)] == [1, 2, 3, 4]
    entry.check()
    bench.fill([bytes([9]) * size for size in (21, 20, 21)])
    function(bench.address, 3)
    assert [bench.outcome(i).verdict for i in range(3)] == [9, 0, 0]
    with pytest.raises(ExecutionError, match="outside its memory"):
        entry.check()
    entry.check()


def test_interpreter_memory_is_the_process_memory() -> None:
    """`call` runs over any memory that the caller owns."""
    from xdpbatch.interp import Region

    buffer = ctypes.create_string_buffer(b"\1\2\3\4", 4)
    address = ctypes.addressof(buffer)
    one = Interpreter(program("*(u16 *)(r1 + 2) = 7\nr0 = *(u32 *)(r1 + 0)\nexit"))
    assert one.call((address,), [Region(address, address + 4)]) == 0x00070201
    with pytest.raises(ExecutionError, match="write of 2 bytes"):
        one.call((address,), [Region(address, address + 4, writable=False)])


def test_a_frame_starts_out_zero() -> None:
    """A program may read stack that it did not write: nothing of an earlier packet is there."""
    one, _ = machine("r0 = *(u64 *)(r10 - 8)\n*(u64 *)(r10 - 8) = 9\nexit")
    bench = Bench(1)
    bench.fill([PACKET])
    assert [one.run(bench.buff(0)) for _ in range(2)] == [0, 0]
