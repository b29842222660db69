"""Taking interfaces over and giving them back: whatever ends a run, nothing of it is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from network import ETH_P_ALL, Host, Wire, frame, receive, send

import xdpbatch.examples
from xdpbatch.sys import link, netns

pytestmark = pytest.mark.afxdp

EXAMPLES = Path(next(iter(xdpbatch.examples.__path__)))
XDPBATCH = (sys.executable, "-m", "xdpbatch", "run")


def attached(host: Host, name: str) -> str:
    with netns.inside(host.fd):
        return link.interface(name).attached


def wait(condition: Callable[[], object], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@contextmanager
def running(wire: Wire, program: str | Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`xdpbatch run -i v1`, attached."""
    process = wire.b.popen(*XDPBATCH, EXAMPLES / program, "-i", "v1", *options)
    try:
        wait(lambda: process.poll() is not None or attached(wire.b, "v1"))
        if process.poll() is not None:
            pytest.fail(process.communicate()[1])
        yield process
    finally:
        process.kill()
        process.wait()


def finish(process: subprocess.Popen[str], number: int = signal.SIGINT) -> tuple[str, str]:
    """End it by a signal; its output."""
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    return out, err


def objects(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def refused(wire: Wire, *options: str) -> str:
    """What a run that must not start says."""
    process = wire.b.popen(*XDPBATCH, EXAMPLES / "drop.o", *options)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 2, (out, err)
    assert "Traceback" not in err
    assert attached(wire.b, "v1") == ""
    return err


def untouched(wire: Wire) -> bool:
    """Nothing is attached, and no helper device is left."""
    return attached(wire.b, "v1") == "" and wire.b.ip("-o", "link").count("\n") == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_every_end_detaches(wire: Wire, number: int) -> None:
    with running(wire, "drop.o") as process:
        process.send_signal(number)
        process.wait(30)
        assert attached(wire.b, "v1") == ""
    wait(lambda: untouched(wire), 5)


def test_ten_restarts_under_traffic(wire: Wire) -> None:
    """Killed and started again: never busy, and each time packets are received."""
    raw = wire.a.packet_socket("v0")
    for _ in range(10):
        with running(wire, "drop.o", "-j", "-I", "0") as process:
            send(raw, [frame(i, 0) for i in range(300)])
            process.kill()
            process.wait()
            assert attached(wire.b, "v1") == ""
    with running(wire, "drop.o", "-j", "-I", "0") as process:
        send(raw, [frame(i, 0) for i in range(300)])
        time.sleep(0.2)
        (summary,) = objects(finish(process)[0])
    assert summary["packets"] == 300


def test_summary_adds_up(wire: Wire) -> None:
    with running(wire, "drop.o", "-j", "-I", "0.2") as process:
        send(wire.a.packet_socket("v0"), [frame(i, 0) for i in range(2000)])
        time.sleep(0.5)
        out, err = finish(process)
    *rates, summary = objects(out)
    assert "native mode, copy" in err
    assert {one["type"] for one in rates} == {"rates"}
    assert summary["packets"] == 2000
    assert sum(one["packets"] for one in rates) == 2000
    assert summary["actions"]["XDP_DROP"] == 2000
    assert summary["kernel"] == {}


def test_another_program_is_left_alone(wire: Wire) -> None:
    with running(wire, "drop.o"):
        before = attached(wire.b, "v1")
        process = wire.b.popen(*XDPBATCH, EXAMPLES / "pass.o", "-i", "v1")
        _, err = process.communicate(timeout=30)
        assert process.returncode == 2
        assert "error[interface-busy]: v1 already runs" in err
        assert attached(wire.b, "v1") == before


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["-i", "nope"], "error[no-such-interface]"),
        (["-i", "v1", "-q", "1"], "has no queue 1"),
        (["-i", "v1", "-q", "x"], "names no queues"),
        (["-i", "v1", "-C", "zero-copy"], "use -C copy"),
        (["-i", "v1", "--ring-size", "100"], "power of two"),
        (["-i", "v1", "--user", "no such user"], "cannot become user"),
        (["-i", "v1", "--backend", "interp"], "does not run on live interfaces"),
    ],
)
def test_refusals_name_the_remedy(wire: Wire, options: list[str], expected: str) -> None:
    assert expected in refused(wire, *options)


def test_large_mtu_is_refused(wire: Wire) -> None:
    wire.a.ip("link", "set", "v0", "mtu", "9000")
    wire.b.ip("link", "set", "v1", "mtu", "9000")
    assert "mtu 3502" in refused(wire, "-i", "v1")


def test_without_privileges(wire: Wire) -> None:
    process = wire.b.popen(
        "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all",
        *XDPBATCH, EXAMPLES / "drop.o", "-i", "v1",
    )  # fmt: skip
    _, err = process.communicate(timeout=30)
    if "No module named" in err or "Permission denied" in err:
        pytest.skip("another user cannot read this Python installation")
    assert process.returncode == 2
    assert "EPERM" in err
    assert "run as root" in err


def test_interface_deleted_under_load(wire: Wire) -> None:
    with running(wire, "drop.o", "-j", "-I", "0") as process:
        send(wire.a.packet_socket("v0"), [frame(i, 0) for i in range(500)])
        time.sleep(0.2)
        wire.b.ip("link", "del", "v1")
        out, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "v1" in err
    assert "vanished" in err
    (summary,) = objects(out)
    assert summary["packets"] == 500


def test_peer_down_and_up(wire: Wire) -> None:
    """What cannot be sent is counted; afterwards everything goes on."""
    back = wire.a.packet_socket("v0", ETH_P_ALL)
    raw = wire.a.packet_socket("v0")
    with running(wire, "tx.o", "-j", "-I", "0") as process:
        send(raw, [frame(i, 0) for i in range(100)])
        assert len(receive(back, 100)) == 100
        wire.a.ip("link", "set", "v0", "down")
        time.sleep(0.1)
        wire.a.ip("link", "set", "v0", "up")
        back.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # ENETDOWN, kept since
        wait(lambda: "LOWER_UP" in wire.b.ip("link", "show", "v1"))
        send(raw, [frame(i, 0) for i in range(100)])
        assert len(receive(back, 100)) == 100
        (summary,) = objects(finish(process)[0])
    assert summary["actions"]["XDP_TX"] == 200


def test_reload_loses_nothing(wire: Wire, tmp_path: Path) -> None:
    """SIGHUP: tx.o becomes drop.o while packets come; each went to one of them."""
    path = tmp_path / "program.o"
    shutil.copy(EXAMPLES / "tx.o", path)
    raw = wire.a.packet_socket("v0")
    with running(wire, path, "-j", "-I", "0") as process:
        send(raw, [frame(i, 0) for i in range(1000)])
        time.sleep(0.2)
        shutil.copy(EXAMPLES / "drop.o", tmp_path / "next.o")
        os.replace(tmp_path / "next.o", path)
        process.send_signal(signal.SIGHUP)
        send(raw, [frame(i, 0) for i in range(20_000)])
        time.sleep(0.5)
        out, err = finish(process)
    (summary,) = objects(out)
    assert "reloaded: xdp_drop" in err
    assert summary["packets"] == 21_000
    assert summary["actions"]["XDP_TX"] + summary["actions"]["XDP_DROP"] == 21_000
    assert summary["actions"]["XDP_TX"] >= 1000
    assert summary["actions"]["XDP_DROP"] > 0


def test_reload_of_a_bad_object_changes_nothing(wire: Wire, tmp_path: Path) -> None:
    path = tmp_path / "program.o"
    shutil.copy(EXAMPLES / "drop.o", path)
    with running(wire, path, "-j", "-I", "0") as process:
        path.write_bytes(b"no object")
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        send(wire.a.packet_socket("v0"), [frame(i, 0) for i in range(100)])
        time.sleep(0.2)
        out, err = finish(process)
    assert "not reloaded: xdp_drop goes on" in err
    assert objects(out)[0]["actions"]["XDP_DROP"] == 100


def test_privileges_are_dropped(wire: Wire) -> None:
    with running(wire, "drop.o", "-j", "-I", "0", "--user", "nobody") as process:
        status = Path(f"/proc/{process.pid}/status")
        wait(lambda: _field(status, "Uid") == ["65534"] * 4)
        assert _field(status, "CapEff") == ["0" * 16]
        assert _field(status, "NoNewPrivs") == ["1"]
        send(wire.a.packet_socket("v0"), [frame(i, 0) for i in range(100)])
        time.sleep(0.2)
        out, _ = finish(process)
    assert objects(out)[0]["packets"] == 100
    wait(lambda: untouched(wire), 5)


def _field(status: Path, name: str) -> list[str]:
    (line,) = [one for one in status.read_text().splitlines() if one.startswith(f"{name}:")]
    return line.split()[1:]


@pytest.mark.parametrize(
    "options",
    [["--ring-size", "64"], ["--ring-size", "4096"], ["--spin"], ["--busy-poll"], ["--pin"]],
    ids=" ".join,
)
def test_options_that_change_no_packet(wire: Wire, options: list[str]) -> None:
    back = wire.a.packet_socket("v0", ETH_P_ALL)
    with running(wire, "tx.o", "-j", "-I", "0", *options) as process:
        send(wire.a.packet_socket("v0"), [frame(i, 0) for i in range(640)], burst=32)
        assert len(receive(back, 640)) == 640
        (summary,) = objects(finish(process)[0])
    assert summary["actions"]["XDP_TX"] == 640
    assert summary["kernel"] == {}
