"""Debian's xdpfilt objects, live: what they let through is what they let through in the kernel."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path

import pytest
from network import ETH_P_ALL, Host, Wire, receive_frames, send, settle
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from test_actions import exact

from xdpbatch import elf
from xdpbatch.runtime import Instance
from xdpbatch.sys import link, netns
from xdpbatch.sys.kernel import KernelObject, possible_cpus

pytestmark = pytest.mark.afxdp

OBJECTS = Path("/usr/lib/x86_64-linux-gnu/bpf")
SOURCE, DESTINATION, TCP_FLAG, UDP_FLAG = 1, 2, 4, 8  # lib of xdpfilt: what an entry applies to
PORTS = {53: DESTINATION | UDP_FLAG, 80: DESTINATION | TCP_FLAG, 4000: SOURCE | TCP_FLAG | UDP_FLAG}
ADDRESSES = {"10.0.0.1": SOURCE, "10.0.0.2": DESTINATION}
COUNT = 1000


def traffic() -> list[bytes]:
    """Packets of all kinds, some of which the filters are about."""
    chance = random.Random(3)
    made = []
    for number in range(COUNT):
        source, target = (f"10.0.0.{chance.randrange(1, 4)}" for _ in range(2))
        ports = {"sport": chance.choice([4000, 4001]), "dport": chance.choice([53, 80, 443])}
        layer = chance.choice([TCP, UDP])(**ports)
        network = chance.choice([IP(src=source, dst=target), IPv6(src="fd00::1", dst="fd00::2")])
        packet = network / layer if number % 50 else ARP(psrc=source, pdst=target)
        ether = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")
        made.append(bytes(ether / packet / struct.pack("!I", number)))
    return made


def fill(maps: dict[str, MutableMapping[bytes, bytes]], cpus: int) -> None:
    """The filters, in the maps that an object has."""
    for name, key_of, entries in (
        ("filter_ports", lambda port: struct.pack("!H2x", port), PORTS),
        ("filter_ipv4", lambda text: bytes(map(int, text.split("."))), ADDRESSES),
    ):
        for key, flags in entries.items() if name in maps else ():  # type: ignore[attr-defined]
            maps[name][key_of(key)] = struct.pack("=Q", flags) * cpus


@pytest.mark.parametrize("policy", ["alw", "dny"])
@pytest.mark.parametrize("kind", ["all", "eth", "ip", "tcp", "udp"])
def test_xdpfilt(hosts: Callable[[], Host], kind: str, policy: str) -> None:
    path = OBJECTS / f"xdpfilt_{policy}_{kind}.o"
    if not path.exists():
        pytest.skip(f"{path} is missing: apt install xdp-tools")
    wire = Wire(hosts(), hosts())
    up, raw = wire.b.packet_socket("v1", ETH_P_ALL), wire.a.packet_socket("v0")
    obj = elf.load(path)
    packets = traffic()
    instance = Instance(obj)
    fill(dict(instance.maps), 2)
    with wire.live(instance) as live:
        send(raw, packets)
        settle(live, COUNT)
        ours = receive_frames(up, COUNT, 0.5)
    exact(live.counts())
    assert live.counts().received == COUNT
    kernel = KernelObject(obj)
    fill(dict(kernel.maps), possible_cpus())
    (program,) = obj.programs
    with netns.inside(wire.b.fd):
        loaded = kernel.program(program)
        attached = link.attach(loaded.fd, link.interface("v1"), link.Mode.native)
    with attached:
        send(raw, packets)
        time.sleep(0.1)
        theirs = receive_frames(up, COUNT, 0.5)
    assert ours == theirs
    assert len(ours) == live.counts().outcomes["XDP_PASS"]
    if kind == "all":
        assert 0 < len(ours) < COUNT  # the filters did something
