"""The capture port: receives the packets of a pcap or pcapng, at the speed of copying them.

Analogous to tcpreplay --topspeed into a tap. The index finds packets a few hundred at a time just
before they are copied, so that each byte is read from the cache. What is sent to the port is
counted as by a loop port.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import BinaryIO

from xdpbatch.data.buff import XDP_PACKET_HEADROOM
from xdpbatch.data.port import (
    OWN,
    PEER_FILL,
    PEER_RX,
    SIZEOF_STAMP,
    STAMP_MISSING,
    STAMP_TIME,
    STAMPS,
    UMEM,
    XDP_WAKEUP_TX,
)
from xdpbatch.data.ring import (
    CACHED_CONSUMER,
    CACHED_PRODUCER,
    DESC_LENGTH,
    DESCS,
    MASK,
    SIZE,
    SIZEOF_DESC,
    available,
    peek,
    release,
    reserve,
    room,
    submit,
)
from xdpbatch.data.umem import ADDRESS_MASK, AREA, OFFSET_SHIFT, Umem
from xdpbatch.mem import copy, load32, load64, store64
from xdpbatch.native import native
from xdpbatch.pcap.index import (
    FILLED,
    RECORD_DATA,
    RECORD_LENGTH,
    RECORD_MISSING,
    RECORD_TIME,
    RECORDS,
    SIZEOF_RECORD,
    TAKEN,
    index,
)
from xdpbatch.pcap.read import Reader
from xdpbatch.ports import RING_SIZE, Port
from xdpbatch.ports.loop import sink

_AHEAD = 8  # packets: how far captured bytes are prefetched


@native
def deliver(port: int, n: int) -> int:
    """Copy the next `n` indexed packets into frames of the fill ring and receive them."""
    cursor, umem = load64(port + OWN), load64(port + UMEM)
    rx, free = port + PEER_RX, port + PEER_FILL
    taken = load64(cursor + TAKEN)
    records = load64(cursor + RECORDS) + taken * SIZEOF_RECORD
    area, frame_mask = load64(umem + AREA), load64(umem + ADDRESS_MASK)
    offset = XDP_PACKET_HEADROOM << load64(umem + OFFSET_SHIFT)
    get, put, mask = load32(free + CACHED_CONSUMER), load32(rx + CACHED_PRODUCER), load32(rx + MASK)
    frames, descs, stamps = load64(free + DESCS), load64(rx + DESCS), load64(port + STAMPS)
    for i in range(n):
        record = records + i * SIZEOF_RECORD
        length = load32(record + RECORD_LENGTH)
        frame = load64(frames + 8 * ((get + i) & mask)) & frame_mask
        copy(area + frame + XDP_PACKET_HEADROOM, load64(record + RECORD_DATA), length)
        slot = (put + i) & mask
        store64(descs + slot * SIZEOF_DESC, frame + offset)
        store64(descs + slot * SIZEOF_DESC + DESC_LENGTH, length)
        if stamps != 0:
            store64(stamps + slot * SIZEOF_STAMP + STAMP_TIME, load64(record + RECORD_TIME))
            missing = load32(record + RECORD_MISSING)
            store64(stamps + slot * SIZEOF_STAMP + STAMP_MISSING, missing)
    peek(free, n)
    release(free)
    reserve(rx, n)
    submit(rx)
    return store64(cursor + TAKEN, taken + n)


@native
def indexed(cursor: int) -> int:
    """How many packets are indexed and not taken, after indexing more if there are none."""
    n = load64(cursor + FILLED) - load64(cursor + TAKEN)
    return n if n > 0 else index(cursor)


@native
def receive(port: int) -> int:
    """Fill the rx ring as far as frames, packets and the chunk allow."""
    rx, free = port + PEER_RX, port + PEER_FILL
    total = 0
    while True:
        want = room(rx, available(free, load32(free + SIZE)))
        n = min(want, indexed(load64(port + OWN))) if want > 0 else 0
        if n == 0:
            return total
        deliver(port, n)
        total += n


@native
def wakeup(port: int, flag: int) -> int:
    """ndo_xsk_wakeup of a port whose packets come from a capture."""
    if flag == XDP_WAKEUP_TX:
        return sink(port)
    return receive(port)


class CapturePort(Port):
    """A port that receives a capture. Raises CaptureError if it cannot be read."""

    wakeup = wakeup

    def __init__(
        self,
        umem: Umem,
        origin: str | BinaryIO,
        ifindex: int,
        ring_size: int = RING_SIZE,
        keep: int = 0,
    ) -> None:
        """`origin`: a path, `-` for standard input, or a binary file object."""
        super().__init__(umem, ifindex, ring_size, keep)
        self._reader = Reader(origin)
        self.words["own0"] = self._reader.cursor

    @property
    def skipped(self) -> Mapping[str, int]:
        """Packets of the capture that were not received, by reason."""
        return self._reader.skipped

    def refill(self) -> bool:
        """Read the next chunk; False at the end. Raises CaptureError where it is damaged."""
        return self._reader.more()

    def close(self) -> None:
        """Close the capture."""
        self._reader.close()
