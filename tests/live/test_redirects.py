"""Each kind of redirect on live interfaces, and the same programs run by the kernel beside it."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from network import (
    ETH_P_ALL,
    Host,
    Wire,
    frame,
    instance_of,
    number_of,
    receive,
    send,
    settle,
    veth,
)
from test_actions import exact, ifindex

import xdpbatch.examples
from xdpbatch import elf
from xdpbatch.live import Live
from xdpbatch.program import Object
from xdpbatch.runtime import Instance
from xdpbatch.sys import link, netns
from xdpbatch.sys.bpf import Fd
from xdpbatch.sys.kernel import KernelObject

pytestmark = pytest.mark.afxdp

COUNT = 500
EXAMPLES = Path(next(iter(xdpbatch.examples.__path__)))
BROADCAST, EXCLUDE_INGRESS = 1 << 3, 1 << 4
TO_MAP = """
    .map ports {type} 4 {value} 8
    r2 = {key}
    r1 = map[ports] ll
    r3 = {flags}
    call bpf_redirect_map#51
    exit
"""


class Star:
    """The runtime's host `b` with v1 to `a`, and w1, x1 to two receivers."""

    def __init__(self, hosts: Callable[[], Host]) -> None:
        self.a, self.b, self.c, self.d = (hosts() for _ in range(4))
        self.wire = Wire(self.a, self.b)
        veth(self.c, "w0", self.b, "w1")
        veth(self.d, "x0", self.b, "x1")
        self.ifindex = {name: ifindex(self.b, name) for name in ("v1", "w1", "x1")}
        self.ends = {
            "v1": self.a.packet_socket("v0", ETH_P_ALL),
            "w1": self.c.packet_socket("w0", ETH_P_ALL),
            "x1": self.d.packet_socket("x0", ETH_P_ALL),
        }

    def received(self, name: str, count: int, timeout: float = 5.0) -> list[int]:
        return list(map(number_of, receive(self.ends[name], count, timeout)))


@pytest.fixture
def star(hosts: Callable[[], Host]) -> Star:
    return Star(hosts)


def run(star: Star, instance: Instance, ports: dict[int, bytes], **options: object) -> Live:
    """Fill the map, take v1 over and send; the runtime is closed again."""
    for key, value in ports.items():
        instance.maps["ports"][struct.pack("=I", key)] = value
    live = star.wire.live(instance, to=["w1", "x1"], **options)
    with live:
        send(star.a.packet_socket("v0"), [frame(i, 0) for i in range(COUNT)])
        settle(live, COUNT)
    exact(live.counts())
    return live


@pytest.mark.parametrize("batch", [{"batch_size": 64}, {"single": True}], ids=str)
@pytest.mark.parametrize("kind", ["devmap", "devmap_hash"])
def test_devmaps(star: Star, kind: str, batch: dict[str, int]) -> None:
    instance = instance_of(TO_MAP.format(type=kind, value=4, key=5, flags=0))
    live = run(star, instance, {5: struct.pack("=I", star.ifindex["w1"])}, **batch)
    assert star.received("w1", COUNT) == list(range(COUNT))
    assert star.received("x1", 1, 0.1) == []
    assert live.counts().errors == {}


@pytest.mark.parametrize("flags", [BROADCAST, BROADCAST | EXCLUDE_INGRESS])
def test_broadcast(star: Star, flags: int) -> None:
    """To all devices of the map; to the one that it came from only without EXCLUDE_INGRESS."""
    instance = instance_of(TO_MAP.format(type="devmap", value=4, key=0, flags=flags))
    names = list(star.ifindex)
    ports = {key: struct.pack("=I", star.ifindex[name]) for key, name in enumerate(names)}
    live = run(star, instance, ports)
    everyone = list(range(COUNT))
    assert star.received("w1", COUNT) == everyone
    assert star.received("x1", COUNT) == everyone
    assert star.received("v1", COUNT, 1.0) == ([] if flags & EXCLUDE_INGRESS else everyone)
    assert live.counts().errors == {}
    assert live.counts().copies == COUNT * (1 if flags & EXCLUDE_INGRESS else 2)


def test_cpumap_goes_to_the_stack(star: Star) -> None:
    up = star.b.packet_socket("v1", ETH_P_ALL)
    instance = instance_of(TO_MAP.format(type="cpumap", value=4, key=1, flags=0))
    live = run(star, instance, {1: struct.pack("=I", 2048)})
    assert list(map(number_of, receive(up, COUNT))) == list(range(COUNT))
    assert live.counts().outcomes["XDP_REDIRECT"] == COUNT


def test_empty_entry_takes_the_flags_action(star: Star) -> None:
    """bpf_redirect_map() returns the low bits of its flags: XDP_DROP here."""
    live = run(star, instance_of(TO_MAP.format(type="devmap", value=4, key=3, flags=1)), {})
    assert live.counts().outcomes["XDP_DROP"] == COUNT


def attached(host: Host, name: str, obj: Object) -> Fd:
    """The kernel runs an object's only program on an interface."""
    (program,) = obj.programs
    with netns.inside(host.fd):
        loaded = KernelObject(obj).program(program)
        return link.attach(loaded.fd, link.interface(name), link.Mode.native)


@pytest.mark.parametrize("name", ["drop", "pass", "tx", "parse", "firewall", "flows"])
def test_examples_behave_as_in_the_kernel(star: Star, name: str) -> None:
    """The same traffic on the same veth through both: the same comes back, and goes up."""
    obj = elf.load(EXAMPLES / f"{name}.o")
    instance = Instance(obj)
    up = star.b.packet_socket("v1", ETH_P_ALL)
    packets = [frame(i, 0, 60 + i) for i in range(COUNT)]

    def outcome() -> tuple[list[bytes], list[bytes]]:
        send(star.a.packet_socket("v0"), packets)
        time.sleep(0.2)
        return receive(star.ends["v1"], COUNT, 0.5), receive(up, COUNT, 0.5)

    with star.wire.live(instance) as live:
        ours = outcome()
        settle(live, COUNT)
    exact(live.counts())
    passing = elf.load(EXAMPLES / "pass.o")
    # The kernel's XDP_TX out of a veth reaches its peer only where a program receives, too.
    with attached(star.a, "v0", passing), attached(star.b, "v1", obj):
        kernels = outcome()
    assert ours == kernels
