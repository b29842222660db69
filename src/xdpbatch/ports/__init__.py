"""Ports: where packets come from and go to, one file per kind.

A port of our own owns the memory of all four rings and stands on both ends: analogous to a network
device whose hardware is a function, `wakeup`. With XDP_WAKEUP_RX it takes frames from the fill ring
and puts packets into the rx ring; with XDP_WAKEUP_TX it sends what the tx ring holds, which here
means that it counts it, and gives the frames to the completion ring.
"""

from __future__ import annotations

from xdpbatch.data import port as layout
from xdpbatch.data.buff import MAX_LINEAR
from xdpbatch.data.code import Code
from xdpbatch.data.layout import address_of, aligned
from xdpbatch.data.port import PORT
from xdpbatch.data.ring import SIZEOF_ADDRESS, SIZEOF_DESC, RingMemory
from xdpbatch.data.umem import Umem
from xdpbatch.native import Native

RING_SIZE = 64  # entries: one batch, so that only the warmest frames are on their way


class Port:
    """A port with rings of our own. `address` is its PORT, `words` the same for numpy."""

    wakeup: Native  # wakeup(port, XDP_WAKEUP_*)

    def __init__(self, umem: Umem, ifindex: int, ring_size: int = RING_SIZE, keep: int = 0) -> None:
        """`ring_size`: entries of each ring, a power of two, not less than a batch.
        `keep`: bytes of memory for copies of the packets that are sent.
        """
        self.umem = umem
        self.ifindex = ifindex
        self.words = PORT.array(1)
        self.address = address_of(self.words)
        self._rings = [
            self._ring(offset, ring_size, entry)
            for offset, entry in (
                (layout.RX, SIZEOF_DESC),
                (layout.TX, SIZEOF_DESC),
                (layout.FILL, SIZEOF_ADDRESS),
                (layout.COMPLETION, SIZEOF_ADDRESS),
            )
        ]
        self._stamps = layout.STAMP.array(ring_size)
        self.words["umem"] = umem.address
        self.words["ifindex"] = ifindex
        self.words["max_length"] = MAX_LINEAR
        self._keep = aligned(keep)
        if keep:
            self.words["keep"], self.words["keep_size"] = address_of(self._keep), keep

    def _ring(self, offset: int, size: int, entry: int) -> RingMemory:
        ring = RingMemory(size, entry)
        ring.describe(self.address + offset)
        ring.describe(self.address + layout.PEER + offset)
        ring.need_wakeup()
        return ring

    def install(self, code: Code) -> None:
        """Hand in the code of `wakeup`; `code` must outlive the port."""
        self.words["wakeup"] = code.address(self.wakeup)

    def stamp(self) -> None:
        """From now on, note the time of each packet, for who asks for it (`stamps`)."""
        self.words["stamps"] = address_of(self._stamps)

    @property
    def stamps(self) -> tuple[int, int]:
        """Address of the STAMPs of the rx ring's slots, and the mask that gives a slot."""
        return address_of(self._stamps), len(self._stamps) - 1

    def refill(self) -> bool:
        """Provide for more packets when none is left; False if the port has come to its end."""
        return False

    def close(self) -> None:
        """Give back what the port holds open."""

    @property
    def tx_packets(self) -> int:
        """Packets that the other end has sent."""
        return int(self.words["tx_packets"][0])

    @property
    def tx_bytes(self) -> int:
        """Bytes of those packets, Ethernet header included."""
        return int(self.words["tx_bytes"][0])

    def kept(self) -> list[bytes]:
        """Copies of the packets that were sent, in their order, as far as `keep` had room."""
        found: list[bytes] = []
        at, used = 0, int(self.words["kept"][0])
        while at < used:
            length = int.from_bytes(self._keep[at : at + 4], "little")
            found.append(self._keep[at + 4 : at + 4 + length].tobytes())
            at += 4 + length
        return found
