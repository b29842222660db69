"""Where the current packet is redirected: the record that the redirect helpers fill.

Analogous to bpf_redirect_info (include/linux/filter.h), but one per packet of a batch. The first
redirect helper of a packet takes a record of Rxq.redirects; later ones overwrite it.
"""

from __future__ import annotations

from xdpbatch.data.buff import (
    REDIRECT_FLAGS,
    REDIRECT_INDEX,
    REDIRECT_MAP,
    REDIRECT_MAP_TYPE,
    REDIRECT_VALUE,
    RXQ,
    RXQ_REDIRECT_COUNT,
    RXQ_REDIRECTS,
    SIZEOF_REDIRECT,
    TARGET,
)
from xdpbatch.mem import load32, load64, store32, store64
from xdpbatch.native import native


@native
def redirect_to(buff: int, map_type: int, map: int, index: int, flags: int, value: int) -> int:
    """Fill the packet's Redirect record, taking one if this is its first redirect."""
    rxq = load64(buff + RXQ)
    target = load32(buff + TARGET)
    if target == 0:
        target = load32(rxq + RXQ_REDIRECT_COUNT) + 1
        store32(rxq + RXQ_REDIRECT_COUNT, target)
        store32(buff + TARGET, target)
    record = load64(rxq + RXQ_REDIRECTS) + target * SIZEOF_REDIRECT
    store32(record + REDIRECT_MAP_TYPE, map_type)
    store32(record + REDIRECT_INDEX, index)
    store64(record + REDIRECT_FLAGS, flags)
    store64(record + REDIRECT_MAP, map)
    store64(record + REDIRECT_VALUE, value)
    return 0


@native
def redirect_failed(buff: int) -> int:
    """After a failed lookup: what an earlier call left is an ifindex now, no map's entry."""
    target = load32(buff + TARGET)
    if target != 0:
        record = load64(load64(buff + RXQ) + RXQ_REDIRECTS) + target * SIZEOF_REDIRECT
        store32(record + REDIRECT_MAP_TYPE, 0)
    return 0
