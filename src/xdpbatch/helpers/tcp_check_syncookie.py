"""bpf_tcp_check_syncookie(sk, iph, iph_len, th, th_len): whether an ACK holds a
listening socket's SYN cookie
(net/core/filter.c).

Linux has one only while the socket's queue of half-open connections overflows. No queue is here:
-ENOENT, as in Linux until then; -EINVAL or -EPROTONOSUPPORT for what is wrong before that.
"""

from __future__ import annotations

import errno

from xdpbatch.data.syncookie import HEADER
from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.host.listener import ACK_FLAG, FLAGS, IPV4_HEADER, RST, SYN, listens
from xdpbatch.mem import load8
from xdpbatch.native import native

EINVAL, ENOENT = errno.EINVAL, errno.ENOENT


@native
def tcp_check_syncookie(socket: int, ip: int, ip_length: int, tcp: int, tcp_length: int) -> int:
    tcp_length &= 0xFFFFFFFF
    if tcp_length < HEADER or listens(socket) == 0:
        return -EINVAL
    if load8(tcp + FLAGS) & (SYN | RST | ACK_FLAG) != ACK_FLAG:
        return -ENOENT
    if ip_length & 0xFFFFFFFF < IPV4_HEADER:
        return -EINVAL
    return -ENOENT


HELPER = Helper(
    100,
    "tcp_check_syncookie",
    (Arg.SOCK, Arg.MEM, Arg.CONST_SIZE, Arg.MEM, Arg.CONST_SIZE),
    Ret.INTEGER,
    tcp_check_syncookie,
    gpl=True,
)
