"""The AF_XDP port: one queue of an interface, whose four rings are the kernel's own.

Analogous to libxdp's `struct xsk_socket` with the need-wakeup protocol. Nothing is pumped here: the
other end of the rings is the driver or, in copy mode, the kernel's generic transmit routine, which
runs inside of our system call. `wakeup` is that call, made from compiled code.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass

from xdpbatch.data.code import Code
from xdpbatch.data.layout import Layout, address_of, aligned, bytes_at
from xdpbatch.data.port import (
    COMPLETION,
    FILL,
    OWN,
    PORT,
    RX,
    SIZEOF_PORT,
    TX,
    TX_PACKETS,
    XDP_WAKEUP_TX,
)
from xdpbatch.data.ring import (
    CONSUMER,
    DESC_LENGTH,
    PRODUCER,
    SIZEOF_ADDRESS,
    SIZEOF_DESC,
    available,
    get_slot,
    peek,
    put_slot,
    release,
    reserve,
    room,
    submit,
)
from xdpbatch.data.send import copy_into, post, reap
from xdpbatch.data.umem import ADDRESS_MASK, Umem, decode, give
from xdpbatch.mem import call1, call6, load32, load64, load_acquire32, store64
from xdpbatch.native import native
from xdpbatch.sys.xsk import CopyMode, Ring, Socket, Statistics

XSK = Layout(
    "Xsk",
    {
        "fd": "u64",
        "sendto": "u64",  # addresses of functions of the C library
        "recvfrom": "u64",
        "errno": "u64",
        "consumed": "u64",  # the tx ring's consumer index when we last looked
        "refused": "u64",  # packets that the device dropped when they were sent
        "failed": "u64",  # the last errno that means more than "later", or 0
        "calls": "u64",  # system calls made to send
    },
    64,
)
FD, SENDTO, RECVFROM, ERRNO, CONSUMED, REFUSED, FAILED, CALLS = range(0, 64, 8)

RING_SIZE = 2048  # entries, as libxdp
VLAN_ETH_HLEN = 18  # a packet may be longer than the MTU by that much
MSG_DONTWAIT = 0x40
EAGAIN, EBUSY, ENOBUFS = errno.EAGAIN, errno.EBUSY, errno.ENOBUFS
_M32 = 0xFFFFFFFF


@native
def system_call(state: int, function: int) -> int:
    """sendto or recvfrom without data: 0, or the errno."""
    result = call6(load64(state + function), load64(state + FD), 0, 0, MSG_DONTWAIT, 0, 0)
    if result >= 0:
        return 0
    return load32(call1(load64(state + ERRNO), 0))


@native
def advance(port: int) -> int:
    """How many packets the kernel took from the tx ring since we last looked."""
    state = load64(port + OWN)
    consumer = load_acquire32(load64(port + TX + CONSUMER))
    n = (consumer - load64(state + CONSUMED)) & _M32
    store64(state + CONSUMED, consumer)
    store64(port + TX_PACKETS, load64(port + TX_PACKETS) + n)
    return n


@native
def unsent(port: int) -> int:
    """Packets that were submitted and that the kernel has not taken yet."""
    producer = load32(load64(port + TX + PRODUCER))
    return (producer - load_acquire32(load64(port + TX + CONSUMER))) & _M32


@native
def later(status: int) -> int:
    """1 if a system call's errno means no more than: nothing, or not now."""
    return int(status in (0, EAGAIN) or status in (EBUSY, ENOBUFS))


@native
def transmit(port: int) -> int:
    """sendto until the kernel has taken all packets or takes none; how many it took.

    In copy mode a call takes up to the socket's budget, and stops early with EBUSY after each
    packet that the device drops, with EAGAIN when no buffer is to be had.
    """
    state = load64(port + OWN)
    total = 0
    while True:
        status = system_call(state, SENDTO)
        store64(state + CALLS, load64(state + CALLS) + 1)
        n = advance(port)
        total += n
        if status == EBUSY and n > 0:
            store64(state + REFUSED, load64(state + REFUSED) + 1)
        elif later(status) == 0:
            store64(state + FAILED, status)
            return total
        if n == 0 or unsent(port) == 0:
            return total


@native
def wakeup(port: int, flag: int) -> int:
    """ndo_xsk_wakeup, by way of the system call that leads to it."""
    if flag == XDP_WAKEUP_TX:
        return transmit(port)
    return system_call(load64(port + OWN), RECVFROM)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Entries of the rings, each a power of two; rx or tx 0: the socket only sends or receives."""

    rx: int = RING_SIZE
    tx: int = RING_SIZE

    @property
    def fill(self) -> int:
        """A socket needs a fill ring even if it never receives."""
        return self.rx or 1

    @property
    def completion(self) -> int:
        """As many as can be on their way: the kernel stops sending when it is full."""
        return self.tx or 1

    @property
    def frames(self) -> int:
        """Frames that can be out: in each ring, and in buffers that the kernel is sending."""
        return 2 * (self.rx + self.tx)


class AfXdpPort:
    """A port over a bound AF_XDP socket. `address` is its PORT; raises XskError.

    The ports of one thread share one Umem: the first registers it, the others name the first as
    `shared`. Close the first one last.
    """

    wakeup = wakeup

    def __init__(
        self,
        umem: Umem,
        ifindex: int,
        queue: int = 0,
        *,
        name: str = "",
        sizes: Sizes | None = None,
        copy_mode: CopyMode = CopyMode.auto,
        shared: AfXdpPort | None = None,
        mtu: int = 1500,
        socket: Socket | None = None,
    ) -> None:
        """`name` is the interface's, for errors; `socket` one that was opened in another network
        namespace, for an interface there.
        """
        self.umem, self.ifindex, self.queue = umem, ifindex, queue
        self.name = name or f"interface {ifindex}"
        self.sizes = sizes or Sizes()
        self.socket = socket or Socket()
        try:
            self._open(copy_mode, shared)
        except BaseException:
            self.socket.close()
            raise
        self._describe(mtu)

    def _open(self, copy_mode: CopyMode, shared: AfXdpPort | None) -> None:
        sock, sizes = self.socket, self.sizes
        if shared is None:
            area = self.umem.area
            sock.register(address_of(area), area.size, area.shape[1], unaligned=self.umem.unaligned)
        sock.make_ring(Ring.FILL, sizes.fill)
        sock.make_ring(Ring.COMPLETION, sizes.completion)
        if sizes.rx:
            sock.make_ring(Ring.RX, sizes.rx)
        if sizes.tx:
            sock.make_ring(Ring.TX, sizes.tx)
            self.one_call = sock.send_budget(sizes.tx)
        owner = shared.socket if shared else None
        sock.bind(self.ifindex, self.queue, copy_mode, owner, where=self.name)

    def _describe(self, mtu: int) -> None:
        """Write PORT and XSK. A ring that the socket lacks is an empty one of no entries."""
        self._memory = aligned(SIZEOF_PORT)
        self.address = address_of(self._memory)
        self.words = PORT.at(self.address)
        self._nothing = aligned(64)
        for ring, offset in ((Ring.RX, RX), (Ring.TX, TX), (Ring.FILL, FILL)):
            self._ring(ring, offset)
        self._ring(Ring.COMPLETION, COMPLETION)
        self.state = XSK.array(1)
        self.words["umem"], self.words["own0"] = self.umem.address, address_of(self.state)
        self.words["ifindex"], self.words["queue_index"] = self.ifindex, self.queue
        self.words["max_length"] = mtu + VLAN_ETH_HLEN
        libc = ctypes.CDLL(None)
        self.state["fd"] = self.socket.fileno()
        for field, function in {
            "sendto": libc.sendto,
            "recvfrom": libc.recvfrom,
            "errno": libc["__errno_location"],
        }.items():
            self.state[field] = ctypes.cast(function, ctypes.c_void_p).value or 0

    def _ring(self, ring: Ring, offset: int) -> None:
        if ring in self.socket.rings:
            self.socket.describe(ring, self.address + offset)
            return
        prefix = ring.name.lower()
        for word in ("producer", "consumer", "flags", "descs"):
            self.words[f"{prefix}_{word}"] = address_of(self._nothing)

    def send(self, packets: Sequence[bytes]) -> int:
        """Send packets from Python, copied into free frames; how many the rings had room for."""
        sent = 0
        reap(self.address)
        for packet in packets[: room(self.address + TX, len(packets))]:
            address = copy_into(self.address, _address_in(packet), len(packet))
            if address < 0:
                break
            sent += 1 + post(self.address, address, len(packet))
        submit(self.address + TX)
        transmit(self.address)
        return sent

    def receive(self, most: int = 64) -> list[bytes]:
        """Take up to `most` received packets from Python, copied; it does not wait."""
        self.provide()
        ring = self.address + RX
        found = []
        for i in range(available(ring, most)):
            slot = get_slot(ring, i, SIZEOF_DESC)
            address = load64(slot)
            found.append(bytes_at(decode(self.umem.address, address), load32(slot + DESC_LENGTH)))
            give(self.umem.address, address & load64(self.umem.address + ADDRESS_MASK))
        peek(ring, len(found))
        release(ring)
        return found

    def provide(self) -> None:
        """Give free frames to the fill ring: nothing is received without."""
        ring = self.address + FILL
        n = room(ring, min(self.sizes.rx, self.umem.free))
        for i in range(n):
            store64(put_slot(ring, i, SIZEOF_ADDRESS), self.umem.take())
        reserve(ring, n)
        submit(ring)

    def install(self, code: Code) -> None:
        """Hand in the code of `wakeup`; `code` must outlive the port."""
        self.words["wakeup"] = code.address(self.wakeup)

    def stamp(self) -> None:
        """AF_XDP gives packets no time: a recorder uses its own."""

    def refill(self) -> bool:
        """More packets may always come."""
        return True

    @property
    def tx_packets(self) -> int:
        """Packets that the device took."""
        return int(self.words["tx_packets"][0]) - self.refused

    @property
    def refused(self) -> int:
        """Packets that the device dropped when they were sent."""
        return int(self.state["refused"][0])

    @property
    def unsent(self) -> int:
        """Packets in the tx ring."""
        return unsent(self.address) if self.sizes.tx else 0

    @property
    def outstanding(self) -> int:
        """Frames that were submitted to be sent and that the kernel has not given back."""
        rings = self.socket.rings
        if not self.sizes.tx:
            return 0
        submitted, back = load32(rings[Ring.TX].producer), load32(rings[Ring.COMPLETION].consumer)
        return (submitted - back) & _M32

    @property
    def statistics(self) -> Statistics:
        """The kernel's own counters of this socket."""
        return self.socket.statistics()

    @property
    def failure(self) -> OSError | None:
        """ENXIO or ENETDOWN, if the interface is gone; one that is only down may come up again."""
        failed = int(self.state["failed"][0])
        number = self.socket.error() or (failed if failed == errno.ENXIO else 0)
        return OSError(number, os.strerror(number), self.name) if number else None

    def close(self) -> None:
        """Close the socket. No code may use the port after that."""
        self.socket.close()


def _address_in(data: bytes) -> int:
    """The address of a bytes object's first byte, which must outlive its use."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
