"""Packets that reach deep into parsers: every header that XDP programs look at, whole and broken.

Analogous to the corpora of packet fuzzers, but made from a seed: VLAN tags, IPv4 with options and
fragments, IPv6 with extension headers, TCP, UDP, ICMP and tunnels; addresses and ports come from
small pools so that map lookups hit; a third of the packets are cut short or have a byte changed.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator

from xdpbatch.data.buff import MAX_LINEAR

MACS = (*tuple(bytes((2, 0, 0, 0, 0, i)) for i in range(4)), b"\xff" * 6)
IPV4 = (*tuple(bytes((10, 0, i, j)) for i in (0, 1) for j in (1, 2, 200)), bytes((192, 168, 7, 9)))
IPV6 = tuple(bytes((0x20, 1, 0x0D, 0xB8)) + bytes(11) + bytes((i,)) for i in (1, 2, 3, 200))
PORTS = (53, 80, 443, 8080, 1, 65535)
ETH_IP, ETH_ARP, ETH_IPV6, ETH_VLAN, ETH_QINQ = 0x0800, 0x0806, 0x86DD, 0x8100, 0x88A8
ICMP, IPIP, TCP, UDP, IN_IPV6, FRAGMENT, GRE, ICMPV6, NO_NEXT, HOP, ROUTING, DESTINATION = (
    *(1, 4, 6, 17, 41, 44, 47, 58, 59, 0, 43, 60),
)
ETH_HLEN = 14


def packets(count: int, seed: int = 1, shortest: int = ETH_HLEN) -> Iterator[bytes]:
    """`count` packets; the same for the same seed."""
    r = random.Random(seed)
    for _ in range(count):
        whole = _ethernet(r)
        change = r.randrange(6)
        if change == 0:
            whole = whole[: r.randrange(shortest, len(whole) + 1)]
        elif change == 1:
            at = r.randrange(len(whole))
            whole = whole[:at] + bytes((r.randrange(256),)) + whole[at + 1 :]
        yield whole[:MAX_LINEAR].ljust(shortest, b"\0")


def _ethernet(r: random.Random) -> bytes:
    kind, body = r.choice((_ipv4_frame, _ipv4_frame, _ipv6_frame, _ipv6_frame, _other))(r)
    for _ in range(r.choice((0, 0, 0, 1, 1, 2, 3))):
        tag = r.choice((ETH_VLAN, ETH_VLAN, ETH_QINQ))
        body = struct.pack(">HH", r.randrange(1 << 16), kind) + body
        kind = tag
    return r.choice(MACS) + r.choice(MACS) + struct.pack(">H", kind) + body


def _ipv4_frame(r: random.Random) -> tuple[int, bytes]:
    return ETH_IP, _ipv4(r, 2)


def _ipv6_frame(r: random.Random) -> tuple[int, bytes]:
    return ETH_IPV6, _ipv6(r, 2)


def _other(r: random.Random) -> tuple[int, bytes]:
    kind = r.choice((ETH_ARP, 0x8847, 0x8864, 0x88CC, 46, r.randrange(1 << 16)))
    return kind, r.randbytes(r.randrange(64))


def _ipv4(r: random.Random, depth: int) -> bytes:
    options = r.randbytes(4 * r.choice((0, 0, 0, 1, 3, 10)))
    protocol, body = _transport(r, depth, ICMP)
    fragment = r.choice((0, 0, 0, 0x4000, 0x2000, 0x00B9, r.randrange(1 << 16)))
    header = struct.pack(
        ">BBHHHBBH",
        *(0x45 + len(options) // 4, r.choice((0, 0xB8)), 20 + len(options) + len(body)),
        *(r.randrange(1 << 16), fragment, r.choice((0, 1, 2, 64, 255)), protocol, 0),
    )
    head = header + r.choice(IPV4) + r.choice(IPV4) + options
    return head[:10] + _checksum(head) + head[12:] + body


def _ipv6(r: random.Random, depth: int) -> bytes:
    protocol, body = _transport(r, depth, ICMPV6)
    for _ in range(r.choice((0, 0, 0, 1, 2, 4))):
        kind = r.choice((HOP, ROUTING, FRAGMENT, DESTINATION))
        units = 0 if kind == FRAGMENT else r.choice((0, 0, 1))
        body = bytes((protocol, units)) + r.randbytes(6 + 8 * units) + body
        protocol = kind
    word = 6 << 28 | r.randrange(1 << 28)
    header = struct.pack(">IHBB", word, len(body), protocol, r.choice((0, 1, 64, 255)))
    return header + r.choice(IPV6) + r.choice(IPV6) + body


def _transport(r: random.Random, depth: int, icmp: int) -> tuple[int, bytes]:
    """Protocol number and bytes of what an IP header carries."""
    inner: list[tuple[int, Callable[[], bytes]]] = [
        (TCP, lambda: _tcp(r)),
        (TCP, lambda: _tcp(r)),
        (UDP, lambda: _udp(r)),
        (UDP, lambda: _udp(r)),
        (icmp, lambda: struct.pack(">BBHI", r.choice((0, 3, 8, 128, 135)), 0, 0, 7)),
        (r.choice((NO_NEXT, 50, 51, 132, 255)), lambda: r.randbytes(24)),
    ]
    if depth:
        inner.append((IPIP, lambda: _ipv4(r, depth - 1)))
        inner.append((IN_IPV6, lambda: _ipv6(r, depth - 1)))
        inner.append((GRE, lambda: struct.pack(">HH", 0, ETH_IP) + _ipv4(r, depth - 1)))
    protocol, make = r.choice(inner)
    return protocol, make()


def _ports(r: random.Random) -> bytes:
    return struct.pack(">HH", r.choice(PORTS), r.choice(PORTS))


def _tcp(r: random.Random) -> bytes:
    words = r.choice((5, 5, 8, 15))
    flags = r.choice((0x02, 0x10, 0x12, 0x11, 0x04, 0x18))
    fixed = struct.pack(">IIBBHHH", 1, 2, words << 4, flags, 512, 0, 0)
    return _ports(r) + fixed + r.randbytes(4 * (words - 5)) + r.randbytes(r.randrange(40))


def _udp(r: random.Random) -> bytes:
    data = r.randbytes(r.randrange(60))
    return _ports(r) + struct.pack(">HH", 8 + len(data), 0) + data


def _checksum(header: bytes) -> bytes:
    total = sum(struct.unpack(f">{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack(">H", ~total & 0xFFFF)
