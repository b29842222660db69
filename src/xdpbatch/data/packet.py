"""The current packet's memory: its lengths and limits.

Analogous to the accessors of struct xdp_buff (include/net/xdp.h).
"""

from __future__ import annotations

from xdpbatch.data.buff import (
    DATA,
    DATA_END,
    DATA_HARD_START,
    DATA_META,
    RXQ,
    RXQ_FRAME_SIZE,
    SKB_SHARED_INFO,
)
from xdpbatch.mem import load32, load64
from xdpbatch.native import native


@native
def signed32(value: int) -> int:
    """The low 32 bits of a register as a signed number: what an `int` parameter is."""
    return ((value & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000


@native
def length(buff: int) -> int:
    """xdp_get_buff_len()."""
    return load64(buff + DATA_END) - load64(buff + DATA)


@native
def meta_length(buff: int) -> int:
    """xdp_get_metalen(): 0 also where there is no support for metadata."""
    meta, data = load64(buff + DATA_META), load64(buff + DATA)
    if meta > data:
        return 0
    return data - meta


@native
def hard_end(buff: int) -> int:
    """xdp_data_hard_end()."""
    frame_size = load32(load64(buff + RXQ) + RXQ_FRAME_SIZE)
    return load64(buff + DATA_HARD_START) + frame_size - SKB_SHARED_INFO
