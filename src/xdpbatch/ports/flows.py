"""Flow tables: the first bytes of a packet of each flow, checksums included, made by numpy.

Each of the flows gets one row of `width` bytes (64, or 128 where headers are longer than 64); what
follows in the packet is zero. A packet of a flow is its row, cut or filled up with zeros to the
flow's length, so that writing one is little more than a copy of one or two cache lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from xdpbatch.ports.traffic import PROTOCOLS, Prefix4, Prefix6, Range, Traffic, refused

Array = np.ndarray[Any, np.dtype[Any]]

_ETHERNET, _TAG = 14, 4
_IP_HEADER = {4: 20, 6: 40}
_L4_HEADER = {"udp": 8, "tcp": 20, "icmp": 8}
_MACS = bytes.fromhex("020000000002 020000000001")  # destination, source: locally administered
_ICMP6 = 58
_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd: 2**64 / golden ratio


@dataclass(frozen=True)
class Flows:
    """`rows`: u8[flows, width]; `lengths`: bytes of each flow's packets."""

    rows: Array
    lengths: Array

    def packet(self, flow: int) -> bytes:
        """A packet of a flow, as the port writes it."""
        length = int(self.lengths[flow])
        return bytes(self.rows[flow])[:length].ljust(length, b"\0")


@dataclass(frozen=True)
class _Keys:
    """What tells flows apart, one entry per flow. Addresses are hosts within their prefix."""

    protocol: Array  # index into the mix
    v6: Array
    vlan: Array  # -1: no tag
    src: Array
    dst: Array
    sport: Array
    dport: Array

    def take(self, which: Array) -> _Keys:
        return _Keys(*(getattr(self, name)[which] for name in self.__dataclass_fields__))

    def distinct(self) -> Array:
        """Index of the first of each set of equal flows (addresses, ports and protocol).

        Flows are told apart by a hash of 64 bits: two that collide count as equal, and one is
        drawn anew. Sorting numbers is ten times as fast as sorting rows.
        """
        mixed = np.zeros(len(self.src), dtype=np.uint64)
        for column in (self.protocol, self.v6, self.src, self.dst, self.sport, self.dport):
            mixed = (mixed ^ column.astype(np.uint64)) * _MIX
            mixed ^= mixed >> np.uint64(29)
        first: Array = np.unique(mixed, return_index=True)[1]
        return np.sort(first)


def make(traffic: Traffic) -> Flows:
    """The flow table of a Traffic. Raises XdpBatchError if there are not so many distinct flows."""
    random = np.random.default_rng(traffic.seed)
    keys = _distinct_keys(traffic, random)
    sizes = random.integers(traffic.size[0], traffic.size[1] + 1, traffic.flows)
    headers = np.zeros(traffic.flows, dtype=np.int64)
    groups = list(_groups(traffic, keys))
    for which, protocol, version, tagged in groups:
        headers[which] = _header_length(protocol, version, tagged)
    lengths = np.maximum(sizes, headers)
    width = 64 if headers.max() <= 64 else 128
    rows = np.zeros((traffic.flows, width), dtype=np.uint8)
    for which, protocol, version, tagged in groups:
        group = _Group(protocol, version, tagged, keys.take(which), lengths[which], traffic)
        rows[which, : group.headers] = group.rows()
    return Flows(rows, lengths)


def sequence(traffic: Traffic, flows: Flows, most: int) -> Array:
    """Flow numbers of successive packets: `most` of them, to be repeated."""
    random = np.random.default_rng(traffic.seed + 1)
    if not traffic.zipf:
        return np.asarray(random.integers(0, traffic.flows, most))
    popularity = np.cumsum(1 / np.arange(1, traffic.flows + 1) ** traffic.zipf)
    return np.asarray(np.searchsorted(popularity, random.random(most) * popularity[-1]))


def _distinct_keys(traffic: Traffic, random: np.random.Generator) -> _Keys:
    keys = _draw(traffic, random, traffic.flows)
    for _ in range(64):
        keys = keys.take(keys.distinct())
        if len(keys.src) >= traffic.flows:
            return keys.take(np.arange(traffic.flows))
        more = _draw(traffic, random, 2 * traffic.flows)
        names = keys.__dataclass_fields__
        keys = _Keys(*(np.concatenate((getattr(keys, n), getattr(more, n))) for n in names))
    raise refused(
        traffic.spec,
        f"there are only {len(keys.take(keys.distinct()).src)} or so distinct flows, "
        f"not {traffic.flows}",
        "widen src, dst, sport or dport (icmp has no ports), or ask for fewer flows",
    )


def _draw(traffic: Traffic, random: np.random.Generator, n: int) -> _Keys:
    weights = np.array([weight for _, weight in traffic.mix])
    protocol = random.choice(len(weights), n, p=weights / weights.sum())
    v6 = random.random(n) < traffic.v6
    portless = np.array([name == "icmp" for name, _ in traffic.mix])[protocol]
    vlan = np.full(n, -1, dtype=np.int64)
    if traffic.vlan is not None:
        vlan = np.where(random.random(n) < traffic.tagged, _within(random, traffic.vlan, n), -1)
    return _Keys(
        protocol,
        v6,
        vlan,
        np.where(v6, _hosts(random, traffic.src6, n), _hosts(random, traffic.src, n)),
        np.where(v6, _hosts(random, traffic.dst6, n), _hosts(random, traffic.dst, n)),
        np.where(portless, 0, _within(random, traffic.sport, n)),
        np.where(portless, 0, _within(random, traffic.dport, n)),
    )


def _within(random: np.random.Generator, ends: Range, n: int) -> Array:
    return random.integers(ends[0], ends[1] + 1, n)


def _hosts(random: np.random.Generator, prefix: Prefix4 | Prefix6, n: int) -> Array:
    """Host parts: up to 48 low bits vary, more would tell nothing apart."""
    bits = min(prefix.max_prefixlen - prefix.prefixlen, 48)
    return random.integers(0, 1 << bits, n)


def _groups(traffic: Traffic, keys: _Keys) -> Any:
    """(which flows, protocol, IP version, tagged) for each kind of header there is."""
    for number, (protocol, _) in enumerate(traffic.mix):
        for version in (4, 6):
            for tagged in (False, True):
                which = np.flatnonzero(
                    (keys.protocol == number)
                    & (keys.v6 == (version == 6))
                    & ((keys.vlan >= 0) == tagged)
                )
                if len(which):
                    yield which, protocol, version, tagged


def _header_length(protocol: str, version: int, tagged: bool) -> int:
    return _ETHERNET + _TAG * tagged + _IP_HEADER[version] + _L4_HEADER[protocol]


class _Group:
    """Flows whose packets have the same headers."""

    def __init__(
        self,
        protocol: str,
        version: int,
        tagged: bool,
        keys: _Keys,
        lengths: Array,
        traffic: Traffic,
    ) -> None:
        self.protocol, self.version, self.keys, self.traffic = protocol, version, keys, traffic
        self.headers = _header_length(protocol, version, tagged)
        self.ip = _ETHERNET + _TAG * tagged
        self.l4 = self.ip + _IP_HEADER[version]
        self.ip_length = lengths - self.ip
        self.bytes = np.zeros((len(lengths), self.headers), dtype=np.uint8)

    def rows(self) -> Array:
        """The headers: u8[flows of the group, headers]."""
        self._ethernet()
        if self.version == 4:
            self._ipv4()
        else:
            self._ipv6()
        {"udp": self._udp, "tcp": self._tcp, "icmp": self._icmp}[self.protocol]()
        return self.bytes

    def _put(self, at: int, width: int, value: Any) -> None:
        """Store a big-endian number of `width` bytes (an array, or one for all rows)."""
        value = np.broadcast_to(np.asarray(value, dtype=np.uint64), len(self.bytes))
        for i in range(width):
            self.bytes[:, at + i] = (value >> np.uint64(8 * (width - 1 - i))) & np.uint64(0xFF)

    def _sum(self, start: int, end: int) -> Array:
        """Sum of the big-endian 16-bit words in bytes [start, end) of each row."""
        words: Array = self.bytes[:, start:end].copy().view(">u2")
        return np.asarray(words.sum(axis=1, dtype=np.uint64))

    def _ethernet(self) -> None:
        self.bytes[:, :12] = np.frombuffer(_MACS, dtype=np.uint8)
        if self.ip > _ETHERNET:
            self._put(12, 2, 0x8100)
            self._put(14, 2, self.keys.vlan)
        self._put(self.ip - 2, 2, 0x0800 if self.version == 4 else 0x86DD)

    def _ipv4(self) -> None:
        self._put(self.ip, 2, 0x4500)
        self._put(self.ip + 2, 2, self.ip_length)
        self._put(self.ip + 6, 2, 0x4000)  # don't fragment
        self._put(self.ip + 8, 1, 64)
        self._put(self.ip + 9, 1, PROTOCOLS[self.protocol])
        self._address(self.ip + 12, self.traffic.src, self.keys.src)
        self._address(self.ip + 16, self.traffic.dst, self.keys.dst)
        self._put(self.ip + 10, 2, _checksum(self._sum(self.ip, self.ip + 20)))

    def _ipv6(self) -> None:
        self._put(self.ip, 1, 0x60)
        self._put(self.ip + 4, 2, self.ip_length - 40)
        self._put(self.ip + 6, 1, self._next_header)
        self._put(self.ip + 7, 1, 64)
        self._address(self.ip + 8, self.traffic.src6, self.keys.src)
        self._address(self.ip + 24, self.traffic.dst6, self.keys.dst)

    def _address(self, at: int, prefix: Prefix4 | Prefix6, host: Array) -> None:
        network = np.frombuffer(prefix.network_address.packed, dtype=np.uint8)
        self._put(at + len(network) - min(len(network), 8), min(len(network), 8), host)
        self.bytes[:, at : at + len(network)] |= network

    def _udp(self) -> None:
        self._put(self.l4, 2, self.keys.sport)
        self._put(self.l4 + 2, 2, self.keys.dport)
        self._put(self.l4 + 4, 2, self._l4_length)
        checksum = _checksum(self._pseudo_header() + self._sum(self.l4, self.headers))
        self._put(self.l4 + 6, 2, np.where(checksum == 0, 0xFFFF, checksum))

    def _tcp(self) -> None:
        self._put(self.l4, 2, self.keys.sport)
        self._put(self.l4 + 2, 2, self.keys.dport)
        self._put(self.l4 + 12, 2, 0x5010)  # five words of header, ACK
        self._put(self.l4 + 14, 2, 0xFFFF)  # window
        self._put(
            self.l4 + 16, 2, _checksum(self._pseudo_header() + self._sum(self.l4, self.headers))
        )

    def _icmp(self) -> None:
        """Echo request: type 8, or 128 with a pseudo-header over IPv6."""
        self._put(self.l4, 1, 8 if self.version == 4 else 128)
        total = self._sum(self.l4, self.headers)
        if self.version == 6:
            total = total + self._pseudo_header()
        self._put(self.l4 + 2, 2, _checksum(total))

    @property
    def _next_header(self) -> int:
        icmp6 = self.protocol == "icmp" and self.version == 6
        return _ICMP6 if icmp6 else PROTOCOLS[self.protocol]

    @property
    def _l4_length(self) -> Array:
        return self.ip_length - _IP_HEADER[self.version]

    def _pseudo_header(self) -> Array:
        addresses = self._sum(self.ip + (12 if self.version == 4 else 8), self.l4)
        return addresses + self._l4_length.astype(np.uint64) + np.uint64(self._next_header)


def _checksum(total: Array) -> Array:
    """The Internet checksum of a sum of 16-bit words; zero payload adds nothing (RFC 1071)."""
    for _ in range(3):
        total = (total & np.uint64(0xFFFF)) + (total >> np.uint64(16))
    return total ^ np.uint64(0xFFFF)
