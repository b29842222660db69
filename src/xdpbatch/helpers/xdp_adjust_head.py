"""bpf_xdp_adjust_head(ctx, offset): move the packet's start; metadata moves along
(net/core/filter.c). 0, or -EINVAL if that leaves the frame or less than an Ethernet header."""

from __future__ import annotations

import errno

from xdpbatch.data.buff import DATA, DATA_END, DATA_HARD_START, DATA_META, SIZEOF_XDP_FRAME
from xdpbatch.data.packet import meta_length, signed32
from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.mem import copy, load64, store64
from xdpbatch.native import native

EINVAL = errno.EINVAL
ETH_HLEN = 14


@native
def xdp_adjust_head(buff: int, ctx: int, offset: int) -> int:
    """`offset` < 0 makes room for a header, > 0 removes bytes."""
    offset = signed32(offset)
    size = meta_length(buff)
    meta = load64(buff + DATA_META)
    data = load64(buff + DATA) + offset
    lowest = load64(buff + DATA_HARD_START) + SIZEOF_XDP_FRAME + size
    if data < lowest or data > load64(buff + DATA_END) - ETH_HLEN:
        return -EINVAL
    if size != 0:
        copy(meta + offset, meta, size)
    store64(buff + DATA_META, meta + offset)
    store64(buff + DATA, data)
    return 0


HELPER = Helper(
    44,
    "xdp_adjust_head",
    (Arg.CTX, Arg.ANYTHING),
    Ret.INTEGER,
    xdp_adjust_head,
    changes_packet=True,
)
