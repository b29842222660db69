"""Interfaces and neighbours, as native code finds them.

Analogous to dev_get_by_index_rcu() (net/core/dev.c) and __neigh_lookup_noref()
(include/net/neighbour.h).
"""

from __future__ import annotations

from xdpbatch.data.buff import RXQ, RXQ_HOST, RXQ_SCRATCH
from xdpbatch.host.layout import INTERFACES, NEIGHBOUR_KEY, NEIGHBOURS, SIZEOF_INTERFACE
from xdpbatch.maps.hash import lookup
from xdpbatch.mem import copy, load64, store32, store64
from xdpbatch.native import native


@native
def interface(buff: int, ifindex: int) -> int:
    """Address of an INTERFACE, 0 if the host does not have it or nothing is known of a host."""
    rxq = load64(buff + RXQ)
    host = load64(rxq + RXQ_HOST)
    if host == 0:
        return 0
    store32(rxq + RXQ_SCRATCH, ifindex)
    return lookup(load64(host + INTERFACES), rxq + RXQ_SCRATCH, 4, SIZEOF_INTERFACE)


@native
def neighbour(buff: int, family: int, ifindex: int, address: int, size: int) -> int:
    """Address of a neighbour's MAC, 0 if it is not known. An address 0 is the unspecified one."""
    rxq = load64(buff + RXQ)
    key = rxq + RXQ_SCRATCH
    store32(key, family)
    store32(key + 4, ifindex)
    store64(key + 8, 0)
    store64(key + 16, 0)
    if address != 0:
        copy(key + 8, address, size)
    return lookup(load64(load64(rxq + RXQ_HOST) + NEIGHBOURS), key, NEIGHBOUR_KEY, 8)
