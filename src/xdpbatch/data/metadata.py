"""Metadata in front of received packets, as a driver or an earlier program puts it there.

Analogous to what drivers with `data_meta` do before they run the program, and to `data_meta` of
the context that BPF_PROG_TEST_RUN takes: up to 255 bytes, a multiple of 4.
"""

from __future__ import annotations

from xdpbatch.data.buff import DATA, DATA_META, SIZEOF_XDP_BUFF
from xdpbatch.data.queue import BATCH, META, META_SIZE
from xdpbatch.mem import copy, load64, store64
from xdpbatch.native import native

MAX_METADATA = 252  # include/net/xdp.h, xdp_metalen_invalid()


@native
def prepend(queue: int, n: int) -> int:
    """Put the queue's metadata, if it has any, in front of the first `n` packets of the batch."""
    meta = load64(queue + META)
    if meta == 0:
        return 0
    size, first = load64(queue + META_SIZE), load64(queue + BATCH)
    for i in range(n):
        buff = first + i * SIZEOF_XDP_BUFF
        start = load64(buff + DATA) - size
        copy(start, meta, size)
        store64(buff + DATA_META, start)
    return 0
