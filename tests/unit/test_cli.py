"""The command line as its users meet it: real processes, exit status, stdout and stderr apart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xdpbatch.pcap.write import pcap

EXAMPLES = Path(__file__).parents[2] / "src/xdpbatch/examples"
PARSE, TX, DROP = (str(EXAMPLES / f"{name}.o") for name in ("parse", "tx", "drop"))
XDPBATCH = (sys.executable, "-m", "xdpbatch")
SYNTH = "udp,tcp,size=64-300,flows=50,count=1000"


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*XDPBATCH, *arguments],
        input=stdin,
        capture_output=True,
        timeout=120,
        check=False,
    )


def refused(*arguments: str, stdin: bytes = b"") -> str:
    """stderr of a command that must end with status 2, without a traceback, stdout empty."""
    done = run(*arguments, stdin=stdin)
    error = done.stderr.decode()
    assert done.returncode == 2, error
    assert "Traceback" not in error
    return error


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> str:
    """1000 packets, made by the tool itself."""
    path = tmp_path_factory.mktemp("capture") / "in.pcapng"
    done = run("run", str(EXAMPLES / "pass.o"), "--synth", SYNTH, "-w", str(path))
    assert done.returncode == 0, done.stderr
    return str(path)


def test_json_adds_up(capture: str) -> None:
    answer = json.loads(run("run", TX, "-r", capture, "-j").stdout)
    assert answer["packets"] == sum(answer["actions"].values()) == 1000
    assert answer["actions"]["XDP_TX"] == 1000
    assert answer["sent"]["1"] == {"packets": 1000, "bytes": answer["bytes"]}
    assert (answer["backend"], answer["layout"], answer["batch_size"]) == ("llvm", "batch", 64)
    assert answer["skipped"] == answer["errors"] == {}


@pytest.mark.parametrize("size", ["1", "3", "64", "256"])
def test_batch_sizes_write_the_same_capture(capture: str, size: str, tmp_path: Path) -> None:
    outputs = []
    for options in (["-b", size], ["--one-by-one"], ["--backend", "interp", "-b", size]):
        path = tmp_path / "out.pcapng"
        assert run("run", TX, "-r", capture, "-w", str(path), *options).returncode == 0
        outputs.append(path.read_bytes())
    assert outputs[0] == outputs[1] == outputs[2]
    assert len(outputs[0]) > 64_000


def test_streams(capture: str) -> None:
    piped = run("run", TX, "-r", "-", "-w", "-", stdin=Path(capture).read_bytes())
    assert piped.returncode == 0
    assert piped.stdout[:4] == b"\n\r\r\n"
    again = json.loads(run("run", DROP, "-r", "-", "-j", stdin=piped.stdout).stdout)
    assert again["actions"]["XDP_DROP"] == 1000


def test_table_says_what_is_in_force(capture: str) -> None:
    first, *rest = run("run", PARSE, "-r", capture, "-b", "32").stdout.decode().splitlines()
    assert "xdp_parse (section xdp)" in first
    assert "backend llvm, layout batch, batch 32, capture" in first
    assert any(line.startswith("XDP_PASS") and "1,000" in line for line in rest)


def test_baseline_line(capture: str) -> None:
    last = run("run", PARSE, "-r", capture, "--baseline").stdout.decode().splitlines()[-1]
    assert last.startswith("batching bought")
    assert "one by one" in last


def test_packets_and_skips_are_the_input() -> None:
    packets = [b"", bytes(13), bytes(14), bytes(64), bytes(3520), bytes(3521), bytes(65535)]
    answer = json.loads(run("run", DROP, "-r", "-", "-j", stdin=pcap(packets)).stdout)
    assert answer["packets"] == 3
    assert sum(answer["skipped"].values()) == 4


def test_cut_off_capture() -> None:
    data = pcap([bytes(60)] * 5)
    answer = json.loads(run("run", DROP, "-r", "-", "-j", stdin=data[:-10]).stdout)
    assert (answer["packets"], sum(answer["skipped"].values())) == (4, 1)


def test_lying_capture_is_reported_after_its_packets() -> None:
    data = bytearray(pcap([bytes(60)] * 5))
    data[24 + 2 * 76 + 8 : 24 + 2 * 76 + 12] = b"\xff\xff\xff\x7f"
    done = run("run", DROP, "-r", "-", "-j", stdin=bytes(data))
    assert done.returncode == 2
    assert json.loads(done.stdout)["packets"] == 2
    assert b"error[capture-malformed]" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run", "/nonexistent.o", "-r", "x"], "unreadable-file"),
        (["run", __file__, "-r", "x"], "not-elf"),
        (["run", os.devnull, "-r", "x"], "empty-file"),
        (["run", DROP, "-r", "/nonexistent.pcap"], "capture-unreadable"),
        (["run", DROP, "-r", __file__], "capture-format"),
        (["run", DROP, "-r", os.devnull], "capture-empty"),
        (["run", DROP], "usage"),
        (["run", DROP, "-r", "x", "--synth", "udp"], "usage"),
        (["run", DROP, "--synth", "udp,colour=red"], "synthetic-traffic"),
        (["run", DROP, "--synth", "count=9", "-w", "/nonexistent/out"], "capture-unwritable"),
        (["run", DROP, "-n", "nothing", "--synth", "count=9"], "no-such-program"),
        (["compare", DROP, "--synth", "count=9", "-b", "0"], "usage"),
        (["compare", DROP, "--synth", "count=9", "--against", "magic"], "unknown-side"),
        (["test-run", DROP, "--data-in", "/nonexistent"], "unreadable"),
        (["test-run", DROP, "--data-in", os.devnull], "packet-length"),
    ],
)
def test_bad_input_is_one_clear_error(arguments: list[str], code: str) -> None:
    assert refused(*arguments).startswith(f"error[{code}]")


@pytest.mark.parametrize(
    "arguments", [["run", DROP, "-b", "0"], ["nonsense"], ["run"], ["run", DROP, "--backend", "z"]]
)
def test_usage_is_status_2(arguments: list[str]) -> None:
    refused(*arguments)


@pytest.mark.parametrize("backend", [(), ("--backend", "interp")])
def test_interrupt_counts_what_was_done(backend: tuple[str, ...], tmp_path: Path) -> None:
    """Ctrl-C in the middle: what was read is written and counted."""
    out = tmp_path / "out.pcapng"
    process = subprocess.Popen(
        [*XDPBATCH, "run", DROP, "--synth", "udp,count=0", "-j", "-w", str(out), *backend],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (out.exists() and out.stat().st_size > 1 << 14):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in stderr
    answer = json.loads(stdout)
    assert answer["interrupted"] is True
    read = json.loads(run("run", DROP, "-r", str(out), "-j").stdout)
    assert read["packets"] == answer["packets"] > 0
    assert read["skipped"] == {}


def test_test_run(tmp_path: Path) -> None:
    packet, out = tmp_path / "in", tmp_path / "out"
    packet.write_bytes(bytes(range(64)))
    done = run("test-run", TX, "--data-in", str(packet), "--data-out", str(out), "--repeat", "3")
    assert done.stdout.startswith(b"Return value: 3, duration (average): ")
    swapped = bytes(range(6, 12)) + bytes(range(6)) + bytes(range(12, 64))
    assert out.read_bytes() == swapped  # three swaps are one
    answer = json.loads(run("test-run", DROP, "--data-in", str(packet), "-j").stdout)
    assert answer["retval"] == 1
    assert answer["duration"] >= 0


def test_compare_finds_nothing(capture: str) -> None:
    done = run("compare", PARSE, "-r", capture, "--against", "interp,single,x86")
    assert done.returncode == 0
    assert done.stdout.decode().splitlines()[-1] == "1000 packets: no difference"


def test_verify_statuses(tmp_path: Path) -> None:
    broken = tmp_path / "broken.o"
    broken.write_bytes(Path(DROP).read_bytes()[:100])
    assert run("verify", DROP, TX).returncode == 0
    done = run("verify", DROP, str(broken), "-j")
    assert done.returncode == 2
    assert [p["accepted"] for p in json.loads(done.stdout)["programs"]] == [True, False]


@pytest.mark.parametrize("stage", ["raw", "xlated", "batched", "llvm", "jited"])
def test_dump(stage: str) -> None:
    done = run("dump", stage, DROP)
    assert done.returncode == 0
    assert "xdp_drop" in done.stdout.decode() or "xdpbatch.entry" in done.stdout.decode()


def test_features() -> None:
    answer = json.loads(run("features", "-j").stdout)
    for kind, name in (("map_types", "hash"), ("helpers", "map_lookup_elem")):
        assert {"name": name, "supported": True, "note": ""} in answer[kind]
    absent = [item for item in answer["helpers"] if not item["supported"]]
    assert all(item["note"] for item in absent)
    assert {f["name"] for f in answer["machine"]} >= {"backend llvm", "backend kernel", "AF_XDP"}


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['xdpbatch', '--help']\n"
        "from xdpbatch.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('numpy', 'llvmlite', 'numba', 'elftools', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode().splitlines()[-1] == "[]"
