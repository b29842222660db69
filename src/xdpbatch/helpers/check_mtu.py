"""bpf_check_mtu(ctx, ifindex, mtu_len, len_diff, flags): whether the packet fits an interface
(net/core/filter.c, bpf_xdp_check_mtu).

0 or BPF_MTU_CHK_RET_FRAG_NEEDED, and *mtu_len is the MTU then; after an error it is as it was.
`ifindex` 0 is the interface that the packet came in by. One that is not known: -ENODEV.
"""

from __future__ import annotations

import errno

from xdpbatch.data.buff import RXQ, RXQ_IFINDEX
from xdpbatch.data.packet import length, signed32
from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.host.devices import interface
from xdpbatch.host.layout import IF_HEADER, IF_MTU
from xdpbatch.mem import load32, load64, store32
from xdpbatch.native import native

EINVAL, ENODEV = errno.EINVAL, errno.ENODEV
FRAG_NEEDED = 1


@native
def check_mtu(buff: int, ctx: int, ifindex: int, mtu_len: int, len_diff: int, flags: int) -> int:
    """`*mtu_len` may come as the length of the packet without its link-layer header."""
    if flags != 0:
        return -EINVAL
    ifindex &= 0xFFFFFFFF
    if ifindex == 0:
        ifindex = load32(load64(buff + RXQ) + RXQ_IFINDEX)
    device = interface(buff, ifindex)
    if device == 0:
        return -ENODEV
    mtu, header = load32(device + IF_MTU), load32(device + IF_HEADER)
    size = length(buff)
    if load32(mtu_len) != 0:
        size = load32(mtu_len) + header
    store32(mtu_len, mtu)
    return int(signed32(size + signed32(len_diff)) > signed32(mtu + header))


HELPER = Helper(
    163,
    "check_mtu",
    (Arg.CTX, Arg.ANYTHING, Arg.FIXED_MEM, Arg.ANYTHING, Arg.ANYTHING),
    Ret.INTEGER,
    check_mtu,
    gpl=True,
    fixed_size=4,
)
