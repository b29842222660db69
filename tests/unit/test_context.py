"""What a program finds beside the packet: ctx fields, metadata, clocks, chance."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import xdpbatch as xb
from xdpbatch import asm, examples
from xdpbatch.api import Runnable
from xdpbatch.cli import build
from xdpbatch.context import HZ, Clock, Context, Source, hz_for, metadata
from xdpbatch.errors import XdpBatchError
from xdpbatch.jit.native import compile_native
from xdpbatch.pcap.index import index
from xdpbatch.pcap.read import Reader
from xdpbatch.pcap.write import CaptureWriter
from xdpbatch.ports.capture import CapturePort
from xdpbatch.program import Attach, Object
from xdpbatch.runtime import BATCH, SINGLE, Instance
from xdpbatch.session import Session
from xdpbatch.target import Target
from xdpbatch.uapi import Action

BACKENDS = ("llvm", "x86", "interp")
PACKET = bytes(64)
TIME = """
r6 = *(u32 *)(r1 + 0)
r7 = *(u32 *)(r1 + 4)
r1 = r6
r1 += 14
if r1 > r7 goto out
call bpf_ktime_get_ns#5
*(u64 *)(r6 + 0) = r0
out:
r0 = 2
exit
"""
FIELDS = """
r0 = *(u32 *)(r1 + 12)
r0 <<= 8
r2 = *(u32 *)(r1 + 16)
r0 |= r2
r0 <<= 8
r2 = *(u32 *)(r1 + 20)
r0 |= r2
exit
"""
META = """
r2 = *(u32 *)(r1 + 8)
r3 = *(u32 *)(r1 + 0)
r4 = r2
r4 += 4
r0 = 0
if r4 > r3 goto out
r0 = *(u32 *)(r2 + 0)
out:
exit
"""


def runnable(
    text: str, backend: str, context: Context, size: int = 3, attach: Attach = Attach.XDP
) -> Runnable:
    program = replace(asm.program(text), attach=attach)
    obj = Object("test", {"prog": program}, program.maps)
    return Runnable(Instance(obj), program, backend, size, BATCH, context)


@pytest.mark.parametrize("backend", BACKENDS)
def test_fields_of_the_context(backend: str) -> None:
    context = Context(ifindex=7, rx_queue=3, egress_ifindex=9)
    made = runnable(FIELDS, backend, context, attach=Attach.DEVMAP)
    assert made.run([PACKET] * 4).actions.tolist() == [7 << 16 | 3 << 8 | 9] * 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_metadata_is_in_front_of_every_packet(backend: str) -> None:
    results = runnable(META, backend, Context(meta=metadata("78563412"))).run([PACKET] * 4)
    assert results.actions.tolist() == [0x12345678] * 4
    assert results.metadata == [b"\x78\x56\x34\x12"] * 4
    assert results.packets == [PACKET] * 4
    assert runnable(META, backend, Context()).run([PACKET]).actions.tolist() == [0]


@pytest.mark.parametrize("size", [1, 2, 7, 256])
def test_metadata_that_the_kernel_would_not_take(size: int) -> None:
    with pytest.raises(XdpBatchError, match="cannot be metadata"):
        Context(meta=bytes(size))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_fixed_clock_stands_still(backend: str) -> None:
    packets = runnable(TIME, backend, Context(clock=Clock.parse("fixed=12345"))).run([PACKET] * 5)
    assert {struct.unpack_from("<Q", packet)[0] for packet in packets.packets} == {12345}


def test_clocks_in_words() -> None:
    assert Clock.parse("real") == Clock()
    assert Clock.parse("capture").source is Source.CAPTURE
    assert str(Clock.parse("fixed")) == "fixed=1000000000"
    for text in ("", "fixed=", "fixed=0", "fixed=-1", "fixed=x", "realtime", "capture=1"):
        with pytest.raises(XdpBatchError, match="no clock"):
            Clock.parse(text)


def capture(path: Path, times: list[int]) -> Path:
    """A pcap with nanoseconds: magic, 2.4, zone, digits, snaplen, Ethernet."""
    data = struct.pack("<IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)
    for time in times:
        seconds, ns = divmod(time, 1_000_000_000)
        data += struct.pack("<IIII", seconds, ns, len(PACKET), len(PACKET)) + PACKET
    path.write_bytes(data)
    return path


TIMES = [1_700_000_000_000_000_000 + i * i * 777_777_777 for i in range(150)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [1, 64])
def test_a_captures_times_are_the_clock(backend: str, size: int, tmp_path: Path) -> None:
    path = capture(tmp_path / "in.pcap", TIMES)
    made = runnable(TIME, backend, Context(clock=Clock.parse("capture")), size)
    assert [struct.unpack_from("<Q", p)[0] for p in made.run(path).packets] == TIMES


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("backend", ["llvm", "x86"])
def test_a_session_shows_every_packet_its_time(backend: str, single: bool, tmp_path: Path) -> None:
    """More packets than the ring has slots, so that slots are used again."""
    times = [TIMES[0] + 1000 * i for i in range(9000)]
    path = str(capture(tmp_path / "in.pcap", times))
    program = asm.program(TIME)
    entry = Instance(Object("test", {"prog": program}, {})).entry(
        program, backend, SINGLE if single else BATCH
    )
    out = str(tmp_path / "out.pcapng")
    writer = CaptureWriter(out, 64)
    session = Session(
        lambda umem, i, ring: CapturePort(umem, path, i, ring),
        context=Context(clock=Clock.parse("capture"), meta=bytes(8)),
        writer=writer,
    )
    session.run(entry.address, single=single)
    writer.close()
    packets = [p.data for p in Reader(out).packets(compile_native(index))]
    assert [struct.unpack_from("<Q", p)[0] for p in packets] == times


def test_packets_without_a_time_have_no_clock() -> None:
    made = runnable(TIME, "llvm", Context(clock=Clock.parse("capture")))
    with pytest.raises(XdpBatchError, match="no time for the clock"):
        made.run([PACKET])


def test_ticks_are_the_configurations(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("CONFIG_HZ=300\n")
    target = Target(config=str(tmp_path / "config"))
    counting = asm.program("call bpf_jiffies64#118\nr0 = 2\nexit")
    other = asm.program("r0 = 2\nexit")
    for program, hz in ((counting, 300), (other, HZ)):
        assert hz_for(Object("test", {"prog": program}, {}), target) == hz


def run(*options: str) -> Any:
    given = ["run", str(examples.path("flows")), "--synth", "udp,flows=50,count=300", "-jQ"]
    done = CliRunner().invoke(build(), [*given, *options], catch_exceptions=False)
    assert done.exit_code == 0
    return json.loads(done.stdout)


def test_a_seed_makes_a_run_repeatable() -> None:
    """The order of a hash depends on its seed, as in the kernel; a given one repeats it."""
    options = ("--dump-maps", "-", "--clock", "fixed")
    first, second = (run("--seed", "7", *options) for _ in range(2))
    assert first["maps"] == second["maps"]
    assert (first["seed"], first["clock"]) == (7, "fixed=1000000000")
    others = [run(*options)["maps"] for _ in range(2)]
    assert others[0] != others[1]


def test_context_through_load() -> None:
    drop = xb.load(examples.path("drop"))["xdp_drop"]
    assert drop.compile(context=Context(ifindex=4)).context.ifindex == 4


def test_a_test_run_finds_the_same(tmp_path: Path) -> None:
    (tmp_path / "packet").write_bytes(PACKET)
    given = ["test-run", str(examples.path("flows")), "--data-in", str(tmp_path / "packet")]
    more = ["--ifindex", "3", "--meta", "01000000", "--clock", "fixed", "--seed", "1", "-j"]
    done = CliRunner().invoke(build(), [*given, *more], catch_exceptions=False)
    assert json.loads(done.stdout)["retval"] == Action.XDP_PASS
    done = CliRunner().invoke(build(), [*given, "--clock", "capture"])
    assert "no packet here has a time" in str(done.exception)


def test_a_comparison_starts_with_what_maps_are_to_hold() -> None:
    given = ["compare", str(examples.path("redirect")), "--synth", "udp,count=70", "-j"]
    path = str(examples.path("redirect").with_suffix(".json"))
    done = CliRunner().invoke(build(), [*given, "--map", path], catch_exceptions=False)
    report = json.loads(done.stdout)
    assert (report["packets"], report["difference"]) == (70, None)
