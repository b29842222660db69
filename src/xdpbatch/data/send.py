"""Sending: from XdpBuffs into the tx ring of a port, and frames back from its completion ring.

Analogous to ndo_xdp_xmit() with its bulk queue (`struct xdp_dev_bulk_queue`, kernel/bpf/devmap.c):
descriptors gather in the tx ring unseen, and one `flush` per batch submits them and wakes each
target once. Within a Umem a packet changes hands without a copy; into another one it is copied.
"""

from __future__ import annotations

from xdpbatch.data.buff import DATA, DATA_END, HANDLE, XDP_PACKET_HEADROOM
from xdpbatch.data.port import COMPLETION, MAX_LENGTH, NEXT, PENDING, TX, XDP_WAKEUP_TX, wake
from xdpbatch.data.port import UMEM as PORT_UMEM
from xdpbatch.data.queue import PENDING as FIRST_PENDING
from xdpbatch.data.queue import UMEM
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
from xdpbatch.data.stats import NO_FRAME, RING_FULL, TOO_LONG
from xdpbatch.data.umem import AREA, COPIES, FREE, STACK, encode, frame_of, give, take
from xdpbatch.mem import copy, load32, load64, store32, store64
from xdpbatch.native import native

SENT = -1  # what `send` returns if it did not fail for one of stats.REASONS


@native
def recycle(umem: int, buffs: int, n: int) -> int:
    """Give the frames of `n` packets back; `buffs` is the address of their XdpBuffs' addresses."""
    free = load64(umem + FREE)
    stack = load64(umem + STACK) + 8 * free
    for i in range(n):
        store64(stack + 8 * i, load64(load64(buffs + 8 * i) + HANDLE))
    return store64(umem + FREE, free + n)


@native
def reap(port: int) -> int:
    """Take back all frames that the other end has sent."""
    umem = load64(port + PORT_UMEM)
    ring = port + COMPLETION
    n = available(ring, load32(ring + SIZE))
    get, mask, descs = load32(ring + CACHED_CONSUMER), load32(ring + MASK), load64(ring + DESCS)
    free = load64(umem + FREE)
    stack = load64(umem + STACK) + 8 * free
    for i in range(n):
        address = load64(descs + 8 * ((get + i) & mask))
        store64(stack + 8 * i, frame_of(umem, address))
    store64(umem + FREE, free + n)
    peek(ring, n)
    release(ring)
    return n


@native
def kick(port: int) -> int:
    """Submit what is in the tx ring, wake the other end if it sleeps, take back sent frames."""
    submit(port + TX)
    wake(port, TX, XDP_WAKEUP_TX)
    return reap(port)


@native
def flush(queue: int) -> int:
    """Kick every port that got a packet since the last flush."""
    port = load64(queue + FIRST_PENDING)
    store64(queue + FIRST_PENDING, 0)
    while port != 0:
        store32(port + PENDING, 0)
        kick(port)
        port = load64(port + NEXT)
    return 0


@native
def copy_into(port: int, data: int, length: int) -> int:
    """A packet's copy in a frame of the port's Umem: its descriptor's address, or -1."""
    umem = load64(port + PORT_UMEM)
    if load64(umem + FREE) == 0:
        reap(port)
    frame = take(umem)
    if frame < 0:
        return -1
    to = load64(umem + AREA) + frame + XDP_PACKET_HEADROOM
    copy(to, data, length)
    store64(umem + COPIES, load64(umem + COPIES) + 1)
    return encode(umem, frame, to)


@native
def post(queue: int, port: int, address: int, length: int) -> int:
    """Write a descriptor into a tx ring that has room, and remember to flush it."""
    tx = port + TX
    slot = load32(tx + CACHED_PRODUCER) & load32(tx + MASK)
    desc = load64(tx + DESCS) + slot * SIZEOF_DESC
    store64(desc, address)
    store64(desc + DESC_LENGTH, length)  # and options 0
    reserve(tx, 1)
    if load32(port + PENDING) == 0:
        store32(port + PENDING, 1)
        store64(port + NEXT, load64(queue + FIRST_PENDING))
        store64(queue + FIRST_PENDING, port)
    return SENT


@native
def refusal(port: int, length: int) -> int:
    """Why a port cannot take a packet of this length now, or SENT if it can."""
    if length > load32(port + MAX_LENGTH):
        return TOO_LONG
    if room(port + TX, 1) == 0:
        kick(port)
        if room(port + TX, 1) == 0:
            return RING_FULL
    return SENT


@native
def send(queue: int, port: int, buff: int) -> int:
    """Hand a packet and its frame to a port; the frame stays the caller's if it is not SENT."""
    data = load64(buff + DATA)
    length = load64(buff + DATA_END) - data
    refused = refusal(port, length)
    if refused != SENT:
        return refused
    umem = load64(queue + UMEM)
    frame = load64(buff + HANDLE)
    if load64(port + PORT_UMEM) == umem:
        return post(queue, port, encode(umem, frame, data), length)
    address = copy_into(port, data, length)
    if address < 0:
        return NO_FRAME
    give(umem, frame)
    return post(queue, port, address, length)


@native
def send_copy(queue: int, port: int, buff: int) -> int:
    """Send a copy of a packet; the packet stays the caller's."""
    data = load64(buff + DATA)
    length = load64(buff + DATA_END) - data
    refused = refusal(port, length)
    if refused != SENT:
        return refused
    address = copy_into(port, data, length)
    if address < 0:
        return NO_FRAME
    return post(queue, port, address, length)
