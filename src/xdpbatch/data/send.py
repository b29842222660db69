"""Sending: from XdpBuffs into the tx ring of a port, and frames back from its completion ring.

Analogous to ndo_xdp_xmit() with its bulk queue (`struct xdp_dev_bulk_queue`, kernel/bpf/devmap.c):
descriptors gather in the tx ring unseen, and one `flush` per batch submits them and wakes each
target once. Within a Umem a packet changes hands without a copy; into another one it is copied.

`buffs` is always the address of u64[n], the addresses of n XdpBuffs. What a loop does not change is
loaded before it: the compiler must assume that a store into a ring changes everything.
"""

from __future__ import annotations

from xdpbatch.data.buff import DATA, DATA_END, HANDLE, XDP_PACKET_HEADROOM
from xdpbatch.data.port import COMPLETION, MAX_LENGTH, NEXT, PENDING, TX, XDP_WAKEUP_TX, wake
from xdpbatch.data.port import UMEM as PORT_UMEM
from xdpbatch.data.queue import PENDING as FIRST_PENDING
from xdpbatch.data.queue import STATS, UMEM
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
from xdpbatch.data.stats import ERRORS, NO_FRAME, REASON_COUNT, RING_FULL, TOO_LONG
from xdpbatch.data.umem import (
    ADDRESS_MASK,
    AREA,
    COPIES,
    FREE,
    OFFSET_SHIFT,
    STACK,
    encode,
    give,
    take,
)
from xdpbatch.mem import copy, load32, load64, store32, store64
from xdpbatch.native import native
from xdpbatch.uapi import Action

XDP_PASS = int(Action.XDP_PASS)  # the first of the actions that send


@native
def recycle(umem: int, buffs: int, n: int) -> int:
    """Give the frames of `n` packets back."""
    free = load64(umem + FREE)
    stack = load64(umem + STACK) + 8 * free
    for i in range(n):
        store64(stack + 8 * i, load64(load64(buffs + 8 * i) + HANDLE))
    return store64(umem + FREE, free + n)


@native
def fail(queue: int, buffs: int, n: int, act: int, reason: int) -> int:
    """Count `n` packets that could not be sent on, and take their frames back."""
    counter = load64(queue + STATS) + ERRORS + 8 * (REASON_COUNT * (act - XDP_PASS) + reason)
    store64(counter, load64(counter) + n)
    return recycle(load64(queue + UMEM), buffs, n)


@native
def reap(port: int) -> int:
    """Take back all frames that the other end has sent."""
    umem = load64(port + PORT_UMEM)
    ring = port + COMPLETION
    n = available(ring, load32(ring + SIZE))
    get, mask, descs = load32(ring + CACHED_CONSUMER), load32(ring + MASK), load64(ring + DESCS)
    free = load64(umem + FREE)
    frame_mask = load64(umem + ADDRESS_MASK)
    stack = load64(umem + STACK) + 8 * free
    for i in range(n):
        store64(stack + 8 * i, load64(descs + 8 * ((get + i) & mask)) & frame_mask)
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
def remember(queue: int, port: int) -> int:
    """Put a port on the list for `flush`."""
    if load32(port + PENDING) == 0:
        store32(port + PENDING, 1)
        store64(port + NEXT, load64(queue + FIRST_PENDING))
        store64(queue + FIRST_PENDING, port)
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
def vacancies(port: int, want: int) -> int:
    """Room in the tx ring, after a kick if there is none."""
    n = room(port + TX, want)
    if n == 0:
        kick(port)
        n = room(port + TX, want)
    return n


@native
def send_here(queue: int, port: int, buffs: int, n: int, act: int) -> int:
    """Packets and their frames, within one Umem, into a tx ring that has room for them."""
    umem, tx = load64(queue + UMEM), port + TX
    area, shift, longest = (
        load64(umem + AREA),
        load64(umem + OFFSET_SHIFT),
        load32(port + MAX_LENGTH),
    )
    put, mask, descs = load32(tx + CACHED_PRODUCER), load32(tx + MASK), load64(tx + DESCS)
    sent = 0
    for i in range(n):
        buff = load64(buffs + 8 * i)
        data = load64(buff + DATA)
        length = load64(buff + DATA_END) - data
        if length > longest:
            fail(queue, buffs + 8 * i, 1, act, TOO_LONG)
        else:
            desc = descs + ((put + sent) & mask) * SIZEOF_DESC
            frame = load64(buff + HANDLE)
            store64(desc, frame + ((data - area - frame) << shift))
            store64(desc + DESC_LENGTH, length)  # and options 0
            sent += 1
    return reserve(tx, sent)


@native
def post(port: int, address: int, length: int) -> int:
    """Write one descriptor into a tx ring that has room."""
    tx = port + TX
    slot = load32(tx + CACHED_PRODUCER) & load32(tx + MASK)
    desc = load64(tx + DESCS) + slot * SIZEOF_DESC
    store64(desc, address)
    store64(desc + DESC_LENGTH, length)  # and options 0
    return reserve(tx, 1)


@native
def send_copies(queue: int, port: int, buffs: int, n: int, act: int) -> int:
    """Packets of another Umem into a tx ring that has room for them."""
    longest = load32(port + MAX_LENGTH)
    for i in range(n):
        buff = load64(buffs + 8 * i)
        data = load64(buff + DATA)
        length = load64(buff + DATA_END) - data
        if length > longest:
            fail(queue, buffs + 8 * i, 1, act, TOO_LONG)
            continue
        address = copy_into(port, data, length)
        if address < 0:
            fail(queue, buffs + 8 * i, 1, act, NO_FRAME)
            continue
        post(port, address, length)
        give(load64(queue + UMEM), load64(buff + HANDLE))
    return 0


@native
def send(queue: int, port: int, buffs: int, n: int, act: int) -> int:
    """Send `n` packets to one port, in order; what cannot be sent is counted under `act`."""
    remember(queue, port)
    while n > 0:
        chunk = vacancies(port, n)
        if chunk == 0:
            return fail(queue, buffs, n, act, RING_FULL)
        if load64(port + PORT_UMEM) == load64(queue + UMEM):
            send_here(queue, port, buffs, chunk, act)
        else:
            send_copies(queue, port, buffs, chunk, act)
        buffs += 8 * chunk
        n -= chunk
    return 0


@native
def send_one(queue: int, port: int, buffs: int, act: int) -> int:
    """`send` of one packet, without what only pays for several."""
    buff = load64(buffs)
    data = load64(buff + DATA)
    length = load64(buff + DATA_END) - data
    umem = load64(queue + UMEM)
    here = load64(port + PORT_UMEM) == umem and length <= load32(port + MAX_LENGTH)
    if not here or room(port + TX, 1) == 0:
        return send(queue, port, buffs, 1, act)
    remember(queue, port)
    return post(port, encode(umem, load64(buff + HANDLE), data), length)
