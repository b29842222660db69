"""The poll loop: a driver's NAPI poll routine, compiled, with one call of the program per batch.

Analogous to i40e_clean_rx_irq() as the slides change it:

    n = receive(queue, budget)        # descriptors of the rx ring become XdpBuffs
    call_prog(prog, batch, n)         # ONE call
    counts = tally(queue, n)          # how many take each action
    buffs = split(queue, counts, n)   # stable partition
    apply(queue, buffs, counts)       # what each action does
    flush(queue)                      # one wakeup per target
    count(queue, counts)

`poll_single` is what it is measured against: the same rings and frames, one packet at a time,
written as well as we can.

Putting it together (`tests/unit/test_poll.py` does):

    umem = Umem(frames=256)
    port = CapturePort(umem, "in.pcap", ifindex=1)       # or SyntheticPort, LoopPort
    other = LoopPort(umem, ifindex=2)
    stack = LoopPort(umem, ifindex=0)                    # where XDP_PASS goes
    code = compile_native(*NATIVES, CapturePort.wakeup, LoopPort.wakeup)  # of jit.native
    driver = Driver(port, stack, code, {DEVICE + 2: other}, batch_size=64)
    driver.run(address_of_the_program)
    driver.stats.outcomes, driver.stats.errors, other.tx_packets

A program's address is a C function: `f(XdpBuff *, n)` for `run`, `f(XdpBuff *)` for `run_single`.
"""

from __future__ import annotations

from xdpbatch.data.action import (
    BITS,
    XDP_ABORTED,
    XDP_DROP,
    act_on_one,
    apply,
    count,
    split,
    tally,
    verdict,
)
from xdpbatch.data.buff import (
    ACT,
    DATA,
    DATA_END,
    DATA_HARD_START,
    DATA_META,
    HANDLE,
    RXQ_REDIRECT_COUNT,
    RXQ_TAIL_CALLS,
    SIZEOF_XDP_BUFF,
    XDP_PACKET_HEADROOM,
)
from xdpbatch.data.metadata import prepend
from xdpbatch.data.port import FILL, RX, TABLE_COUNT, TABLE_PORTS, XDP_WAKEUP_RX, wake
from xdpbatch.data.queue import (
    BATCH,
    BATCH_SIZE,
    FIRST,
    FLUSH_EACH,
    META,
    PORT,
    RXQ,
    STATS,
    STOP,
    TABLE,
    UMEM,
    UNSORTED,
)
from xdpbatch.data.recorder import full, record
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
from xdpbatch.data.send import flush, reap
from xdpbatch.data.stats import BATCHES, FILL_EMPTY, RX_BYTES
from xdpbatch.data.umem import ADDRESS_MASK, AREA, FREE, OFFSET_SHIFT, STACK, give
from xdpbatch.mem import call1, call2, load32, load64, load_acquire32, shr64, store32, store64
from xdpbatch.native import native


@native
def refill(queue: int) -> int:
    """Move free frames to the fill ring, the warmest first; returns how many it now lacks."""
    umem = load64(queue + UMEM)
    fill = load64(queue + PORT) + FILL
    wanted = room(fill, load32(fill + SIZE))
    free = load64(umem + FREE)
    n = min(wanted, free)
    put, mask, descs = load32(fill + CACHED_PRODUCER), load32(fill + MASK), load64(fill + DESCS)
    top = load64(umem + STACK) + 8 * (free - 1)
    for i in range(n):
        store64(descs + 8 * ((put + i) & mask), load64(top - 8 * i))
    store64(umem + FREE, free - n)
    reserve(fill, n)
    submit(fill)
    return wanted - n


@native
def replenish(queue: int) -> int:
    """`refill`; if frames run out, fetch those that the ports have sent and try again."""
    port = load64(queue + PORT)
    if refill(queue) == 0:
        return 0
    reap(port)
    table = load64(queue + TABLE)
    for i in range(load64(table + TABLE_COUNT)):
        reap(load64(load64(table + TABLE_PORTS) + 8 * i))
    lacking = refill(queue)
    if lacking == load32(port + FILL + SIZE):
        counter = load64(queue + STATS) + FILL_EMPTY
        store64(counter, load64(counter) + 1)
    return lacking


@native
def waiting(queue: int, budget: int) -> int:
    """How many packets the rx ring has for one batch, after waking the other end if it sleeps."""
    port = load64(queue + PORT)
    want = min(budget, load32(queue + BATCH_SIZE))
    replenish(queue)
    n = available(port + RX, want)
    if n < want:
        wake(port, FILL, XDP_WAKEUP_RX)
        n = available(port + RX, want)
    return n


@native
def set_up(buff: int, desc: int, area: int, frame_mask: int, shift: int) -> int:
    """xdp_prepare_buff: an XdpBuff for a received packet, without metadata. Returns its length."""
    address = load64(desc)
    length = load32(desc + DESC_LENGTH)
    frame = address & frame_mask
    data = area + frame + shr64(address - frame, shift)
    store64(buff + DATA, data)
    store64(buff + DATA_END, data + length)
    store64(buff + DATA_META, data)
    store64(buff + DATA_HARD_START, data - XDP_PACKET_HEADROOM)
    store64(buff + HANDLE, frame)
    store64(buff + ACT, 0)  # and target
    return length


@native
def receive(queue: int, budget: int) -> int:
    """Make XdpBuffs of up to a batch of packets; returns how many."""
    n = waiting(queue, budget)
    rx = load64(queue + PORT) + RX
    umem = load64(queue + UMEM)
    buff = load64(queue + BATCH)
    get, mask, descs = load32(rx + CACHED_CONSUMER), load32(rx + MASK), load64(rx + DESCS)
    area, frame_mask = load64(umem + AREA), load64(umem + ADDRESS_MASK)
    shift = load64(umem + OFFSET_SHIFT)
    total = 0
    for i in range(n):
        desc = descs + ((get + i) & mask) * SIZEOF_DESC
        total += set_up(buff + i * SIZEOF_XDP_BUFF, desc, area, frame_mask, shift)
    store32(queue + FIRST, get)
    store32(load64(queue + RXQ) + RXQ_REDIRECT_COUNT, 0)
    if n > 0:
        prepend(queue, n)
        received(queue, n, total)
    return n


@native
def received(queue: int, n: int, total: int) -> int:
    """Give the slots of `n` packets back to the rx ring and count their bytes."""
    rx = load64(queue + PORT) + RX
    stats = load64(queue + STATS)
    peek(rx, n)
    release(rx)
    store64(stats + RX_BYTES, load64(stats + RX_BYTES) + total)
    return store64(stats + BATCHES, load64(stats + BATCHES) + 1)


@native
def poll(queue: int, prog: int, budget: int) -> int:
    """One batch through the program; returns how many packets it had."""
    n = receive(queue, budget)
    if n == 0:
        return 0
    call2(prog, load64(queue + BATCH), n)
    record(queue, n)
    counts = tally(queue, n)
    buffs = split(queue, counts, n)
    apply(queue, buffs, counts)
    flush(queue)
    count(queue, counts)
    return n


@native
def poll_single(queue: int, prog: int, budget: int) -> int:
    """Up to a batch of packets, each run and acted on before the next; returns how many.

    One XdpBuff serves all, warm in the cache; ring indices and statistics move once per poll, as in
    any good driver. Only the program's call and what follows from its verdict are per packet.
    """
    n = waiting(queue, budget)
    if n == 0:
        return 0
    rx = load64(queue + PORT) + RX
    rxq = load64(queue + RXQ)
    umem = load64(queue + UMEM)
    buff = load64(queue + BATCH)
    buffs = load64(queue + UNSORTED)
    flush_each, meta = load32(queue + FLUSH_EACH), load64(queue + META)
    get, mask, descs = load32(rx + CACHED_CONSUMER), load32(rx + MASK), load64(rx + DESCS)
    area, frame_mask = load64(umem + AREA), load64(umem + ADDRESS_MASK)
    shift = load64(umem + OFFSET_SHIFT)
    total = 0
    counts = 0
    for i in range(n):
        desc = descs + ((get + i) & mask) * SIZEOF_DESC
        total += set_up(buff, desc, area, frame_mask, shift)
        if meta != 0:
            prepend(queue, 1)
        store32(rxq + RXQ_REDIRECT_COUNT, 0)
        store32(rxq + RXQ_TAIL_CALLS, 0)
        store32(queue + FIRST, get + i)
        store32(buff + ACT, call1(prog, buff))
        record(queue, 1)
        act = verdict(queue, buff)
        counts += 1 << (BITS * act)
        if act in (XDP_DROP, XDP_ABORTED):
            give(umem, load64(buff + HANDLE))
        else:
            act_on_one(queue, buffs, act)
            if flush_each != 0:
                flush(queue)
    received(queue, n, total)
    flush(queue)
    count(queue, counts)
    return n


@native
def run(queue: int, prog: int, budget: int) -> int:
    """Poll until no packet waits, `budget` packets are done, the recorder is full or `stop` is set.

    Returns how many packets were done. Holds no GIL: the caller's budget bounds how long a signal
    must wait.
    """
    done = 0
    while done < budget and load_acquire32(queue + STOP) == 0 and full(queue) == 0:
        n = poll(queue, prog, budget - done)
        if n == 0:
            break
        done += n
    return done


@native
def run_single(queue: int, prog: int, budget: int) -> int:
    """The same as `run`, one packet at a time."""
    done = 0
    while done < budget and load_acquire32(queue + STOP) == 0 and full(queue) == 0:
        n = poll_single(queue, prog, budget - done)
        if n == 0:
            break
        done += n
    return done


NATIVES = (run, run_single)
