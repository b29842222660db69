"""bpf_xdp_load_bytes(ctx, offset, buf, len): copy out of the packet (net/core/filter.c). 0; -EFAULT
for an offset or length above 0xffff; -EINVAL past the packet's end."""

from __future__ import annotations

import errno

from xdpbatch.data.buff import DATA
from xdpbatch.data.packet import length
from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.mem import copy, load64
from xdpbatch.native import native

EINVAL, EFAULT = errno.EINVAL, errno.EFAULT
MAX = 0xFFFF


@native
def packet_pointer(buff: int, offset: int, size: int) -> int:
    """The address of `size` bytes at `offset`, or -errno: bpf_xdp_pointer()."""
    offset &= 0xFFFFFFFF
    size &= 0xFFFFFFFF
    if offset > MAX or size > MAX:
        return -EFAULT
    if offset + size > length(buff):
        return -EINVAL
    return load64(buff + DATA) + offset


@native
def xdp_load_bytes(buff: int, ctx: int, offset: int, to: int, size: int) -> int:
    source = packet_pointer(buff, offset, size)
    if source < 0:
        return source
    copy(to, source, size & 0xFFFFFFFF)
    return 0


HELPER = Helper(
    189,
    "xdp_load_bytes",
    (Arg.CTX, Arg.ANYTHING, Arg.UNINIT_MEM, Arg.CONST_SIZE),
    Ret.INTEGER,
    xdp_load_bytes,
)
