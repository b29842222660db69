"""AF_XDP sockets: registered memory, the four rings mapped, binding to a queue, statistics.

Analogous to libxdp's xsk.c. Source: include/uapi/linux/if_xdp.h, net/xdp/xsk.c. A socket's way:

    sock = Socket()
    sock.register(address, size, chunk_size)        # or none, and bind(shared=the owner)
    sock.make_ring(RING.FILL, 2048); …              # each of the four that is wanted
    sock.bind(ifindex, queue, copy_mode)
    sock.describe(RING.RX, address)                 # a RING (data.ring) over the kernel's memory

What then moves packets are the verbs of data.ring, in Python or compiled. The kernel's rings need
acquire and release only, on every architecture, and that is what those verbs do.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import struct
import time
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Self

from xdpbatch.data.ring import RING as RING_LAYOUT
from xdpbatch.data.ring import SIZEOF_ADDRESS, SIZEOF_DESC
from xdpbatch.errors import Diagnostic, XdpBatchError

AF_XDP = 44
SOL_XDP = 283
MMAP_OFFSETS, UMEM_REG, STATISTICS, OPTIONS = 1, 4, 7, 8
MAX_TX_SKB_BUDGET = 9  # Linux 6.17: packets that one call sends in copy mode
OPTIONS_ZEROCOPY = 1
SHARED_UMEM, COPY, ZEROCOPY, USE_NEED_WAKEUP, USE_SG = (1 << bit for bit in range(5))
UNALIGNED_CHUNKS = 1
SO_BUSY_POLL, SO_PREFER_BUSY_POLL, SO_BUSY_POLL_BUDGET = 46, 69, 70  # asm-generic/socket.h
MADV_DONTFORK = 10
PATIENCE_S = 1.0
SNDBUF = 64 << 20  # bytes of socket buffers on their way in copy mode: never the bottleneck


class CopyMode(StrEnum):
    """Whether the driver may write to our memory itself; `auto` lets the kernel choose."""

    auto = "auto"
    copy = "copy"
    zero_copy = "zero-copy"


_BIND_FLAG = {CopyMode.auto: 0, CopyMode.copy: COPY, CopyMode.zero_copy: ZEROCOPY}


class Ring(IntEnum):
    """The four rings; the value is the socket option that makes one."""

    RX, TX = 2, 3
    FILL, COMPLETION = 5, 6


# Per ring: index into struct xdp_mmap_offsets, offset to mmap at, bytes of an entry.
_GEOMETRY = {
    Ring.RX: (0, 0, SIZEOF_DESC),
    Ring.TX: (1, 0x80000000, SIZEOF_DESC),
    Ring.FILL: (2, 0x100000000, SIZEOF_ADDRESS),
    Ring.COMPLETION: (3, 0x180000000, SIZEOF_ADDRESS),
}


class XskError(XdpBatchError):
    """The kernel refused something about a socket; `errno` says how."""

    def __init__(self, number: int, *diagnostics: Diagnostic) -> None:
        super().__init__(*diagnostics)
        self.errno = number


@dataclass(frozen=True, slots=True)
class Statistics:
    """struct xdp_statistics: packets and descriptors that the kernel could not handle."""

    rx_dropped: int
    rx_invalid_descs: int
    tx_invalid_descs: int
    rx_ring_full: int
    rx_fill_ring_empty_descs: int
    tx_ring_empty_descs: int

    @property
    def rx_lost(self) -> int:
        """Packets that were redirected to the socket and that it could not take."""
        return self.rx_dropped + self.rx_ring_full + self.rx_invalid_descs


@dataclass(frozen=True, slots=True)
class MappedRing:
    """One ring of the kernel in our address space. Adresses are of u32 words and of entries."""

    size: int
    producer: int
    consumer: int
    flags: int
    entries: int
    memory: mmap.mmap

    def describe(self, address: int) -> None:
        """Write a RING at `address`: our end, continuing where the kernel's indices are."""
        words = RING_LAYOUT.at(address)
        for field in ("producer", "consumer", "flags"):
            words[field] = getattr(self, field)
        words["descs"], words["size"], words["mask"] = self.entries, self.size, self.size - 1
        words["cached_producer"] = ctypes.c_uint32.from_address(self.producer).value
        words["cached_consumer"] = ctypes.c_uint32.from_address(self.consumer).value


class Socket:
    """One AF_XDP socket. Raises XskError, naming the step, the interface and the remedy."""

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(AF_XDP, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        except OSError as error:
            raise refused(error, "open an AF_XDP socket") from error
        self.rings: dict[Ring, MappedRing] = {}
        self.zero_copy = False
        self._umem: tuple[int, int, int] | None = None

    def fileno(self) -> int:
        """The file descriptor, for poll(2) and for an XSKMAP."""
        return self._socket.fileno()

    def register(
        self, address: int, size: int, chunk_size: int, headroom: int = 0, unaligned: bool = False
    ) -> None:
        """XDP_UMEM_REG: `size` bytes at a page-aligned `address`, in chunks of `chunk_size`.

        Aligned chunks are 2048 or 4096 bytes; unaligned ones may start anywhere. The memory must
        outlive the socket. A child process does not get it: the kernel has pinned its pages, and
        a copy made on write would part us from them.
        """
        ctypes.CDLL(None).madvise(ctypes.c_void_p(address), ctypes.c_size_t(size), MADV_DONTFORK)
        flags = UNALIGNED_CHUNKS if unaligned else 0
        reg = struct.pack("=QQIIII", address, size, chunk_size, headroom, flags, 0)
        self._set(UMEM_REG, reg, f"register {size >> 20} MiB as packet memory")

    def make_ring(self, ring: Ring, size: int) -> None:
        """Make a ring of `size` entries, a power of two, and map it."""
        what = f"make a {ring.name.lower()} ring of {size} entries"
        self._set(ring, struct.pack("=I", size), what)
        index, page_offset, entry = _GEOMETRY[ring]
        raw = self._socket.getsockopt(SOL_XDP, MMAP_OFFSETS, 128)
        producer, consumer, descs, flags = struct.unpack_from("=4Q", raw, 32 * index)
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        try:
            memory = mmap.mmap(
                self.fileno(),
                descs + size * entry,
                mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0),
                protection,
                offset=page_offset,
            )
        except OSError as error:
            raise refused(error, f"map the {ring.name.lower()} ring") from error
        base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self.rings[ring] = MappedRing(
            size, base + producer, base + consumer, base + flags, base + descs, memory
        )

    def bind(
        self,
        ifindex: int,
        queue: int,
        copy_mode: CopyMode = CopyMode.auto,
        shared: Socket | None = None,
        frags: bool = False,
        where: str = "",
    ) -> None:
        """Bind to a queue of an interface, with need-wakeup.

        `shared`: a bound socket whose registered memory this one uses. `frags`: packets of several
        descriptors (multi-buffer). `where` is what an error calls the interface.
        """
        flags = USE_NEED_WAKEUP | (USE_SG if frags else 0) | _BIND_FLAG[copy_mode]
        owner = 0
        if shared is not None:
            # The kernel takes the modes of a shared UMEM from its owner, and refuses them here.
            flags, owner = SHARED_UMEM, shared.fileno()
        address = struct.pack("=HHIII", AF_XDP, flags, ifindex, queue, owner)
        number = self._bind(address)
        if number:
            where = where or f"interface {ifindex}"
            mode = f", {copy_mode} mode"
            raise refused(
                OSError(number, os.strerror(number)), f"bind to queue {queue} of {where}{mode}"
            )
        options = self._socket.getsockopt(SOL_XDP, OPTIONS, 4)
        self.zero_copy = bool(struct.unpack("=I", options)[0] & OPTIONS_ZEROCOPY)

    def _bind(self, address: bytes) -> int:
        """bind(2); 0 or the errno. The kernel takes a closed socket's queue back a moment later
        (xp_release_deferred of net/xdp/xsk_buff_pool.c), so a busy one is worth some patience.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        deadline = time.monotonic() + PATIENCE_S
        while libc.bind(self.fileno(), address, len(address)) < 0:
            number = ctypes.get_errno()
            if number != errno.EBUSY or time.monotonic() > deadline:
                return number
            time.sleep(0.01)
        return 0

    def describe(self, ring: Ring, address: int) -> None:
        """Write a RING (data.ring) at `address` for our end of a ring."""
        self.rings[ring].describe(address)

    def send_budget(self, packets: int) -> bool:
        """Let one call send that many packets in copy mode; False before Linux 6.17: 32 then."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SNDBUF)
        try:
            # SO_SNDBUFFORCE goes beyond net.core.wmem_max where CAP_NET_ADMIN allows it.
            self._socket.setsockopt(socket.SOL_SOCKET, 32, SNDBUF)
            self._socket.setsockopt(SOL_XDP, MAX_TX_SKB_BUDGET, struct.pack("=I", packets))
        except OSError:
            return False
        return True

    def busy_poll(self, microseconds: int = 20, budget: int = 64) -> None:
        """Let our own system calls run the driver's NAPI instead of interrupts, where it can."""
        options = {SO_PREFER_BUSY_POLL: 1, SO_BUSY_POLL: microseconds, SO_BUSY_POLL_BUDGET: budget}
        for option, value in options.items():
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, option, value)
            except OSError as error:
                raise refused(error, "switch busy polling on") from error

    def statistics(self) -> Statistics:
        """What the kernel has counted for this socket since it was bound."""
        raw = self._socket.getsockopt(SOL_XDP, STATISTICS, 48)
        return Statistics(*struct.unpack("=6Q", raw.ljust(48, b"\0")))

    def error(self) -> int:
        """Take the pending errno: ENETDOWN once the interface is gone."""
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def close(self) -> None:
        """Unmap the rings and close the socket; no RING that was described may be used after."""
        for ring in self.rings.values():
            ring.memory.close()
        self.rings.clear()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _set(self, option: int, value: bytes, what: str) -> None:
        try:
            self._socket.setsockopt(SOL_XDP, option, value)
        except OSError as error:
            raise refused(error, what) from error


_REMEDIES = {
    errno.EPERM: "run as root, or with CAP_NET_RAW (socket), CAP_NET_ADMIN and CAP_BPF (program)",
    errno.EAFNOSUPPORT: "a kernel with CONFIG_XDP_SOCKETS, Linux 5.4 or later",
    errno.EBUSY: "another socket is bound to that queue: stop its process, or choose another -q",
    errno.EOPNOTSUPP: "the driver has no zero-copy: use -C copy, or -C auto",
    errno.EPROTONOSUPPORT: "the driver cannot do this with this memory: use -C copy",
    errno.ENOBUFS: "raise RLIMIT_MEMLOCK (ulimit -l unlimited), or run as root",
    errno.ENOMEM: "use smaller rings (--ring-size), or free memory",
    errno.ENODEV: "the interface is not there any more",
    errno.ENXIO: "the interface is down: ip link set it up",
    errno.ENETDOWN: "the interface is down: ip link set it up",
    errno.EINVAL: "the interface has fewer queues, or the ring size is not a power of two",
}


def refused(error: OSError, what: str) -> XskError:
    """The XskError for what the kernel did not let us do."""
    number = error.errno or 0
    name = errno.errorcode.get(number, str(number))
    return XskError(
        number,
        Diagnostic(
            "af-xdp",
            f"cannot {what}",
            reason=f"-{name}: {os.strerror(number)}",
            suggestion=_REMEDIES.get(number, ""),
        ),
    )
