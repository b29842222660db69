"""Broadcast: one packet to every device of a devmap, as dev_map_enqueue_multi() does it."""

from __future__ import annotations

from xdpbatch.data.send import fail
from xdpbatch.data.stats import BAD_MAP
from xdpbatch.native import native
from xdpbatch.uapi import Action

TO_ALL = 1 << 40  # in place of a key of the port table
XDP_REDIRECT = int(Action.XDP_REDIRECT)


@native
def broadcast(queue: int, buffs: int) -> int:
    """Send a packet to all targets of the map in its Redirect record."""
    return fail(queue, buffs, 1, XDP_REDIRECT, BAD_MAP)
