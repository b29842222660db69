"""Several queues, threads and interfaces; every packet is counted once, in the right place."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import pairwise

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
from test_actions import CHOOSE, DROP, PASS, REDIRECT, TX, exact, ifindex

from xdpbatch.data.umem import Umem
from xdpbatch.ports.af_xdp import AfXdpPort, Sizes
from xdpbatch.sys import link, netns

pytestmark = pytest.mark.afxdp


class QueueSender:
    """Sends on a chosen queue of an interface: an AF_XDP socket per queue, driven from Python."""

    def __init__(self, host: Host, name: str, queues: int) -> None:
        self.ports = []
        with netns.inside(host.fd):
            index = link.interface(name).ifindex
            for queue in range(queues):
                self.ports.append(AfXdpPort(Umem(64), index, queue, sizes=Sizes(0, 64)))

    def send(self, queue: int, *packets: bytes) -> None:
        assert self.ports[queue].send(packets) == len(packets)

    def close(self) -> None:
        for port in self.ports:
            port.close()


@pytest.mark.parametrize("pin", [False, True])
def test_four_queues(hosts: Callable[[], Host], pin: bool) -> None:
    wire = Wire(hosts(), hosts(), queues=4)
    back = wire.a.packet_socket("v0", ETH_P_ALL)
    sender = QueueSender(wire.a, "v0", 4)
    try:
        with wire.live(instance_of("r0 = 3\nexit\n"), pin=pin) as live:
            for number in range(400):
                sender.send(number % 4, frame(number, TX))
            settle(live, 400)
            found = receive(back, 400)
    finally:
        sender.close()
    exact(live.counts())
    assert {s.queue: s.stats.packets for s in live.stations()} == dict.fromkeys(range(4), 100)
    assert sorted(map(number_of, found)) == list(range(400))
    for queue in range(4):  # packets of one queue stay in order
        numbers = [n for n in map(number_of, found) if n % 4 == queue]
        assert all(one < other for one, other in pairwise(numbers))


def test_other_queues_go_to_the_stack(hosts: Callable[[], Host]) -> None:
    """-q 1 of two: queue 0 is as if no program were there, and that is counted."""
    wire = Wire(hosts(), hosts(), queues=2)
    up = wire.b.packet_socket("v1", ETH_P_ALL)
    sender = QueueSender(wire.a, "v0", 2)
    try:
        with wire.live(instance_of("r0 = 1\nexit\n"), queues=[1]) as live:
            for number in range(100):
                sender.send(number % 2, frame(number, DROP))
            settle(live, 50)
            passed = receive(up, 50)
    finally:
        sender.close()
    assert list(map(number_of, passed)) == list(range(0, 100, 2))
    assert live.counts().outcomes["XDP_DROP"] == 50
    assert live.counts().kernel == {"rx_other_queues": 50}


def test_two_interfaces_forward_to_each_other(hosts: Callable[[], Host]) -> None:
    """A bridge of two ports: no packet is copied between them in user space."""
    a, b, c = hosts(), hosts(), hosts()
    wire = Wire(a, b)
    veth(c, "w0", b, "w1")
    first, second = ifindex(b, "v1"), ifindex(b, "w1")
    text = f"""
        r2 = *(u32 *)(r1 + 12)
        r1 = {second}
        if r2 == {first} goto to
        r1 = {first}
    to:
        r2 = 0
        call bpf_redirect#23
        exit
    """
    ends = a.packet_socket("v0", ETH_P_ALL), c.packet_socket("w0", ETH_P_ALL)
    with wire.live(instance_of(text), interfaces=["v1", "w1"]) as live:
        send(ends[0], [frame(i, REDIRECT) for i in range(1000)])
        send(ends[1], [frame(i, REDIRECT) for i in range(1000, 2000)])
        settle(live, 2000)
        assert list(map(number_of, receive(ends[1], 1000))) == list(range(1000))
        assert list(map(number_of, receive(ends[0], 1000))) == list(range(1000, 2000))
        assert all(station.port.umem.copies == 0 for station in live.stations())
    exact(live.counts())
    assert live.counts().outcomes["XDP_REDIRECT"] == 2000


def test_every_frame_comes_back(wire: Wire) -> None:
    """After traffic of all kinds, all memory is in the fill ring or free: nothing leaks."""
    packets = [frame(i, (DROP, PASS, TX, REDIRECT)[i % 4]) for i in range(10_000)]
    choose = instance_of(CHOOSE.format(ifindex=ifindex(wire.b, "v1")))
    with wire.live(choose) as live:
        send(wire.a.packet_socket("v0"), packets)
        settle(live, len(packets))
        for lane in live.lanes:
            lane.drain()
        (station,) = live.stations()
        umem, port = station.port.umem, station.port
        assert umem.free + port.sizes.rx == umem.frames
        assert umem.intact()
    exact(live.counts())


COUNTING = """
    .map total array 4 8 1
    .map each percpu_array 4 8 1
    .map flows hash 4 8 64
    r6 = *(u32 *)(r1 + 0)
    r7 = *(u32 *)(r1 + 4)
    r2 = r6
    r2 += 20
    if r2 > r7 goto out
    r3 = *(u32 *)(r6 + 16)            ; the packet's number, as it lies there
    r3 &= 0x0f000000                  ; of 16 flows
    *(u32 *)(r10 - 8) = r3
    r3 = 0
    *(u32 *)(r10 - 4) = r3
    r2 = r10
    r2 += -4
    r1 = map[total] ll
    call bpf_map_lookup_elem#1
    if r0 == 0 goto out
    r1 = 1
    lock *(u64 *)(r0 + 0) += r1
    r2 = r10
    r2 += -4
    r1 = map[each] ll
    call bpf_map_lookup_elem#1
    if r0 == 0 goto out
    r1 = *(u64 *)(r0 + 0)
    r1 += 1
    *(u64 *)(r0 + 0) = r1
    r2 = r10
    r2 += -8
    r1 = map[flows] ll
    call bpf_map_lookup_elem#1
    if r0 != 0 goto add
    r1 = 1
    *(u64 *)(r10 - 16) = r1
    r2 = r10
    r2 += -8
    r3 = r10
    r3 += -16
    r1 = map[flows] ll
    r4 = 1                            ; BPF_NOEXIST: the other thread may have been first
    call bpf_map_update_elem#2
    if r0 == 0 goto out
    r2 = r10
    r2 += -8
    r1 = map[flows] ll
    call bpf_map_lookup_elem#1
    if r0 == 0 goto out
add:
    r1 = 1
    lock *(u64 *)(r0 + 0) += r1
out:
    r0 = 1
    exit
"""


def test_threads_share_maps(hosts: Callable[[], Host]) -> None:
    """Two threads count into the same maps, by atomics, per CPU and by creating elements."""
    wire = Wire(hosts(), hosts(), queues=2)
    instance = instance_of(COUNTING)
    sender = QueueSender(wire.a, "v0", 2)
    count = 4000
    try:
        with wire.live(instance) as live:
            assert live.lane_count == 2
            for start in range(0, count, 64):
                some = [frame(i, DROP) for i in range(start, min(start + 64, count))]
                sender.send(0, *some[::2])
                sender.send(1, *some[1::2])
            settle(live, count)
    finally:
        sender.close()
    assert live.counts().received == count

    def values(name: str) -> list[int]:
        data = b"".join(instance.maps[name].values())
        return list(struct.unpack(f"={len(data) // 8}Q", data))

    assert values("total") == [count]
    assert values("each") == [count // 2, count // 2]
    assert values("flows") == [count // 16] * 16
