"""A port as the hot loop sees it, and the table that finds one: everything else is ports/*.

PORT is four AF_XDP-shaped rings over a Umem: analogous to `struct xdp_sock`. What stands on the
other end of the rings, the kernel or one of our own pumps, shows only in `wakeup`, which is
`ndo_xsk_wakeup` of `struct net_device_ops`: called with XDP_WAKEUP_RX or XDP_WAKEUP_TX where the
ring's flags say that the other end sleeps.

The table is analogous to dev_get_by_index(), for all that a packet can be redirected to: devices by
ifindex, CPUs of a CPUMAP and sockets of an XSKMAP by number.
"""

from __future__ import annotations

import numpy as np

from xdpbatch.data.layout import Layout, address_of, aligned
from xdpbatch.data.ring import FLAGS, SIZEOF_RING, XDP_RING_NEED_WAKEUP
from xdpbatch.mem import call2, load32, load64
from xdpbatch.native import native
from xdpbatch.uapi import MapNumber

_END = ("producer", "consumer", "flags", "descs")
_CURSOR = ("mask", "size", "cached_producer", "cached_consumer")
_RINGS = ("rx", "tx", "fill", "completion")


def _ends(prefix: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for ring in _RINGS:
        fields |= {f"{prefix}{ring}_{word}": "u64" for word in _END}
        fields |= {f"{prefix}{ring}_{word}": "u32" for word in _CURSOR}
    return fields


PORT = Layout(
    "Port",
    {
        **_ends(""),
        "umem": "u64",  # address of the UMEM that all four rings refer to
        "wakeup": "u64",  # code of `wakeup(port, XDP_WAKEUP_*)`
        "stamps": "u64",  # address of STAMP[rx ring size], by rx slot; 0: packets have no times
        "next": "u64",  # next port with descriptors that were not submitted
        "ifindex": "u32",
        "queue_index": "u32",
        "max_length": "u32",  # the longest packet that can be sent
        "pending": "u32",  # 1: in the list of ports to flush
        "tx_packets": "u64",  # counted by the other end of our own ports
        "tx_bytes": "u64",
        **_ends("peer_"),  # the other end's RINGs of our own ports
        "keep": "u64",  # address of memory for copies of what our own ports send, or 0
        "keep_size": "u64",
        "kept": "u64",  # bytes used: u32 length, packet, u32 length, ...
        **{f"own{i}": "u64" for i in range(5)},  # for the kind of port's own use
    },
    512,
)
RX, TX, FILL, COMPLETION = (i * SIZEOF_RING for i in range(4))
UMEM, WAKEUP, STAMPS, NEXT = 192, 200, 208, 216
IFINDEX, QUEUE_INDEX, MAX_LENGTH, PENDING = 224, 228, 232, 236
TX_PACKETS, TX_BYTES, PEER, KEEP, KEEP_SIZE, KEPT, OWN = 240, 248, 256, 448, 456, 464, 472
SIZEOF_PORT = 512
PEER_RX, PEER_TX, PEER_FILL, PEER_COMPLETION = (PEER + i * SIZEOF_RING for i in range(4))

STAMP = Layout("Stamp", {"time": "u64", "missing": "u32", "interface": "u32"}, 16)
STAMP_TIME, STAMP_MISSING, STAMP_INTERFACE = 0, 8, 12  # ns since 1970; bytes the capture cut off
SIZEOF_STAMP = 16

XDP_WAKEUP_RX, XDP_WAKEUP_TX = 1, 2  # include/linux/netdevice.h

_CHECKED = {"umem": UMEM, "ifindex": IFINDEX, "peer_rx_producer": PEER, "keep": KEEP, "own0": OWN}
for _field, _offset in _CHECKED.items():
    if PORT.offset(_field) != _offset:
        raise AssertionError(f"PORT.{_field} is not at {_offset}")


@native
def wake(port: int, ring: int, flag: int) -> int:
    """Call the other end if it asked for that in the flags of `ring` (an offset in PORT)."""
    if load32(load64(port + ring + FLAGS)) & XDP_RING_NEED_WAKEUP:
        return call2(load64(port + WAKEUP), port, flag)
    return 0


TABLE = Layout("Table", {"slots": "u64", "mask": "u64", "ports": "u64", "count": "u64"}, 32)
TABLE_SLOTS, TABLE_MASK, TABLE_PORTS, TABLE_COUNT = 0, 8, 16, 24
DEVICE, CPU, SOCKET = 0, MapNumber.CPUMAP << 32, MapNumber.XSKMAP << 32  # key: kind + number


@native
def lookup(table: int, key: int) -> int:
    """Address of the port with a key, or 0. Open addressing; numbers are small and dense."""
    slots = load64(table + TABLE_SLOTS)
    mask = load64(table + TABLE_MASK)
    i = (key + (key >> 32)) & mask
    found = load64(slots + 16 * i)
    while found != key and found != 0:
        i = (i + 1) & mask
        found = load64(slots + 16 * i)
    if key == 0:
        return 0
    return load64(slots + 16 * i + 8)


class PortTable:
    """Ports by key, for native code: `address` is its TABLE. It grows; the address stays."""

    def __init__(self) -> None:
        self._ports: dict[int, int] = {}
        self._words = TABLE.array(1)
        self.address = address_of(self._words)
        self._build()

    def add(self, key: int, port: int) -> None:
        """Enter the port at an address under a key: DEVICE + ifindex, CPU + n or SOCKET + n."""
        if key == 0:
            raise ValueError("no device has ifindex 0")
        self._ports[key] = port
        self._build()

    def __contains__(self, key: int) -> bool:
        return key in self._ports

    def _build(self) -> None:
        """New slots, at most half full, so that a search always ends."""
        capacity = 16
        while capacity < 2 * len(self._ports) + 2:
            capacity *= 2
        slots = aligned(16 * capacity).view("<u8").reshape(capacity, 2)
        for key, port in self._ports.items():
            i = (key + (key >> 32)) & (capacity - 1)
            while slots[i, 0]:
                i = (i + 1) & (capacity - 1)
            slots[i] = key, port
        ports = np.array(list(dict.fromkeys(self._ports.values())), dtype="<u8")
        self._memory = (slots, ports)
        self._words["slots"], self._words["mask"] = slots.ctypes.data, capacity - 1
        self._words["ports"], self._words["count"] = address_of(ports), len(ports)
