"""The sockets of this network namespace, from /proc/net: analogous to `ss -tuan`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address

from xdpbatch.host import Address, Socket

FILES = (("tcp", 6), ("udp", 17), ("tcp6", 6), ("udp6", 17))


def sockets() -> Iterator[Socket]:
    """Every TCP and UDP socket; where /proc is missing, none."""
    for name, protocol in FILES:
        with suppress(OSError), open(f"/proc/thread-self/net/{name}") as file:
            for line in file.readlines()[1:]:
                words = line.split()
                (local, local_port), (remote, port) = map(_endpoint, words[1:3])
                state = int(words[3], 16)
                yield Socket(protocol, local, local_port, remote if port else None, port, state)


def _endpoint(text: str) -> tuple[Address, int]:
    """`0100007F:0050`: the address as words in the machine's order, and the port."""
    words, port = text.split(":")
    raw = bytes.fromhex(words)
    swapped = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    return ip_address(swapped), int(port, 16)
