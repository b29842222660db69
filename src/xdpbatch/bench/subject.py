"""What is measured: an object, what is in its maps, and the traffic that reaches its depths.

Analogous to a kernel selftest's skeleton with its set-up: the examples and the programs of
bench/programs bring theirs; for a program of the user's, maps are filled by `--map`.
"""

from __future__ import annotations

import ipaddress
import random
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from xdpbatch import elf, examples, map_file
from xdpbatch.bench import programs
from xdpbatch.errors import XdpBatchError
from xdpbatch.packets import Capture, Synthetic
from xdpbatch.ports import traffic
from xdpbatch.program import Object, Program
from xdpbatch.runtime import Instance, the_program
from xdpbatch.session import MakePort

Put = Callable[[str, bytes, bytes], None]  # map, key, value
Fill = Callable[[Put, Sequence[bytes], int], None]  # packets of the traffic, entries of tables

ENTRIES = 1024
SPEC = "udp,flows=1000"
SERVICE, GATEWAY = "203.0.113.1", "192.0.2.1"
RING, REALS = 4099, 64  # as in lb.c: places of a service's ring; servers
OTHER = 2  # ifindex of the port that is redirected to


def nothing(put: Put, packets: Sequence[bytes], entries: int) -> None:
    """Maps stay empty."""


def flows_of(packets: Iterable[bytes]) -> list[bytes]:
    """`struct flow` of headers.h for each UDP or TCP packet over IPv4 without options."""
    return [p[26:38] + struct.pack("<I", p[23]) for p in packets if p[12:15] == b"\x08\0\x45"]


def fill_hash(put: Put, packets: Sequence[bytes], entries: int) -> None:
    """hash.c: every flow of the traffic, and others up to `entries`."""
    others = random.Random(1)
    keys = list(dict.fromkeys(flows_of(packets)))
    keys += [others.randbytes(12) + b"\x11\0\0\0" for _ in range(entries - len(keys))]
    for key in keys[:65536]:
        put("flows", key, bytes(8))


def fill_redirect(put: Put, packets: Sequence[bytes], entries: int) -> None:
    """redirect.c of the examples: a switch's table, with every destination of the traffic."""
    others = random.Random(1)
    macs = list(dict.fromkeys(p[:6] for p in packets))
    macs += [b"\x02" + others.randbytes(5) for _ in range(entries - len(macs))]
    for mac in macs[:4096]:
        put("macs", mac + bytes(2), struct.pack("<I", 1))
    put("ports", struct.pack("<I", 0), struct.pack("<I", OTHER))
    put("ports", struct.pack("<I", 1), struct.pack("<I", OTHER))


def fill_firewall(put: Put, packets: Sequence[bytes], entries: int) -> None:
    """firewall.c: networks and ports, of which a few are the traffic's."""
    others = random.Random(1)
    for _ in range(entries):
        length = others.choice((8, 16, 20, 24, 24, 24, 28, 32))
        prefix = struct.pack("<I", length) + bytes([others.randrange(11, 224)])
        put("blocked_ipv4", prefix + others.randbytes(3), bytes(8))
        prefix = struct.pack("<I", others.choice((32, 40, 48, 48, 56, 64)))
        put("blocked_ipv6", prefix + b"\x20\x01" + others.randbytes(14), bytes(8))
    put("blocked_ipv4", struct.pack("<I", 16) + ipaddress.ip_address("10.7.0.0").packed, bytes(8))
    for port in range(1000, 1000 + min(entries, 512)):
        put("blocked_ports", struct.pack(">H", port) + b"\x06\0", bytes(8))


def fill_lb(put: Put, packets: Sequence[bytes], entries: int) -> None:
    """lb.c: one service of 64 servers, each in its places on the ring."""
    address = ipaddress.ip_address
    put("gateway", bytes(4), bytes.fromhex("0200000000fe0000") + address(GATEWAY).packed)
    for i in range(REALS):
        real = address(f"198.51.100.{i + 1}").packed
        put("reals", struct.pack("<I", i), real)
    for i in range(RING):
        put("ring", struct.pack("<I", i), struct.pack("<I", i * 2654435761 % (1 << 32) % REALS))
    for proto in (6, 17):
        service = address(SERVICE).packed + struct.pack(">H", 80) + struct.pack("<H", proto)
        put("services", service, bytes(4))


@dataclass(frozen=True)
class Subject:
    """A program with its traffic: `read` is a capture, else `spec` says what is made."""

    path: Path
    spec: str = SPEC
    fill: Fill = nothing
    entries: int = ENTRIES
    read: str | None = None
    name: str | None = None
    section: str | None = None
    maps: tuple[str, ...] = ()  # [NAME=]FILE of --map

    @property
    def label(self) -> str:
        """For tables: the object's name."""
        return self.path.stem

    @property
    def source(self) -> str:
        """For messages: where packets come from."""
        return f"capture {self.read}" if self.read is not None else f"synthetic {self.spec}"

    def load(self) -> tuple[Object, Program]:
        """The object, read, and the program that is meant. Raises ObjectError."""
        obj = elf.load(self.path)
        return obj, the_program(obj, self.name, self.section)

    def packets(self, count: int) -> list[bytes]:
        """The first packets of the traffic."""
        if self.read is not None:
            return list(islice(Capture(self.read), count))
        endless = Synthetic(f"{self.spec},count=0")
        return list(islice(endless, count))

    def instance(self, obj: Object) -> Instance:
        """The object's maps, created and filled."""
        instance = Instance(obj)
        self.fill(lambda m, k, v: instance.maps[m].put(k, v), self.some(), self.entries)
        views = instance.views() if self.maps else {}
        for name, path in map_file.assignments(self.maps):
            contents = map_file.read(path)
            for each, entries in (
                map_file.by_name(contents, path) if not name else [(name, contents)]
            ):
                if each not in views:
                    raise XdpBatchError.of("no-such-map", f"{self.path} has no map {each}")
                map_file.fill(views[each], entries, path)
        return instance

    def some(self) -> list[bytes]:
        """A packet of each flow, most likely: what `fill` is shown."""
        if self.fill is nothing:
            return []
        most = 4096 if self.read is not None else 4 * traffic.parse(self.spec).flows
        return self.packets(min(most, 1 << 16))

    def port(self) -> MakePort:
        """How to make the port that the packets come from; synthetic ones do not end."""
        if self.read is not None:
            from xdpbatch.ports.capture import CapturePort

            origin = self.read
            return lambda umem, ifindex, ring: CapturePort(umem, origin, ifindex, ring)
        from xdpbatch.ports.synthetic import SyntheticPort

        spec = f"{self.spec},count=0"
        return lambda umem, ifindex, ring: SyntheticPort(umem, spec, ifindex, ring)


_LB = f"udp,tcp,dst={SERVICE}/32,dport=80,flows=10000,zipf=1.1"
_MIXED = "udp,tcp,v6=0.2,flows=10000,zipf=1.1,vlan=100,tagged=0.2"

FIVE = {
    "drop": Subject(examples.path("drop")),
    "read and drop": Subject(programs.path("read")),
    "MAC-swap TX": Subject(examples.path("tx")),
    "5-tuple parse": Subject(programs.path("tuple")),
    "parse and hash map": Subject(programs.path("hash"), fill=fill_hash),
}
EXAMPLES = {
    "parse": Subject(examples.path("parse"), _MIXED),
    "firewall": Subject(examples.path("firewall"), _MIXED, fill_firewall),
    "lb": Subject(examples.path("lb"), _LB, fill_lb),
    "flows": Subject(examples.path("flows"), _MIXED),
    "redirect": Subject(examples.path("redirect"), fill=fill_redirect),
}
ACTIONS = {
    "XDP_DROP": Subject(examples.path("drop")),
    "XDP_PASS": Subject(examples.path("pass")),
    "XDP_TX": Subject(examples.path("tx")),
    "XDP_REDIRECT": Subject(programs.path("redirect")),
}


def known(path: Path) -> Subject:
    """The subject of a user's object: with the examples' own maps and traffic if it is one."""
    for subject in (*FIVE.values(), *EXAMPLES.values(), *ACTIONS.values()):
        if path.resolve() == subject.path.resolve():
            return subject
    return Subject(path)


def over(subject: Subject, spec: str | None, read: str | None, entries: int | None) -> Subject:
    """The subject with what the user asked for instead of its own."""
    return replace(
        subject,
        spec=spec or subject.spec,
        read=read,
        entries=subject.entries if entries is None else entries,
    )
