"""AF_XDP from Python alone: sockets, rings, both kinds of chunks, shared memory, statistics."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable

import pytest
from network import ETH_P_ALL, Host, Wire, frame, receive, send, veth

from xdpbatch.af_xdp import AfXdp
from xdpbatch.data.umem import Umem
from xdpbatch.ports.af_xdp import AfXdpPort, Sizes
from xdpbatch.sys import link, netns
from xdpbatch.sys.link import Mode
from xdpbatch.sys.redirect import Redirect
from xdpbatch.sys.xsk import CopyMode, Ring, Socket, XskError

pytestmark = pytest.mark.afxdp


def take(xsk: AfXdp, count: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count and (some := xsk.receive(timeout=5)):
        found += some
    return found


@pytest.mark.parametrize("mode", [Mode.native, Mode.skb])
@pytest.mark.parametrize("copy_mode", [CopyMode.copy, CopyMode.auto])  # unaligned, aligned chunks
def test_there_and_back(wire: Wire, mode: Mode, copy_mode: CopyMode) -> None:
    packets = [frame(i, 0, 60 + i % 1400) for i in range(1000)]
    back = wire.a.packet_socket("v0", ETH_P_ALL)
    with netns.inside(wire.b.fd):
        xsk = AfXdp("v1", mode=mode, copy_mode=copy_mode, ring_size=256)
    with xsk:
        for start in range(0, 1000, 100):
            some = packets[start : start + 100]
            send(wire.a.packet_socket("v0"), some)
            found = take(xsk, 100)
            assert found == some
            assert xsk.send(found) == 100
            assert receive(back, 100) == some
        assert xsk.statistics.rx_lost == 0
        assert not xsk.port.socket.zero_copy
    with netns.inside(wire.b.fd):
        assert link.interface("v1").attached == ""


def test_one_umem_over_two_interfaces(hosts: Callable[[], Host]) -> None:
    """A packet received on one interface leaves on the other from the same frame."""
    a, b, c = hosts(), hosts(), hosts()
    Wire(a, b)
    veth(c, "w0", b, "w1")
    umem, sizes = Umem(512), Sizes(64, 64)
    beyond = c.packet_socket("w0", ETH_P_ALL)
    with netns.inside(b.fd):
        one, other = link.interface("v1"), link.interface("w1")
        first = AfXdpPort(umem, one.ifindex, sizes=sizes)
        second = AfXdpPort(umem, other.ifindex, sizes=sizes, shared=first)
        redirect = Redirect(1)
        redirect.add(0, first.socket)
        first.provide()
        attached = link.attach(redirect.fd, one, Mode.native)
    send(a.packet_socket("v0"), [frame(7, 0)])
    (packet,) = first.receive()
    second.send([packet])
    assert receive(beyond, 1) == [frame(7, 0)]
    attached.close()
    second.close()
    first.close()


def test_full_rings_are_counted(wire: Wire) -> None:
    """Nobody reads: 64 packets fit, the others are in the kernel's statistics."""
    with netns.inside(wire.b.fd):
        xsk = AfXdp("v1", ring_size=64)
    with xsk:
        send(wire.a.packet_socket("v0"), [frame(i, 0) for i in range(100)])
        assert len(take(xsk, 64)) == 64
        assert xsk.statistics.rx_lost == 36


def test_a_queue_has_one_owner(wire: Wire) -> None:
    with netns.inside(wire.b.fd):
        with AfXdp("v1"), pytest.raises(XskError, match="another socket is bound") as caught:
            AfXdp("v1")
        assert caught.value.errno == 16  # EBUSY
        AfXdp("v1").close()


def test_zero_copy_is_refused_by_veth(wire: Wire) -> None:
    with netns.inside(wire.b.fd), pytest.raises(XskError, match="has no zero-copy"):
        AfXdp("v1", copy_mode=CopyMode.zero_copy)


def test_bad_memory_is_refused() -> None:
    with Socket() as sock, pytest.raises(XskError, match="register 0 MiB as packet memory"):
        sock.register(1, 4096, 4096)


def test_rings_start_empty_and_of_their_size() -> None:
    umem = Umem(64)
    with Socket() as sock:
        sock.register(umem.area.ctypes.data, umem.area.size, umem.area.shape[1], unaligned=True)
        for ring in Ring:
            sock.make_ring(ring, 32)
        assert {ring.size for ring in sock.rings.values()} == {32}
        assert len({ring.entries for ring in sock.rings.values()}) == 4


def test_the_example_reflects(wire: Wire) -> None:
    back = wire.a.packet_socket("v0", ETH_P_ALL)
    process = wire.b.popen(sys.executable, "-m", "xdpbatch.examples.af_xdp", "v1")
    try:
        deadline = time.monotonic() + 20
        with netns.inside(wire.b.fd):
            while not link.interface("v1").attached and time.monotonic() < deadline:
                time.sleep(0.01)
        send(wire.a.packet_socket("v0"), [frame(i, 0) for i in range(50)])
        found = receive(back, 50)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[0] == "50 packets sent back, 0 lost\n"
    finally:
        process.kill()
    assert [packet[6:12] + packet[:6] + packet[12:] for packet in found] == [
        frame(i, 0) for i in range(50)
    ]
