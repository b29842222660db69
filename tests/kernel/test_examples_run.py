"""The examples do what their first lines say, as the kernel runs them."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from xdpbatch import elf, examples
from xdpbatch.btf_value import pack, unpack
from xdpbatch.sys.kernel import KernelObject, Result
from xdpbatch.uapi import Action

pytestmark = pytest.mark.kernel

CLIENT, SERVER = "02:00:00:00:00:01", "02:00:00:00:00:02"
ETHER = Ether(src=CLIENT, dst=SERVER)
PADDING = Raw(bytes(40))


class Example:
    """One example, loaded; keys and values of its maps are given as Python values."""

    def __init__(self, name: str) -> None:
        self.kernel = KernelObject(elf.load(examples.path(name)))
        self.program = self.kernel.program(f"xdp_{name}")

    def run(self, packet: Packet) -> Result:
        return self.program.run(bytes(packet))

    def _pack(self, name: str, part: str, value: object) -> bytes:
        spec, btf = self.kernel.obj.maps[name], self.kernel.obj.btf
        assert btf is not None
        return pack(btf, getattr(spec, f"{part}_type"), value)  # type: ignore[arg-type]

    def set(self, name: str, key: object, value: object) -> None:
        self.kernel.maps[name][self._pack(name, "key", key)] = self._pack(name, "value", value)

    def get(self, name: str, key: object) -> object:
        spec, btf = self.kernel.obj.maps[name], self.kernel.obj.btf
        assert btf is not None
        raw = self.kernel.maps[name][self._pack(name, "key", key)]
        size = btf.size_of(spec.value_type)
        copies = [unpack(btf, spec.value_type, raw[i : i + size]) for i in range(0, len(raw), size)]
        return copies if len(copies) > 1 else copies[0]


def address(text: str) -> int:
    """An IPv4 address as the little-endian number that holds it in network byte order."""
    return int.from_bytes(ipaddress.ip_address(text).packed, "little")


def port(number: int) -> int:
    return int.from_bytes(number.to_bytes(2, "big"), "little")


@pytest.mark.parametrize(
    ("name", "verdict"), [("drop", Action.XDP_DROP), ("pass", Action.XDP_PASS)]
)
def test_constant_verdicts(name: str, verdict: Action) -> None:
    assert Example(name).run(ETHER / IP() / UDP() / PADDING).verdict == verdict


def test_tx_swaps_addresses() -> None:
    packet = ETHER / IP() / UDP() / PADDING
    result = Example("tx").run(packet)
    back = Ether(result.data)
    assert result.verdict == Action.XDP_TX
    assert (back.src, back.dst) == (SERVER, CLIENT)
    assert result.data[12:] == bytes(packet)[12:]


MALFORMED, NOT_IP, TCP4, UDP4, OTHER4, TCP6, UDP6, OTHER6, FRAGMENT = range(9)


@pytest.mark.parametrize(
    ("packet", "kind"),
    [
        (ETHER / IP() / TCP(), TCP4),
        (ETHER / IP(options=b"\1\1\1\1") / UDP(), UDP4),
        (ETHER / Dot1Q(vlan=5) / IP() / UDP(), UDP4),
        (ETHER / Dot1Q(vlan=5, type=0x88A8) / Dot1Q(vlan=6) / IPv6() / TCP(), TCP6),
        (ETHER / IPv6() / IPv6ExtHdrHopByHop() / UDP(), UDP6),
        (ETHER / IP(proto=1) / PADDING, OTHER4),
        (ETHER / IPv6(nh=59) / PADDING, OTHER6),
        (ETHER / IP(frag=100, proto=17) / PADDING, FRAGMENT),
        (ETHER / IPv6() / IPv6ExtHdrFragment(offset=10, nh=17) / PADDING, FRAGMENT),
        (ETHER / ARP(), NOT_IP),
        (ETHER / IP(ihl=4, proto=17) / PADDING, MALFORMED),
        (Ether(bytes(ETHER / IP(proto=17))[:34]), MALFORMED),
        (Ether(bytes(ETHER / IPv6(nh=0))[:54]), MALFORMED),
    ],
)
def test_parse_counts_each_kind(packet: Packet, kind: int) -> None:
    example = Example("parse")
    result = example.run(packet)
    assert result.verdict == (Action.XDP_DROP if kind == MALFORMED else Action.XDP_PASS)
    for key in range(9):
        copies = example.get("counters", key)
        assert isinstance(copies, list)
        total = {name: sum(copy[name] for copy in copies) for name in ("packets", "bytes")}
        expected = (1, len(bytes(packet))) if key == kind else (0, 0)
        assert (total["packets"], total["bytes"]) == expected


def test_firewall_blocks_networks_and_ports() -> None:
    example = Example("firewall")
    example.set("blocked_ipv4", {"prefixlen": 24, "addr": address("10.1.2.0")}, 0)
    net6 = ipaddress.ip_address("2001:db8::").packed
    example.set("blocked_ipv6", {"prefixlen": 32, "addr": net6}, 0)
    example.set("blocked_ports", {"port": port(23), "proto": 6}, 0)
    for packet, blocked in [
        (IP(src="10.1.2.3") / UDP(), True),
        (IP(src="10.1.3.3") / UDP(), False),
        (IPv6(src="2001:db8::1") / UDP(), True),
        (IPv6(src="2001:db9::1") / UDP(), False),
        (IP(src="10.9.9.9") / TCP(dport=23), True),
        (IP(src="10.9.9.9") / UDP(dport=23), False),
        (ARP(), False),
    ]:
        verdict = example.run(ETHER / packet / PADDING).verdict
        assert verdict == (Action.XDP_DROP if blocked else Action.XDP_PASS), packet.summary()
    assert example.get("blocked_ipv4", {"prefixlen": 24, "addr": address("10.1.2.0")}) == 1
    assert example.get("blocked_ports", {"port": port(23), "proto": 6}) == 1


def test_flows_counts_packets_and_bytes() -> None:
    example = Example("flows")
    packet = ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / PADDING
    for _ in range(3):
        assert example.run(packet).verdict == Action.XDP_PASS
    flow = {
        "saddr": [address("10.0.0.1"), 0, 0, 0],
        "daddr": [address("10.0.0.2"), 0, 0, 0],
        "sport": port(1),
        "dport": port(2),
        "proto": 17,
        "version": 4,
    }
    assert example.get("flows", flow) == {"packets": 3, "bytes": 3 * len(bytes(packet))}


def test_redirect_goes_to_the_stack_until_there_is_a_port() -> None:
    example = Example("redirect")
    packet = ETHER / IP() / UDP() / PADDING
    assert example.run(packet).verdict == Action.XDP_PASS
    example.set("ports", 0, 1)
    assert example.run(packet).verdict == Action.XDP_REDIRECT
    example.set("macs", {"addr": bytes.fromhex("020000000002")}, 5)
    assert example.run(packet).verdict == Action.XDP_PASS
    example.set("ports", 5, 1)
    assert example.run(packet).verdict == Action.XDP_REDIRECT


def balancer() -> Example:
    """One service of two servers, each on every second place of the ring."""
    example = Example("lb")
    gateway = {"mac": bytes.fromhex("0200000000fe"), "source": address("192.0.2.1")}
    example.set("gateway", 0, gateway)
    example.set("reals", 0, address("198.51.100.1"))
    example.set("reals", 1, address("198.51.100.2"))
    for i in range(4099):
        example.kernel.maps["ring"][struct.pack("<I", i)] = struct.pack("<I", i % 2)
    example.set("services", {"addr": address("203.0.113.1"), "port": port(80), "proto": 6}, 0)
    return example


def test_lb_wraps_and_keeps_the_server_of_a_flow() -> None:
    example, servers = balancer(), {}
    for sport in [*range(1000, 1032), *range(1000, 1032)]:
        inner = IP(src="10.0.0.1", dst="203.0.113.1") / TCP(sport=sport, dport=80) / PADDING
        result = example.run(ETHER / inner)
        assert result.verdict == Action.XDP_TX
        out = Ether(result.data)
        assert (out.src, out.dst) == (SERVER, "02:00:00:00:00:fe")
        assert bytes(out[IP].payload) == bytes(inner)
        assert (out[IP].proto, out[IP].src, out[IP].len) == (4, "192.0.2.1", len(inner) + 20)
        words = struct.unpack("!10H", result.data[14:34])
        assert sum(words) % 0xFFFF == 0  # RFC 1071: with its checksum a header adds up to -0
        assert servers.setdefault(sport, out[IP].dst) == out[IP].dst
    assert set(servers.values()) == {"198.51.100.1", "198.51.100.2"}
    counted = [example.get("sent", real) for real in (0, 1)]
    assert sum(copy["packets"] for copies in counted for copy in copies) == 64  # type: ignore


def test_lb_leaves_alone_what_is_no_service() -> None:
    example = balancer()
    for packet in (
        IP(dst="203.0.113.1") / TCP(dport=81),
        IP(dst="203.0.113.1") / UDP(dport=80),
        IP(dst="203.0.113.1", flags="MF") / TCP(dport=80),
        IPv6() / TCP(dport=80),
        ARP(),
    ):
        assert example.run(ETHER / packet / PADDING).verdict == Action.XDP_PASS
