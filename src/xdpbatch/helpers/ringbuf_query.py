"""bpf_ringbuf_query(map, flags): the state of a ring buffer in bytes (kernel/bpf/ringbuf.c)."""

from __future__ import annotations

from xdpbatch.data.records import CONSUMER, PRODUCER, SIZE
from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.maps import SIZEOF_HEADER
from xdpbatch.mem import load64, load_acquire64
from xdpbatch.native import native
from xdpbatch.uapi import MapNumber

AVAIL_DATA, RING_SIZE, CONS_POS, PROD_POS = range(4)  # BPF_RB_*


@native
def ringbuf_query(map: int, flags: int) -> int:
    """Unread bytes, size, or a position, as `flags` says; 0 for anything else."""
    ring = map + SIZEOF_HEADER
    consumer = load_acquire64(ring + CONSUMER)
    producer = load_acquire64(ring + PRODUCER)
    if flags == AVAIL_DATA:
        return producer - consumer
    if flags == RING_SIZE:
        return load64(ring + SIZE)
    if flags == CONS_POS:
        return consumer
    if flags == PROD_POS:
        return producer
    return 0


HELPER = Helper(
    134,
    "ringbuf_query",
    (Arg.CONST_MAP_PTR, Arg.ANYTHING),
    Ret.INTEGER,
    ringbuf_query,
    maps=frozenset({MapNumber.RINGBUF}),
)
