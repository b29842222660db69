"""Synthetic traffic: packets that scapy finds nothing wrong with, as varied as asked."""

from __future__ import annotations

import signal
from collections import Counter
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.compat import raw
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Dot1Q, Ether

from xdpbatch.data import poll
from xdpbatch.data.collect import Collector
from xdpbatch.data.driver import Driver
from xdpbatch.data.umem import Umem
from xdpbatch.errors import XdpBatchError
from xdpbatch.jit.native import NativeCode, compile_native
from xdpbatch.native import native
from xdpbatch.ports import flows, traffic
from xdpbatch.ports.loop import LoopPort
from xdpbatch.ports.synthetic import SyntheticPort


@native
def nothing(buffs: int, n: int) -> int:
    """A program: every act stays XDP_ABORTED."""
    return 0


@cache
def code() -> NativeCode:
    return compile_native(
        *poll.NATIVES, SyntheticPort.wakeup, LoopPort.wakeup, Collector.recorder, nothing
    )


@cache
def packets(spec: str) -> list[bytes]:
    """What a program is shown of a SPEC's traffic."""
    umem = Umem(256)
    collector = Collector(64)
    port = SyntheticPort(umem, spec, 1)
    driver = Driver(port, LoopPort(umem, 0), code(), {}, 64, collector)
    driver.run(code().address(nothing))
    assert umem.intact()
    return [packet.tobytes() for packet in collector.packets]


MIXED = "udp,tcp=2,icmp=0.5,v6=0.4,vlan=5-9,tagged=0.5,size=60-400,flows=300,count=800,seed=3"
SMALL = "udp,tcp,icmp,v6=0.5,vlan=7,tagged=0.5,size=14,flows=200,count=500"


@pytest.mark.parametrize("spec", [MIXED, SMALL, "udp,count=20", "tcp,v6=1,size=3520,count=20"])
def test_lengths_and_checksums_are_right(spec: str) -> None:
    """scapy writes the same bytes when it computes every length and checksum itself."""
    for data in set(packets(spec)):
        packet = Ether(data)
        for layer in (IP, IPv6, TCP, UDP, ICMP, ICMPv6EchoRequest):
            if packet.haslayer(layer):
                for field in ("len", "plen", "chksum", "cksum"):
                    if field in packet[layer].fields:
                        packet[layer].delfieldval(field)
        assert raw(packet) == data


def test_the_mix_is_what_was_asked_for() -> None:
    sent = [Ether(data) for data in packets(MIXED)]
    n = len(sent)
    assert n == 800
    assert all(60 <= len(p) <= 400 for p in sent)
    assert 0.3 < sum(p.haslayer(IPv6) for p in sent) / n < 0.5
    assert 0.4 < sum(p.haslayer(Dot1Q) for p in sent) / n < 0.6
    assert {p[Dot1Q].vlan for p in sent if p.haslayer(Dot1Q)} == {5, 6, 7, 8, 9}
    assert 0.45 < sum(p.haslayer(TCP) for p in sent) / n < 0.7
    assert 0.05 < sum(p.haslayer(ICMP) or p.haslayer(ICMPv6EchoRequest) for p in sent) / n < 0.25


def key(data: bytes) -> tuple[object, ...]:
    packet = Ether(data)
    ip = packet[IPv6] if packet.haslayer(IPv6) else packet[IP]
    ports = (ip.sport, ip.dport) if packet.haslayer(TCP) or packet.haslayer(UDP) else (0, 0)
    return (ip.src, ip.dst, *ports, type(ip.payload).__name__)


def test_flows_are_distinct_and_within_their_prefixes() -> None:
    spec = "udp,tcp,flows=2000,src=198.51.100.0/24,dst=203.0.113.8,sport=5000-5999,dport=53"
    table = flows.make(traffic.parse(spec))
    keys = [key(table.packet(i)) for i in range(2000)]
    assert len(set(keys)) == 2000
    assert all(str(k[0]).startswith("198.51.100.") and k[1] == "203.0.113.8" for k in keys)
    assert all(5000 <= int(str(k[2])) <= 5999 and k[3] == 53 for k in keys)


def test_a_seed_repeats_and_another_does_not() -> None:
    again = "udp,flows=50,count=200,seed=9,size=100"
    assert packets(again) == packets(again + ",") != packets(again.replace("9", "8"))


def test_zipf_makes_some_flows_popular() -> None:
    even = Counter(packets("udp,flows=100,count=5000"))
    skewed = Counter(packets("udp,flows=100,count=5000,zipf=1.2"))
    assert len(even) == 100
    assert max(even.values()) < 120
    assert max(skewed.values()) > 1000


def test_a_million_flows_at_most_as_there_are() -> None:
    assert flows.make(traffic.parse("udp,flows=256,src=10.0.0.0/24,dst=1.1.1.1,sport=1")).rows.any()
    with pytest.raises(XdpBatchError, match="only 256 or so distinct flows, not 257"):
        flows.make(traffic.parse("udp,flows=257,src=10.0.0.0/24,dst=1.1.1.1,sport=1"))


@pytest.mark.parametrize("how", ["raise", "stop"])
def test_an_endless_run_obeys_a_signal_at_once(how: str) -> None:
    umem = Umem(256)
    port = SyntheticPort(umem, "udp,count=0", 1)
    driver = Driver(port, LoopPort(umem, 0), code())

    def handler(number: int, frame: object) -> None:
        if how == "raise":
            raise KeyboardInterrupt
        driver.queue.stop()

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        driver.run(code().address(nothing))
    except KeyboardInterrupt:
        assert how == "raise"
    finally:
        signal.signal(signal.SIGALRM, before)
    assert driver.stats.packets == sum(driver.stats.outcomes.values()) > 0


def test_ring_mode_shows_the_same_packets_without_writing_them() -> None:
    sent = packets("udp,flows=1000,count=1000,mode=ring")
    assert len(sent) == 1000
    table = flows.make(traffic.parse("udp,flows=1000"))
    assert set(sent) <= {table.packet(i) for i in range(1000)}
    with pytest.raises(XdpBatchError, match="mode=ring needs packets of one length"):
        packets("udp,size=60-70,flows=50,mode=ring")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("upd", "`upd` is not understood"),
        ("udp,size", "`size` is not understood"),
        ("udp,size=1", "`size=1`: a whole number from 14 to 3520 is wanted"),
        ("size=60-20", "the range is empty"),
        ("flows=0", "a whole number from 1 to"),
        ("flows=-1", "a whole number from 1 to"),
        ("v6=2", "a number from 0 to 1 is wanted"),
        ("zipf=nan", "a number from 0 to 10 is wanted"),
        ("src=10.0.0.1/8", "has host bits set"),
        ("mode=fast", "a mode is copy or ring"),
        ("udp=0", "all protocols have weight 0"),
    ],
)
def test_what_is_wrong_in_a_spec_is_named(spec: str, message: str) -> None:
    with pytest.raises(XdpBatchError) as caught:
        traffic.parse(spec)
    assert message in str(caught.value)
    assert f"--> --synth {spec}" in str(caught.value)


def in_house_format(error: XdpBatchError) -> None:
    assert str(error).startswith("error[synthetic-traffic]")


@given(
    st.text(max_size=40)
    | st.lists(
        st.sampled_from(
            ["udp", "tcp=", "size=", "64", ",", "-", "9" * 30, "src=", "0/0", "vlan=1e3", "seed=½"]
        )
    ).map("".join)
)
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_spec_or_an_error(text: str) -> None:
    try:
        traffic.parse(text)
    except XdpBatchError as error:
        in_house_format(error)
