"""bpf_xdp_adjust_meta(ctx, offset): move the start of the metadata before the packet
(net/core/filter.c). 0; -EINVAL if it leaves the headroom; -EACCES for a size that is not a multiple
of 4 or above 255 (xdp_metalen_invalid); -ENOTSUPP where there is no metadata."""

from __future__ import annotations

import errno

from xdpbatch.data.buff import DATA, DATA_HARD_START, DATA_META, SIZEOF_XDP_FRAME
from xdpbatch.data.packet import signed32
from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.mem import load64, store64
from xdpbatch.native import native

EINVAL, EACCES = errno.EINVAL, errno.EACCES
ENOTSUPP = 524  # include/linux/errno.h
META_MAX = 255  # skb_shared_info.meta_len is a u8


@native
def xdp_adjust_meta(buff: int, ctx: int, offset: int) -> int:
    """`offset` < 0 makes the metadata longer."""
    data = load64(buff + DATA)
    meta = load64(buff + DATA_META)
    if meta > data:
        return -ENOTSUPP
    meta += signed32(offset)
    if meta < load64(buff + DATA_HARD_START) + SIZEOF_XDP_FRAME or meta > data:
        return -EINVAL
    if (data - meta) & 3 != 0 or data - meta > META_MAX:
        return -EACCES
    store64(buff + DATA_META, meta)
    return 0


HELPER = Helper(
    54,
    "xdp_adjust_meta",
    (Arg.CTX, Arg.ANYTHING),
    Ret.INTEGER,
    xdp_adjust_meta,
    changes_packet=True,
)
