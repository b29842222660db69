"""What each action does: the end of the driver's receive routine.

Analogous to the `switch (act)` of a driver and to xdp_do_redirect() (net/core/filter.c). `split`
is the slides' "Sort actions?": a stable partition, so that each action and each target gets its
packets in one go and in their order.
"""

from __future__ import annotations

from xdpbatch.data.buff import ACT, SIZEOF_XDP_BUFF
from xdpbatch.data.egress import EACH, key_of, send_to, special
from xdpbatch.data.port import lookup
from xdpbatch.data.queue import BATCH, PORT, SORTED, STACK, STATS, TABLE, UMEM, UNSORTED
from xdpbatch.data.send import recycle, send, send_one
from xdpbatch.data.stats import UNKNOWN, VERDICTS
from xdpbatch.mem import load32, load64, store64
from xdpbatch.native import native
from xdpbatch.uapi import Action

XDP_ABORTED, XDP_DROP, XDP_PASS = map(int, (Action.XDP_ABORTED, Action.XDP_DROP, Action.XDP_PASS))
XDP_TX, XDP_REDIRECT = int(Action.XDP_TX), int(Action.XDP_REDIRECT)
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
def forward(queue: int, buffs: int, n: int, key: int) -> int:
    """Send `n` redirected packets that have the same key."""
    if key != EACH:
        return send_to(queue, buffs, n, key)
    for i in range(n):
        special(queue, buffs + 8 * i)
    return 0


@native
def redirect(queue: int, buffs: int, n: int) -> int:
    """xdp_do_redirect for `n` packets: each run with one target in one go."""
    start = 0
    key = 0
    for i in range(n):
        one = key_of(queue, load64(buffs + 8 * i))
        if one != key:
            forward(queue, buffs + 8 * start, i - start, key)
            start = i
            key = one
    return forward(queue, buffs + 8 * start, n - start, key)


@native
def act_on(queue: int, buffs: int, n: int, act: int) -> int:
    """Carry out one of the actions that send, for `n` packets; returns the address after them."""
    if act == XDP_REDIRECT:
        redirect(queue, buffs, n)
    elif act == XDP_TX:
        send(queue, load64(queue + PORT), buffs, n, XDP_TX)
    else:
        send(queue, load64(queue + STACK), buffs, n, XDP_PASS)
    return buffs + 8 * n


@native
def act_on_one(queue: int, buffs: int, act: int) -> int:
    """Carry out one of the actions that send, for one packet."""
    port = load64(queue + PORT)
    if act == XDP_PASS:
        port = load64(queue + STACK)
    elif act == XDP_REDIRECT:
        key = key_of(queue, load64(buffs))
        port = lookup(load64(queue + TABLE), key)
        if port == 0:
            return forward(queue, buffs, 1, key)
    return send_one(queue, port, buffs, act)


@native
def apply(queue: int, buffs: int, counts: int) -> int:
    """Carry out every action of a batch that `split` has put in order.

    Dropped frames go first: they are the ones that a copy may need.
    """
    dropped = count_of(counts, XDP_ABORTED) + count_of(counts, XDP_DROP)
    recycle(load64(queue + UMEM), buffs, dropped)
    buffs += 8 * dropped
    for act in range(XDP_PASS, XDP_REDIRECT + 1):
        n = count_of(counts, act)
        if n > 0:
            buffs = act_on(queue, buffs, n, act)
    return buffs


@native
def count(queue: int, counts: int) -> int:
    """Add a batch's verdicts to the statistics."""
    verdicts = load64(queue + STATS) + VERDICTS
    for act in range(5):
        store64(verdicts + 8 * act, load64(verdicts + 8 * act) + count_of(counts, act))
    return 0
