"""The synthetic port: packets made on the spot, as many and as varied as a SPEC says.

Analogous to pktgen in receive mode (`pktgen xmit_mode netif_receive`): traffic without a sender.
The SPEC is described in `ports.traffic`. What is sent to the port is counted as by a loop port.
"""

from __future__ import annotations

import numpy as np

from xdpbatch.data.buff import XDP_PACKET_HEADROOM
from xdpbatch.data.layout import Layout, address_of, aligned
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
from xdpbatch.mem import copy, fill, load32, load64, prefetch, store64
from xdpbatch.native import native
from xdpbatch.ports import RING_SIZE, Port, flows, traffic
from xdpbatch.ports.loop import sink

SYNTHETIC = Layout(
    "Synthetic",
    {
        "rows": "u64",  # address of the flow table's rows
        "sequence": "u64",  # u64 per packet: offset of its row << 16 | its length
        "mask": "u64",  # entries of the sequence - 1
        "made": "u64",  # packets so far
        "left": "u64",
        "width": "u64",  # of a row; 0: mode=ring
    },
    48,
)
ROWS, SEQUENCE, SEQUENCE_MASK, MADE, LEFT, WIDTH = range(0, 48, 8)
MICROSECOND = 1000  # packets are that many ns apart, from time 0 on
_AHEAD = 12  # packets: how far rows are prefetched
_ENDLESS = 1 << 62
_SEQUENCE = 1 << 20  # flows are drawn for so many packets, then the same again


@native
def write(to: int, row: int, width: int, length: int) -> int:
    """Write a packet: its row, then zeros. A row longer than the packet stays within the frame."""
    copy(to, row, 64)
    if width > 64:
        copy(to + 64, row + 64, 64)
    if length > width:
        fill(to + width, 0, length - width)
    return 0


@native
def produce(port: int) -> int:
    """Make as many packets as the fill and rx rings allow and the SPEC has left."""
    state, umem = load64(port + OWN), load64(port + UMEM)
    rx, free = port + PEER_RX, port + PEER_FILL
    n = min(load64(state + LEFT), room(rx, available(free, load32(free + SIZE))))
    made, sequence = load64(state + MADE), load64(state + SEQUENCE)
    wrap, rows, width = load64(state + SEQUENCE_MASK), load64(state + ROWS), load64(state + WIDTH)
    area, frame_mask = load64(umem + AREA), load64(umem + ADDRESS_MASK)
    offset = XDP_PACKET_HEADROOM << load64(umem + OFFSET_SHIFT)
    get, put, mask = load32(free + CACHED_CONSUMER), load32(rx + CACHED_PRODUCER), load32(rx + MASK)
    frames, descs, stamps = load64(free + DESCS), load64(rx + DESCS), load64(port + STAMPS)
    for i in range(n):
        packet = load64(sequence + 8 * ((made + i) & wrap))
        length = packet & 0xFFFF
        frame = load64(frames + 8 * ((get + i) & mask)) & frame_mask
        if width != 0:
            prefetch(rows + (load64(sequence + 8 * ((made + i + _AHEAD) & wrap)) >> 16))
            write(area + frame + XDP_PACKET_HEADROOM, rows + (packet >> 16), width, length)
        slot = (put + i) & mask
        store64(descs + slot * SIZEOF_DESC, frame + offset)
        store64(descs + slot * SIZEOF_DESC + DESC_LENGTH, length)
        if stamps != 0:
            store64(stamps + slot * SIZEOF_STAMP + STAMP_TIME, (made + i) * MICROSECOND)
            store64(stamps + slot * SIZEOF_STAMP + STAMP_MISSING, 0)
    peek(free, n)
    release(free)
    reserve(rx, n)
    submit(rx)
    store64(state + MADE, made + n)
    store64(state + LEFT, load64(state + LEFT) - n)
    return n


@native
def wakeup(port: int, flag: int) -> int:
    """ndo_xsk_wakeup of a port whose packets come from nowhere."""
    if flag == XDP_WAKEUP_TX:
        return sink(port)
    return produce(port)


class SyntheticPort(Port):
    """A port that receives the traffic of a SPEC. Raises XdpBatchError for one it cannot make."""

    wakeup = wakeup

    def __init__(
        self, umem: Umem, spec: str, ifindex: int, ring_size: int = RING_SIZE, keep: int = 0
    ) -> None:
        super().__init__(umem, ifindex, ring_size, keep)
        self.traffic = traffic.parse(spec)
        self.flows = flows.make(self.traffic)
        self._state = SYNTHETIC.array(1)
        self.words["own0"] = address_of(self._state)
        width = self.flows.rows.shape[1]
        self._rows = aligned(self.flows.rows.size)
        self._rows[:] = self.flows.rows.ravel()
        entries = min(self.traffic.count or _SEQUENCE, _SEQUENCE)
        entries = 1 << (entries - 1).bit_length()
        order = flows.sequence(self.traffic, self.flows, entries).astype("<u8")
        self._sequence = order * np.uint64(width << 16) + self.flows.lengths[order].astype("<u8")
        self._state["rows"], self._state["width"] = address_of(self._rows), width
        self._state["sequence"] = address_of(self._sequence)
        self._state["mask"] = entries - 1
        self._state["left"] = self.traffic.count or _ENDLESS
        if self.traffic.mode == "ring":
            self._write_frames()

    def refill(self) -> bool:
        """Nothing to provide; False once `count` packets were made."""
        return bool(self._state["left"][0])

    def _write_frames(self) -> None:
        """mode=ring: packet number f of the sequence into frame f; from now on only slots move."""
        lengths = np.unique(self.flows.lengths)
        if len(lengths) > 1:
            raise traffic.refused(
                self.traffic.spec,
                f"mode=ring needs packets of one length, these have {lengths[0]} to {lengths[-1]}",
                "give a single size that holds all headers",
            )
        for frame in range(self.umem.frames):
            flow = int(self._sequence[frame % len(self._sequence)]) >> 16
            packet = self.flows.packet(flow // self.flows.rows.shape[1])
            at = slice(XDP_PACKET_HEADROOM, XDP_PACKET_HEADROOM + len(packet))
            self.umem.area[frame, at] = np.frombuffer(packet, dtype=np.uint8)
        self._state["width"] = 0
