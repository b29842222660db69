"""The loop port: all that is sent to it arrives, is counted, and can be kept.

Analogous to the loopback device's transmit side or a tap with a counter: the target of XDP_TX,
XDP_REDIRECT and XDP_PASS where there is no interface. It never receives.
"""

from __future__ import annotations

from xdpbatch.data.port import (
    KEEP,
    KEEP_SIZE,
    KEPT,
    PEER_COMPLETION,
    PEER_TX,
    TX_BYTES,
    TX_PACKETS,
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
from xdpbatch.data.umem import decode
from xdpbatch.mem import copy, load32, load64, store32, store64
from xdpbatch.native import native
from xdpbatch.ports import Port


@native
def keep(port: int, data: int, length: int) -> int:
    """Keep a copy of a packet while there is memory for it."""
    used = load64(port + KEPT)
    if used + 4 + length <= load64(port + KEEP_SIZE):
        to = load64(port + KEEP) + used
        store32(to, length)
        copy(to + 4, data, length)
        store64(port + KEPT, used + 4 + length)
    return 0


@native
def sink(port: int) -> int:
    """Send all that the tx ring holds: count it, keep it if asked, complete its frames."""
    tx, completion = port + PEER_TX, port + PEER_COMPLETION
    umem = load64(port + UMEM)
    n = room(completion, available(tx, load32(tx + SIZE)))
    keeping = load64(port + KEEP)
    get, mask, descs = load32(tx + CACHED_CONSUMER), load32(tx + MASK), load64(tx + DESCS)
    put, done = load32(completion + CACHED_PRODUCER), load64(completion + DESCS)
    total = 0
    for i in range(n):
        desc = descs + ((get + i) & mask) * SIZEOF_DESC
        length = load32(desc + DESC_LENGTH)
        total += length
        if keeping != 0:
            keep(port, decode(umem, load64(desc)), length)
        store64(done + ((put + i) & mask) * 8, load64(desc))
    peek(tx, n)
    release(tx)
    reserve(completion, n)
    submit(completion)
    store64(port + TX_PACKETS, load64(port + TX_PACKETS) + n)
    store64(port + TX_BYTES, load64(port + TX_BYTES) + total)
    return n


@native
def wakeup(port: int, flag: int) -> int:
    """ndo_xsk_wakeup of a port that only sends."""
    if flag == XDP_WAKEUP_TX:
        return sink(port)
    return 0


class LoopPort(Port):
    """A port that counts, and keeps if asked, what it is sent."""

    wakeup = wakeup
