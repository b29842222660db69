"""Broadcast: one packet to every device of a devmap, as dev_map_enqueue_multi() does it."""

from __future__ import annotations

from xdpbatch.data.stats import BAD_MAP
from xdpbatch.native import native


@native
def broadcast(queue: int, buff: int, record: int) -> int:
    """Send a packet to all targets of the map in its Redirect record."""
    return BAD_MAP
