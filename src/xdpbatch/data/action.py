"""What each action does: the end of the driver's receive routine.

Analogous to the `switch (act)` of a driver and to xdp_do_redirect() (net/core/filter.c). `split`
is the slides' "Sort actions?": a stable partition, so that each action and each target gets its
packets in one go and in their order.
"""

from __future__ import annotations

from xdpbatch.data.broadcast import broadcast
from xdpbatch.data.buff import (
    ACT,
    HANDLE,
    REDIRECT_FLAGS,
    REDIRECT_INDEX,
    REDIRECT_MAP_TYPE,
    REDIRECT_VALUE,
    SIZEOF_REDIRECT,
    SIZEOF_XDP_BUFF,
    TARGET,
)
from xdpbatch.data.port import CPU, SOCKET, lookup
from xdpbatch.data.queue import BATCH, PORT, REDIRECTS, SORTED, STACK, STATS, TABLE, UMEM, UNSORTED
from xdpbatch.data.send import SENT, recycle, send
from xdpbatch.data.stats import BAD_MAP, ERRORS, NO_TARGET, REASON_COUNT, UNKNOWN, VERDICTS
from xdpbatch.data.umem import give
from xdpbatch.mem import load32, load64, store64
from xdpbatch.native import native
from xdpbatch.uapi import BPF_F_BROADCAST, Action, MapNumber

XDP_ABORTED, XDP_DROP, XDP_PASS = map(int, (Action.XDP_ABORTED, Action.XDP_DROP, Action.XDP_PASS))
XDP_TX, XDP_REDIRECT = int(Action.XDP_TX), int(Action.XDP_REDIRECT)
_DEVMAP, _DEVMAP_HASH = int(MapNumber.DEVMAP), int(MapNumber.DEVMAP_HASH)
_CPUMAP, _XSKMAP = int(MapNumber.CPUMAP), int(MapNumber.XSKMAP)
BITS, _COUNT = 12, 0xFFF  # one count of the packed five; see `tally`


@native
def class_of(act: int) -> int:
    """The action that is taken for a verdict: XDP_ABORTED for what is none."""
    return act if act <= XDP_REDIRECT else XDP_ABORTED


@native
def unknown(queue: int, n: int) -> int:
    """Count verdicts that are no xdp_action (bpf_warn_invalid_xdp_action)."""
    stats = load64(queue + STATS)
    return store64(stats + UNKNOWN, load64(stats + UNKNOWN) + n)


@native
def verdict(queue: int, buff: int) -> int:
    """The action that one packet takes; counts an unknown verdict."""
    act = load32(buff + ACT)
    if act > XDP_REDIRECT:
        unknown(queue, 1)
        return XDP_ABORTED
    return act


@native
def tally(queue: int, n: int) -> int:
    """How many of the batch's first `n` packets take each action: five 12-bit counts in one word.

    In one register, because a counter in memory costs a store-to-load round trip for each packet.
    """
    counts = 0
    strange = 0
    buff = load64(queue + BATCH)
    for i in range(n):
        act = load32(buff + i * SIZEOF_XDP_BUFF + ACT)
        strange += int(act > XDP_REDIRECT)
        counts += 1 << (BITS * class_of(act))
    if strange != 0:
        unknown(queue, strange)
    return counts


@native
def count_of(counts: int, act: int) -> int:
    """One of the counts of `tally`."""
    return (counts >> (BITS * act)) & _COUNT


@native
def split(queue: int, counts: int, n: int) -> int:
    """The batch's XdpBuffs by action, each action's in packet order: address of u64[n].

    A batch that takes one action only is in order already.
    """
    batch = load64(queue + BATCH)
    first = class_of(load32(batch + ACT))
    if count_of(counts, first) == n:
        return load64(queue + UNSORTED)
    starts = 0
    start = 0
    for act in range(5):
        starts += start << (BITS * act)
        start += count_of(counts, act)
    order = load64(queue + SORTED)
    for i in range(n):
        buff = batch + i * SIZEOF_XDP_BUFF
        shift = BITS * class_of(load32(buff + ACT))
        store64(order + 8 * ((starts >> shift) & _COUNT), buff)
        starts += 1 << shift
    return order


@native
def redirect(queue: int, buff: int) -> int:
    """xdp_do_redirect: send a packet where the helper said. Returns SENT or a reason."""
    target = load32(buff + TARGET)
    record = load64(queue + REDIRECTS) + target * SIZEOF_REDIRECT
    kind = load32(record + REDIRECT_MAP_TYPE)
    key = load32(record + REDIRECT_INDEX)
    value = load64(record + REDIRECT_VALUE)
    if target == 0:
        return BAD_MAP  # the program returned XDP_REDIRECT without a redirect helper
    if kind in (_DEVMAP, _DEVMAP_HASH):
        if load64(record + REDIRECT_FLAGS) & BPF_F_BROADCAST:
            return broadcast(queue, buff, record)
        key = load32(value)
    elif kind == _CPUMAP:
        key += CPU
    elif kind == _XSKMAP:
        key = SOCKET + load32(value)
    elif kind != 0:
        return BAD_MAP
    port = lookup(load64(queue + TABLE), key)
    if port == 0:
        return NO_TARGET
    return send(queue, port, buff)


@native
def act_on(queue: int, buff: int, act: int) -> int:
    """Carry out one sending action; a packet that cannot be sent is counted and its frame taken."""
    reason = SENT
    if act == XDP_TX:
        reason = send(queue, load64(queue + PORT), buff)
    elif act == XDP_REDIRECT:
        reason = redirect(queue, buff)
    else:
        reason = send(queue, load64(queue + STACK), buff)
    if reason != SENT:
        counter = load64(queue + STATS) + ERRORS + 8 * (REASON_COUNT * (act - XDP_PASS) + reason)
        store64(counter, load64(counter) + 1)
        give(load64(queue + UMEM), load64(buff + HANDLE))
    return reason


@native
def act_on_each(queue: int, buffs: int, n: int, act: int) -> int:
    """Carry out one action for `n` packets; returns the address after them."""
    for i in range(n):
        act_on(queue, load64(buffs + 8 * i), act)
    return buffs + 8 * n


@native
def apply(queue: int, buffs: int, counts: int) -> int:
    """Carry out every action of a batch that `split` has put in order.

    Dropped frames go first: they are the ones that a copy may need.
    """
    dropped = count_of(counts, XDP_ABORTED) + count_of(counts, XDP_DROP)
    recycle(load64(queue + UMEM), buffs, dropped)
    buffs = act_on_each(queue, buffs + 8 * dropped, count_of(counts, XDP_PASS), XDP_PASS)
    buffs = act_on_each(queue, buffs, count_of(counts, XDP_TX), XDP_TX)
    return act_on_each(queue, buffs, count_of(counts, XDP_REDIRECT), XDP_REDIRECT)


@native
def count(queue: int, counts: int) -> int:
    """Add a batch's verdicts to the statistics."""
    verdicts = load64(queue + STATS) + VERDICTS
    for act in range(5):
        store64(verdicts + 8 * act, load64(verdicts + 8 * act) + count_of(counts, act))
    return 0
