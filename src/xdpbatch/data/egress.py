"""Redirects that take more than a target: programs on the way out, and broadcasts.

Analogous to dev_map_bpf_prog_run() and dev_map_enqueue_multi() (kernel/bpf/devmap.c), and to
cpu_map_bpf_prog_run_xdp() (kernel/bpf/cpumap.c). A slot is the address of one u64, the address of
an XdpBuff: what `send` takes. As in the kernel, programs on the way out run after the main program
has seen the whole batch.
"""

from __future__ import annotations

from xdpbatch.data.buff import (
    DATA,
    DATA_END,
    DATA_HARD_START,
    DATA_META,
    HANDLE,
    REDIRECT_FLAGS,
    REDIRECT_INDEX,
    REDIRECT_MAP,
    REDIRECT_MAP_TYPE,
    REDIRECT_VALUE,
    RXQ_EGRESS_IFINDEX,
    SIZEOF_REDIRECT,
    SIZEOF_XDP_BUFF,
    TARGET,
)
from xdpbatch.data.port import CPU, IFINDEX, MAX_LENGTH, SOCKET, lookup
from xdpbatch.data.queue import BATCH_SIZE, PORT, REDIRECTS, RXQ, STATS, TABLE, UMEM, UNSORTED
from xdpbatch.data.send import fail, send
from xdpbatch.data.stats import BAD_MAP, COPIES, EGRESS_DROP, NO_FRAME, NO_TARGET
from xdpbatch.data.umem import AREA, take
from xdpbatch.maps import MAX_ENTRIES
from xdpbatch.maps.devmap import ADDRESS, device_after
from xdpbatch.maps.devmap import IFINDEX as ENTRY_IFINDEX
from xdpbatch.maps.devmap_hash import device_after as device_after_in_hash
from xdpbatch.mem import call1, copy, load32, load64, store32, store64
from xdpbatch.native import native
from xdpbatch.uapi import BPF_F_BROADCAST, BPF_F_EXCLUDE_INGRESS, Action, MapNumber

EACH = 1 << 40  # instead of a key of the port table: `special` deals with each packet
XDP_PASS, XDP_REDIRECT = int(Action.XDP_PASS), int(Action.XDP_REDIRECT)
DEVMAP, DEVMAP_HASH = int(MapNumber.DEVMAP), int(MapNumber.DEVMAP_HASH)
CPUMAP, XSKMAP = int(MapNumber.CPUMAP), int(MapNumber.XSKMAP)


@native
def record_of(queue: int, buff: int) -> int:
    """Address of a packet's Redirect record; record 0, which is empty, if it has none."""
    return load64(queue + REDIRECTS) + load32(buff + TARGET) * SIZEOF_REDIRECT


@native
def plain_key(record: int) -> int:
    """The key of the port that a record names, programs aside, or ~reason."""
    kind = load32(record + REDIRECT_MAP_TYPE)
    if kind == 0:
        return load32(record + REDIRECT_INDEX)
    if kind in (DEVMAP, DEVMAP_HASH):
        return load32(load64(record + REDIRECT_VALUE) + ENTRY_IFINDEX)
    if kind == CPUMAP:
        return CPU + load32(record + REDIRECT_INDEX)
    if kind == XSKMAP:
        return SOCKET + load32(load64(record + REDIRECT_VALUE))
    return ~BAD_MAP


@native
def key_of(queue: int, buff: int) -> int:
    """Where a redirect helper sent a packet: a key of the port table, EACH, or ~reason."""
    if load32(buff + TARGET) == 0:
        return ~BAD_MAP  # the program returned XDP_REDIRECT without a redirect helper
    record = record_of(queue, buff)
    kind = load32(record + REDIRECT_MAP_TYPE)
    if kind in (DEVMAP, DEVMAP_HASH) or kind == CPUMAP:
        entry = load64(record + REDIRECT_VALUE)
        if entry == 0 or load64(entry + ADDRESS) != 0:
            return EACH
    return plain_key(record)


@native
def program_passes(queue: int, buff: int, program: int, ifindex: int) -> int:
    """Run the program of a map's entry on a packet that leaves by `ifindex`; its verdict."""
    rxq = load64(queue + RXQ)
    store32(rxq + RXQ_EGRESS_IFINDEX, ifindex)
    verdict = call1(program, buff) & 0xFFFFFFFF
    store32(rxq + RXQ_EGRESS_IFINDEX, 0)
    return verdict


@native
def leave(queue: int, slot: int, entry: int, key: int) -> int:
    """Send a packet to the port with a key, if the entry's program, where it has one, passes it."""
    program = load64(entry + ADDRESS)
    verdict = XDP_PASS
    if program != 0:
        ifindex = key if key < CPU else 0
        verdict = program_passes(queue, load64(slot), program, ifindex)
    if verdict == XDP_REDIRECT and key >= CPU:  # only a cpumap's program may redirect again
        key = key_of(queue, load64(slot))
        if key == EACH:
            key = ~BAD_MAP
    elif verdict != XDP_PASS:
        return fail(queue, slot, 1, XDP_REDIRECT, EGRESS_DROP)
    return send_to(queue, slot, 1, key)


@native
def send_to(queue: int, buffs: int, n: int, key: int) -> int:
    """Send `n` redirected packets to the port with a key, or count the ~reason it is."""
    if key < 0:
        return fail(queue, buffs, n, XDP_REDIRECT, ~key)
    port = lookup(load64(queue + TABLE), key)
    if port == 0:
        return fail(queue, buffs, n, XDP_REDIRECT, NO_TARGET)
    return send(queue, port, buffs, n, XDP_REDIRECT)


@native
def clone(queue: int, buff: int) -> int:
    """A copy of a packet in a frame of its own: the queue's spare slot, 0 if there is no frame."""
    umem = load64(queue + UMEM)
    frame = take(umem)
    if frame < 0:
        return 0
    slot = load64(queue + UNSORTED) + 8 * load32(queue + BATCH_SIZE)
    spare = load64(slot)
    copy(spare, buff, SIZEOF_XDP_BUFF)
    moved = load64(umem + AREA) + frame - load64(buff + DATA_HARD_START)
    store64(spare + DATA, load64(buff + DATA) + moved)
    store64(spare + DATA_END, load64(buff + DATA_END) + moved)
    store64(spare + DATA_META, load64(buff + DATA_META) + moved)
    store64(spare + DATA_HARD_START, load64(buff + DATA_HARD_START) + moved)
    store64(spare + HANDLE, frame)
    start = min(load64(buff + DATA_META), load64(buff + DATA))
    copy(start + moved, start, load64(buff + DATA_END) - start)
    stats = load64(queue + STATS)
    store64(stats + COPIES, load64(stats + COPIES) + 1)
    return slot


@native
def next_device(record: int, entry: int) -> int:
    """The next entry of a record's map in the order of a broadcast, 0 at the end."""
    devices = load64(record + REDIRECT_MAP)
    if load32(record + REDIRECT_MAP_TYPE) == DEVMAP:
        return device_after(devices, entry, load32(devices + MAX_ENTRIES))
    return device_after_in_hash(devices, entry)


@native
def is_valid_target(queue: int, buff: int, record: int, ifindex: int) -> int:
    """Whether a broadcast reaches a device; the others are passed over without an error."""
    port = lookup(load64(queue + TABLE), ifindex)
    length = load64(buff + DATA_END) - load64(buff + DATA)
    if port == 0 or length > load32(port + MAX_LENGTH):
        return 0
    if load64(record + REDIRECT_FLAGS) & BPF_F_EXCLUDE_INGRESS:
        return int(ifindex != load32(load64(queue + PORT) + IFINDEX))
    return 1


@native
def broadcast(queue: int, slot: int, record: int) -> int:
    """Send a packet to every device of a devmap: copies to all but the last, which gets it."""
    buff = load64(slot)
    last = 0
    entry = next_device(record, 0)
    while entry != 0:
        if is_valid_target(queue, buff, record, load32(entry + ENTRY_IFINDEX)):
            if last != 0:
                spare = clone(queue, buff)
                if spare == 0:
                    return fail(queue, slot, 1, XDP_REDIRECT, NO_FRAME)
                leave(queue, spare, last, load32(last + ENTRY_IFINDEX))
            last = entry
        entry = next_device(record, entry)
    if last == 0:
        return fail(queue, slot, 1, XDP_REDIRECT, NO_TARGET)
    return leave(queue, slot, last, load32(last + ENTRY_IFINDEX))


@native
def special(queue: int, slot: int) -> int:
    """A packet whose key is EACH: broadcast, or to an entry with a program."""
    record = record_of(queue, load64(slot))
    if load64(record + REDIRECT_FLAGS) & BPF_F_BROADCAST:
        return broadcast(queue, slot, record)
    return leave(queue, slot, load64(record + REDIRECT_VALUE), plain_key(record))
