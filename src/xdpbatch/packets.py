"""Packets as Python bytes, from a capture or a SPEC of synthetic traffic: for judges and the API.

Analogous to iterating with scapy's PcapReader; what can be run and what is skipped is decided by
the same reader that the capture port has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from xdpbatch.jit.native import compile_native
from xdpbatch.pcap.index import index
from xdpbatch.pcap.read import Packet, Reader
from xdpbatch.ports import flows, traffic


class Capture:
    """The packets of a capture (`-` is standard input). `skipped` counts those left out so far."""

    def __init__(self, origin: str) -> None:
        self._reader = Reader(origin)

    @property
    def skipped(self) -> Mapping[str, int]:
        """Packets that were not delivered so far, by reason."""
        return self._reader.skipped

    def __iter__(self) -> Iterator[bytes]:
        """Raises CaptureError after the packets before the damage."""
        return (packet.data for packet in self.stamped())

    def stamped(self) -> Iterator[Packet]:
        """The same with the time when each was captured."""
        try:
            yield from self._reader.packets(compile_native(index))
        finally:
            self._reader.close()


class Synthetic:
    """The packets of a SPEC (see ports.traffic)."""

    skipped: Mapping[str, int] = {}

    def __init__(self, spec: str) -> None:
        self._traffic = traffic.parse(spec)
        self._flows = flows.make(self._traffic)

    def __iter__(self) -> Iterator[bytes]:
        left = self._traffic.count or 1 << 62
        while left > 0:
            order = flows.sequence(self._traffic, self._flows, min(left, 1 << 16))
            yield from islice((self._flows.packet(int(flow)) for flow in order), left)
            left -= len(order)
