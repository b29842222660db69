"""Records and printed lines reach user space in the order in which programs wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from compiled import compile_text
from typer.testing import CliRunner

from xdpbatch import api, cc, events
from xdpbatch.cli import build
from xdpbatch.data import records
from xdpbatch.data.layout import address_of, aligned
from xdpbatch.events import Events
from xdpbatch.maps import Map
from xdpbatch.program import MapSpec
from xdpbatch.uapi import MapNumber

TEXT = """
enum { BPF_MAP_TYPE_PERF_EVENT_ARRAY = 4, BPF_MAP_TYPE_RINGBUF = 27 };
static long (*const trace_printk)(const char *, __u32, ...) HELPER(6);
static long (*const perf_event_output)(void *, void *, __u64, void *, __u64) HELPER(25);
static long (*const ringbuf_output)(void *, void *, __u64, __u64) HELPER(130);
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, %d); } ring SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __uint(key_size, 4);
         __uint(value_size, 4); } perf SEC(".maps");
static __u32 number;
SEC("xdp") int prog(struct xdp_md *ctx) {
    char format[] = "packet %%u";
    __u32 n = number++;
    ringbuf_output(&ring, &n, 4, 0);
    perf_event_output(ctx, &perf, 0xffffffffULL | 14ULL << 32, &n, 4);
    trace_printk(format, sizeof(format), n);
    ringbuf_output(&ring, &n, 2, 0);
    return 2;
}
"""
PACKET = bytes(range(64))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An object whose ring buffer has room for 256 KiB."""
    return make(tmp_path_factory.mktemp("events"), 1 << 18)


def make(directory: Path, size: int) -> Path:
    compiler = cc.find()
    if compiler is None:
        pytest.skip("no compiler for BPF is installed")
    compile_text(compiler, directory, TEXT % size)
    return directory / "source.o"


def expected(n: int) -> list[tuple[str, str, bytes]]:
    word = n.to_bytes(4, "little")
    return [
        ("ringbuf", "ring", word),
        ("perf", "perf", word + PACKET[:14]),
        ("trace", "", b"packet %d" % n),
        ("ringbuf", "ring", word[:2]),
    ]


@pytest.mark.parametrize("backend", ["llvm", "x86", "interp"])
def test_program_order_over_all_rings(backend: str, path: Path) -> None:
    made = api.load(path)["prog"].compile(batch_size=7, backend=backend)
    assert list(made.events()) == []
    made.run([PACKET] * 20)
    heard = [(e.kind, e.map, e.data) for e in made.events()]
    assert heard == [event for n in range(20) for event in expected(n)]
    assert list(made.events()) == []
    made.test_run(PACKET)
    assert [e.text for e in made.events() if e.kind == "trace"] == ["packet 20"]
    assert made.lost == {}


def run(path: Path, *options: str) -> Any:
    given = ["run", str(path), "--synth", "udp,flows=5,count=5000", "-j"]
    done = CliRunner().invoke(build(), [*given, *options], catch_exceptions=False)
    assert done.exit_code == 0
    return done


@pytest.mark.parametrize("more", [(), ("--one-by-one",), ("--backend", "x86", "-b", "200")])
def test_ndjson_holds_every_event(path: Path, more: tuple[str, ...], tmp_path: Path) -> None:
    """Rings are read before they are full, however fast packets come."""
    done = run(path, "-Q", "--events", str(tmp_path / "x"), *more)
    lines = [json.loads(line) for line in (tmp_path / "x").read_text().splitlines()]
    assert len(lines) == 4 * 5000
    assert [line["text"] for line in lines[2::4]] == [f"packet {n}" for n in range(5000)]
    assert lines[4] == {"type": "ringbuf", "map": "ring", "size": 4, "data": "01000000"}
    assert json.loads(done.stdout)["events"] == {"written": 20000, "lost": {}}


def test_a_terminal_sees_printed_lines(path: Path) -> None:
    assert "trace: packet 4999" in run(path).stderr
    assert run(path, "-Q").stderr == ""
    shown = run(path, "--events", "text", "-c", "1").stderr.splitlines()
    assert shown[0] == "ring: 4 bytes 00 00 00 00"
    assert shown[2] == "trace: packet 0"


def test_standard_output_is_a_stream_of_events(path: Path) -> None:
    done = CliRunner().invoke(
        build(), ["run", str(path), "--synth", "udp", "-c", "3", "--events", "-"]
    )
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 12
    assert "XDP_PASS" in done.stderr


def test_what_finds_no_room_is_counted(tmp_path: Path) -> None:
    """Without a reader, 16 bytes stay for each record in a ring of one page."""
    report = json.loads(run(make(tmp_path, 4096), "-Q").stdout)
    assert report["events"]["lost"]["ring"] == 2 * 5000 - (4096 - 1) // 16
    assert report["events"]["written"] == 0


def test_order_goes_on_when_numbers_start_again() -> None:
    memory = records._order.view("<u8")
    before = int(memory[0])
    rings = {name: Map(MapSpec(name, MapNumber.RINGBUF, 0, 0, 4096)) for name in "ab"}
    data = aligned(8)
    try:
        memory[0] = (1 << 32) - 3
        reader = Events(rings)
        for i in range(6):
            data[0] = i
            records.append(
                rings["ab"[i % 2]].kind.rings(rings["ab"[i % 2]])[0], address_of(data), 1
            )
        assert [event.data[0] for event in reader.take()] == list(range(6))
    finally:
        memory[0] = before + 6


def test_a_file_that_cannot_be_written_is_an_error(path: Path, tmp_path: Path) -> None:
    given = ["run", str(path), "--synth", "udp", "-c", "1", "--events", str(tmp_path)]
    assert "unwritable" in str(CliRunner().invoke(build(), given).exception)
    assert events.Sink("").wants_lines is False
