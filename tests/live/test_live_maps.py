"""Maps of a running program, from Python and by `xdpbatch map`."""

from __future__ import annotations

import json
import struct
import sys
import threading
import time
from pathlib import Path

import pytest
from network import Wire, frame, instance_of, send, settle
from test_lifecycle import finish, objects, running

pytestmark = pytest.mark.afxdp

ASK = (sys.executable, "-m", "xdpbatch", "map", "-i", "v1")

# XDP_DROP while `open` is empty; the packet's number and verdict are not looked at.
GATE = """
    .map open hash 4 8 16
    .map hits array 4 8 1
    r1 = 0
    *(u32 *)(r10 - 4) = r1
    r2 = r10
    r2 += -4
    r1 = map[hits] ll
    call bpf_map_lookup_elem#1
    if r0 == 0 goto drop
    r1 = 1
    lock *(u64 *)(r0 + 0) += r1
    r2 = r10
    r2 += -4
    r1 = map[open] ll
    call bpf_map_lookup_elem#1
    if r0 == 0 goto drop
    r0 = 2
    exit
drop:
    r0 = 1
    exit
"""


def test_from_python(wire: Wire) -> None:
    instance = instance_of(GATE)
    raw = wire.a.packet_socket("v0")
    key = bytes(4)
    with wire.live(instance) as live:
        send(raw, [frame(i, 0) for i in range(100)])
        settle(live, 100)
        with live.paused():
            assert instance.maps["hits"][key] == struct.pack("=Q", 100)
            instance.maps["open"][key] = bytes(8)
        send(raw, [frame(i, 0) for i in range(100)])
        settle(live, 200)
        with live.paused():
            del instance.maps["open"][key]
        send(raw, [frame(i, 0) for i in range(100)])
        settle(live, 300)
    assert live.counts().outcomes["XDP_PASS"] == 100
    assert live.counts().outcomes["XDP_DROP"] == 200


def test_pausing_loses_nothing(wire: Wire) -> None:
    """Packets keep coming while maps are written a hundred times."""
    instance = instance_of(GATE)
    raw = wire.a.packet_socket("v0")
    packets = [frame(i, 0) for i in range(10_000)]
    with wire.live(instance) as live:
        sender = threading.Thread(target=send, args=(raw, packets))
        sender.start()
        for number in range(100):
            with live.paused():
                before = live.counts().received
                instance.maps["open"][struct.pack("=I", number % 8)] = bytes(8)
                assert live.counts().received == before
            time.sleep(0.001)
        sender.join()
        settle(live, len(packets))
        with live.paused():
            assert instance.maps["hits"][bytes(4)] == struct.pack("=Q", len(packets))
    assert live.counts().kernel == {}


def test_by_command(wire: Wire, tmp_path: Path) -> None:
    """The firewall's port is blocked, shown and opened while it runs."""
    entries, keys = tmp_path / "entries.json", tmp_path / "keys.json"
    key = {"port": 0x5000, "proto": 17}  # 80 in network byte order
    entries.write_text(json.dumps([{"key": key, "value": 0}]))
    keys.write_text(json.dumps([key]))
    udp = b"\x45\0\0\x1c\0\0\0\0\x40\x11\0\0\x0a\x09\0\1\x0a\x09\0\2\x10\0\0\x50\0\x08\0\0"
    packet = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x08\0" + udp.ljust(46, b"\0")
    raw = wire.a.packet_socket("v0")
    with running(wire, "firewall.o", "-j", "-I", "0") as process:
        send(raw, [packet] * 10)
        wire.b.run(*ASK, "--map", f"blocked_ports={entries}")
        send(raw, [packet] * 20)
        time.sleep(0.2)
        (found,) = json.loads(wire.b.run(*ASK))["blocked_ports"]
        assert found["formatted"] == {"key": key, "value": 20}
        wire.b.run(*ASK, "--remove", f"blocked_ports={keys}")
        send(raw, [packet] * 30)
        time.sleep(0.2)
        (summary,) = objects(finish(process)[0])
    assert summary["actions"]["XDP_DROP"] == 20
    assert summary["actions"]["XDP_PASS"] == 40


def test_errors_are_told(wire: Wire, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[1]")
    with running(wire, "drop.o"):
        process = wire.b.popen(*ASK, "--remove", f"x={path}")
        assert "error[no-such-map]" in process.communicate(timeout=30)[1]
        assert process.returncode == 2
    process = wire.b.popen(sys.executable, "-m", "xdpbatch", "map", "-i", "v1")
    assert "error[not-running]" in process.communicate(timeout=30)[1]
