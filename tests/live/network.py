"""Network namespaces with veth pairs for one test, and what sends and receives on them.

Every name carries the process id; everything is removed with the test. The machine's own interfaces
are never touched.
"""

from __future__ import annotations

import itertools
import os
import re
import select
import socket
import struct
import subprocess
import time
from pathlib import Path

from xdpbatch.asm import program
from xdpbatch.live import Live, Setup
from xdpbatch.program import Object
from xdpbatch.runtime import BATCH, SINGLE, Instance
from xdpbatch.sys import netns

ETH_P_ALL = 0x0003
ETHERTYPE = b"\x88\xb5"  # for local experiments (IEEE 802): no stack answers
PACKET_OUTGOING = 4
_numbers = itertools.count()


class Host:
    """A network namespace of a test."""

    def __init__(self) -> None:
        self.name = f"xbt{os.getpid()}n{next(_numbers)}"
        ip("netns", "add", self.name)
        self.fd = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        self.ip("link", "set", "lo", "up")

    def ip(self, *words: str) -> str:
        """`ip` in this namespace."""
        return ip("-n", self.name, *words)

    def run(self, *words: str) -> str:
        """A command in this namespace; what it prints."""
        return output("ip", "netns", "exec", self.name, *words)

    def popen(self, *words: str | Path) -> subprocess.Popen[str]:
        """A command in this namespace, started."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def packet_socket(self, interface: str, protocol: int = 0) -> socket.socket:
        """A raw socket on an interface; it receives if `protocol` is not 0."""
        with netns.inside(self.fd):
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        raw.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        raw.bind((interface, protocol))
        return raw

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket in this namespace."""
        with netns.inside(self.fd):
            return socket.socket(family, kind, protocol)

    def close(self) -> None:
        """Remove the namespace with its interfaces."""
        os.close(self.fd)
        ip("netns", "del", self.name)


def remove_left_behind() -> None:
    """Remove the namespaces of test processes that are no more."""
    for line in ip("netns", "list").splitlines():
        name = line.split()[0]
        found = re.fullmatch(r"xbt(\d+)n\d+", name)
        if found and not Path(f"/proc/{found[1]}").exists():
            ip("netns", "del", name)


def output(*words: str) -> str:
    """A command's output; a failure shows what it said."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr or done.stdout}"
    return done.stdout


def ip(*words: str) -> str:
    """iproute2's `ip`."""
    return output("ip", *words)


def veth(one: Host, name: str, other: Host, peer: str, queues: int = 1) -> None:
    """A veth pair between two namespaces, up, with `queues` in both directions."""
    shape = ("numtxqueues", str(queues), "numrxqueues", str(queues))
    ends = ("type", "veth", "peer", "name", peer, "netns", other.name, *shape)
    one.ip("link", "add", name, *shape, *ends)
    for host, end in ((one, name), (other, peer)):
        # Router solicitations and the like would be counted with the packets of a test.
        host.run("sysctl", "-qw", f"net.ipv6.conf.{end}.disable_ipv6=1")
        host.ip("link", "set", end, "up")
    deadline = time.monotonic() + 5
    while "LOWER_UP" not in other.ip("link", "show", peer) and time.monotonic() < deadline:
        time.sleep(0.01)


class Wire:
    """A sender `a` with v0, wired to the host `b` of the runtime with v1."""

    def __init__(self, a: Host, b: Host, queues: int = 1) -> None:
        self.a, self.b = a, b
        veth(a, "v0", b, "v1", queues)

    def live(self, instance: Instance, **options: object) -> Live:
        """v1 taken over; the object's only program runs on it."""
        setup = Setup(**{"interfaces": ["v1"], **options})  # type: ignore[arg-type]
        (one,) = instance.object.programs.values()
        entry = instance.entry(one, "llvm", SINGLE if setup.single else BATCH)
        with netns.inside(self.b.fd):
            return Live(setup, entry.address, instance)


def instance_of(text: str) -> Instance:
    """An object with one program, from assembly."""
    one = program(text)
    return Instance(Object("test.s", {one.name: one}, dict(one.maps)))


def frame(number: int, verdict: int, size: int = 60) -> bytes:
    """A numbered packet; byte 14 says what a test's program is to do with it."""
    head = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02" + ETHERTYPE
    return (head + bytes([verdict]) + b"\0" + struct.pack("!I", number)).ljust(size, b"\xaa")


def number_of(packet: bytes) -> int:
    """The number of a `frame`."""
    return int(struct.unpack_from("!I", packet, 16)[0])


def send(raw: socket.socket, packets: list[bytes], burst: int = 256) -> None:
    """Send them below saturation."""
    for start in range(0, len(packets), burst):
        for packet in packets[start : start + burst]:
            raw.send(packet)
        time.sleep(0.005)


def receive(raw: socket.socket, count: int, timeout: float = 5.0) -> list[bytes]:
    """The next `count` experimental packets that come in, or as many as come in time."""
    return receive_frames(raw, count, timeout, ETHERTYPE)


def receive_frames(
    raw: socket.socket, count: int, timeout: float = 5.0, ethertype: bytes = b""
) -> list[bytes]:
    """The next `count` packets that come in, of an EtherType if one is given."""
    found: list[bytes] = []
    deadline = time.monotonic() + timeout
    while len(found) < count and time.monotonic() < deadline:
        if select.select([raw], [], [], 0.1)[0]:
            packet, address = raw.recvfrom(65535)
            if address[2] != PACKET_OUTGOING and packet[12:14].startswith(ethertype):
                found.append(packet)
    return found


def settle(live: Live, packets: int, timeout: float = 5.0) -> None:
    """Wait until the runtime has received so many packets."""
    deadline = time.monotonic() + timeout
    while live.counts().received < packets and time.monotonic() < deadline:
        time.sleep(0.01)
