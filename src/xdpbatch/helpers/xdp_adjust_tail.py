"""bpf_xdp_adjust_tail(ctx, offset): move the packet's end; new bytes are zero (net/core/filter.c).

0, or -EINVAL if that leaves the frame or less than an Ethernet header."""

from __future__ import annotations

import errno

from xdpbatch.data.buff import DATA, DATA_END
from xdpbatch.data.packet import hard_end, signed32
from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.mem import fill, load64, store64
from xdpbatch.native import native

EINVAL = errno.EINVAL
ETH_HLEN = 14


@native
def xdp_adjust_tail(buff: int, ctx: int, offset: int) -> int:
    """`offset` < 0 removes bytes, > 0 appends zeros."""
    offset = signed32(offset)
    old = load64(buff + DATA_END)
    new = old + offset
    if new > hard_end(buff) or new < load64(buff + DATA) + ETH_HLEN:
        return -EINVAL
    if offset > 0:
        fill(old, 0, offset)
    store64(buff + DATA_END, new)
    return 0


HELPER = Helper(
    65,
    "xdp_adjust_tail",
    (Arg.CTX, Arg.ANYTHING),
    Ret.INTEGER,
    xdp_adjust_tail,
    changes_packet=True,
)
