"""Each action on a live interface: packets arrive where they must, in order, none lost or twice."""

from __future__ import annotations

import hashlib
import random
import socket
import struct
import threading
from collections.abc import Callable

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

from xdpbatch.live import Counts
from xdpbatch.sys.link import Mode
from xdpbatch.uapi import Action

pytestmark = pytest.mark.afxdp

ABORTED, DROP, PASS, TX, REDIRECT = map(int, Action)
COUNT = 3000
BATCHES = [{"batch_size": n} for n in (1, 7, 64, 256)]
ONE_BY_ONE = [{"single": True}, {"single": True, "flush_each": True}]
HOW = pytest.mark.parametrize("how", [*BATCHES, *ONE_BY_ONE], ids=str)
MODE = pytest.mark.parametrize("mode", [Mode.native, Mode.skb], ids=str)

# Verdict by byte 14 of the packet; anything without our EtherType is dropped.
CHOOSE = """
    r2 = *(u32 *)(r1 + 0)
    r3 = *(u32 *)(r1 + 4)
    r4 = r2
    r4 += 20
    if r4 > r3 goto drop
    r0 = *(u8 *)(r2 + 12)
    if r0 != 0x88 goto drop
    r0 = *(u8 *)(r2 + 14)
    if r0 != 4 goto out
    r1 = {ifindex}
    r2 = 0
    call bpf_redirect#23
    goto out
drop:
    r0 = 1
out:
    exit
"""
PASS_ALL = "r0 = 2\nexit\n"


def exact(counts: Counts) -> None:
    """Every packet has exactly one outcome or error."""
    done = sum(counts.outcomes.values()) + sum(counts.errors.values())
    assert counts.received + counts.copies == done
    assert counts.received == sum(counts.verdicts.values())


def same(found: list[bytes], wanted: list[bytes]) -> None:
    """The same packets; their numbers first, which say more about what went wrong."""
    assert list(map(number_of, found)) == list(map(number_of, wanted))
    assert found == wanted


def ifindex(host: Host, name: str) -> int:
    return int(host.ip("-o", "link", "show", name).split(":")[0])


@HOW
def test_every_action(hosts: Callable[[], Host], how: dict[str, int]) -> None:
    a, b, c = hosts(), hosts(), hosts()
    wire = Wire(a, b)
    veth(c, "w0", b, "w1")
    verdicts = random.Random(1).choices(range(5), k=COUNT)
    packets = [frame(i, verdict, 60 + i % 900) for i, verdict in enumerate(verdicts)]
    back = a.packet_socket("v0", ETH_P_ALL)
    beyond = c.packet_socket("w0", ETH_P_ALL)
    up = b.packet_socket("v1", ETH_P_ALL)
    choose = instance_of(CHOOSE.format(ifindex=ifindex(b, "w1")))
    with wire.live(choose, to=["w1"], **how) as live:
        send(a.packet_socket("v0"), packets)
        settle(live, COUNT)
        by_action = {v: [p for p in packets if p[14] == v] for v in range(5)}
        same(receive(back, len(by_action[TX])), by_action[TX])
        same(receive(beyond, len(by_action[REDIRECT])), by_action[REDIRECT])
        same(receive(up, len(by_action[PASS])), by_action[PASS])
    counts = live.counts()
    exact(counts)
    assert counts.outcomes == {a.name: len(by_action[int(a)]) for a in Action}
    assert counts.errors == {}
    assert counts.kernel == {}
    for raw in (back, beyond, up):
        assert receive(raw, 1, 0.1) == []


def test_redirect_without_a_port_is_an_error_by_name(wire: Wire) -> None:
    with wire.live(instance_of(CHOOSE.format(ifindex=4242))) as live:
        send(wire.a.packet_socket("v0"), [frame(i, REDIRECT) for i in range(100)])
        settle(live, 100)
    exact(live.counts())
    assert live.counts().errors == {"xdp_redirect_no_target": 100}


def test_too_long_for_the_target_is_an_error_by_name(hosts: Callable[[], Host]) -> None:
    a, b, c = hosts(), hosts(), hosts()
    wire = Wire(a, b)
    veth(c, "w0", b, "w1")
    b.ip("link", "set", "w1", "mtu", "500")
    choose = instance_of(CHOOSE.format(ifindex=ifindex(b, "w1")))
    with wire.live(choose, to=["w1"]) as live:
        send(a.packet_socket("v0"), [frame(i, REDIRECT, size) for i, size in enumerate((518, 519))])
        settle(live, 2)
    assert live.counts().errors == {"xdp_redirect_too_long": 1}
    assert live.counts().outcomes["XDP_REDIRECT"] == 1


@MODE
def test_pass_goes_to_the_stack(wire: Wire, mode: Mode) -> None:
    """ARP, ICMP, a TCP transfer and UDP through the runtime; the kernel of `b` answers."""
    _addresses(wire)
    with wire.live(instance_of(PASS_ALL), mode=mode) as live:
        assert [_ping(wire.a, "10.9.0.2", number) for number in range(20)] == list(range(20))
        _udp(wire)
        _tcp(wire, 20 << 20)
    exact(live.counts())
    assert {k for k, n in live.counts().outcomes.items() if n} == {"XDP_PASS"}


@MODE
def test_packets_are_seen_once(wire: Wire, mode: Mode) -> None:
    """In skb mode too: what was given back does not come to the program again."""
    up = wire.b.packet_socket("v1", ETH_P_ALL)
    packets = [frame(i, PASS) for i in range(500)]
    with wire.live(instance_of(PASS_ALL), mode=mode) as live:
        send(wire.a.packet_socket("v0"), packets)
        settle(live, 500)
        found = receive(up, 1500, 1.0)
    passed = [number_of(p) for p in found]
    assert live.counts().received == 500
    assert passed == list(range(500))


def test_ipv6_passes(wire: Wire) -> None:
    for host, end, address in ((wire.a, "v0", "fd00::1/64"), (wire.b, "v1", "fd00::2/64")):
        host.run("sysctl", "-qw", f"net.ipv6.conf.{end}.disable_ipv6=0")
        host.ip("addr", "add", address, "dev", end, "nodad")
    wire.a.run("ethtool", "-K", "v0", "tx", "off")
    server = wire.b.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    server.bind(("fd00::2", 5353))
    server.settimeout(5)
    with wire.live(instance_of(PASS_ALL)):
        wire.a.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b"hello", ("fd00::2", 5353))
        assert server.recv(100) == b"hello"


def test_vlan_tags_survive(wire: Wire) -> None:
    up = wire.b.packet_socket("v1", ETH_P_ALL)
    up.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA: the kernel takes the tag off
    tagged = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x81\x00\x00\x2a\x88\xb5".ljust(80, b"\x55")
    with wire.live(instance_of(PASS_ALL)) as live:
        wire.a.packet_socket("v0").send(tagged)
        settle(live, 1)
        up.settimeout(5)
        data, ancillary, _, _ = up.recvmsg(200, 100)
    (auxiliary,) = [value for level, kind, value in ancillary if (level, kind) == (263, 8)]
    assert struct.unpack_from("=H", auxiliary, 16)[0] == 42
    assert data[12:14] == b"\x88\xb5"


def _addresses(wire: Wire) -> None:
    """IPv4 addresses; checksums are computed before packets leave, as a network card's are."""
    wire.a.ip("addr", "add", "10.9.0.1/24", "dev", "v0")
    wire.b.ip("addr", "add", "10.9.0.2/24", "dev", "v1")
    wire.a.run("ethtool", "-K", "v0", "tx", "off")


def _ping(host: Host, to: str, number: int) -> int:
    """One ICMP echo; the number that comes back."""
    raw = host.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    raw.settimeout(5)
    head = struct.pack("!BBHHH", 8, 0, 0, 77, number)
    total = sum(struct.unpack("!4H", head))
    checksum = ~((total >> 16) + (total & 0xFFFF)) & 0xFFFF
    raw.sendto(struct.pack("!BBHHH", 8, 0, checksum, 77, number), (to, 0))
    while True:
        answer = raw.recv(1000)[20:]
        if answer[0] == 0:
            return int(struct.unpack_from("!H", answer, 6)[0])


def _udp(wire: Wire) -> None:
    """A question and an answer, as DNS has them."""
    server = wire.b.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client = wire.a.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("10.9.0.2", 53))
    for one in (server, client):
        one.settimeout(5)
    client.sendto(b"question", ("10.9.0.2", 53))
    question, address = server.recvfrom(100)
    server.sendto(question + b" answered", address)
    assert client.recv(100) == b"question answered"


def _tcp(wire: Wire, size: int) -> None:
    """A transfer to `b`, compared by checksum."""
    listener = wire.b.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("10.9.0.2", 8080))
    listener.listen()
    client = wire.a.socket(socket.AF_INET, socket.SOCK_STREAM)
    sent = random.Random(2).randbytes(1 << 20) * (size >> 20)
    arrived = hashlib.sha256()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(1 << 20):
                arrived.update(data)

    thread = threading.Thread(target=serve)
    thread.start()
    client.settimeout(60)
    client.connect(("10.9.0.2", 8080))
    client.sendall(sent)
    client.close()
    thread.join(60)
    assert arrived.hexdigest() == hashlib.sha256(sent).hexdigest()


@pytest.mark.parametrize("how", [{"batch_size": 64}, {"single": True}], ids=str)
def test_every_action_in_skb_mode(wire: Wire, how: dict[str, int]) -> None:
    back = wire.a.packet_socket("v0", ETH_P_ALL)
    up = wire.b.packet_socket("v1", ETH_P_ALL)
    packets = [frame(i, (DROP, PASS, TX)[i % 3]) for i in range(COUNT)]
    text = CHOOSE.format(ifindex=1)
    with wire.live(instance_of(text), mode=Mode.skb, **how) as live:
        send(wire.a.packet_socket("v0"), packets)
        settle(live, COUNT)
        same(receive(back, COUNT // 3), packets[2::3])
        same(receive(up, COUNT // 3), packets[1::3])
    exact(live.counts())
    assert live.counts().outcomes["XDP_DROP"] == COUNT // 3


def test_interface_down_and_up(wire: Wire) -> None:
    """The program stays; packets come again when the interface does."""
    back = wire.a.packet_socket("v0", ETH_P_ALL)
    raw = wire.a.packet_socket("v0")
    with wire.live(instance_of("r0 = 3\nexit\n")) as live:
        send(raw, [frame(i, TX) for i in range(100)])
        assert len(receive(back, 100)) == 100
        wire.b.ip("link", "set", "v1", "down")
        wire.b.ip("link", "set", "v1", "up")
        back.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        send(raw, [frame(i, TX) for i in range(100)])
        assert len(receive(back, 100)) == 100
        assert live.failure is None
    assert live.counts().outcomes["XDP_TX"] == 200


def test_saturation_is_counted(wire: Wire) -> None:
    """Far more than fits: each packet was run, or the kernel says that it found no room."""
    raw = wire.a.packet_socket("v0")
    slow = {"ring_size": 64, "flush_each": True, "single": True}
    with wire.live(instance_of("r0 = 3\nexit\n"), **slow) as live:
        for number in range(30_000):
            raw.send(frame(number, TX))
        settle(live, 30_000, 1.0)
    counts = live.counts()
    exact(counts)
    lost = counts.kernel.get("rx_ring_full", 0) + counts.kernel.get("rx_dropped", 0)
    assert counts.received + lost == 30_000
