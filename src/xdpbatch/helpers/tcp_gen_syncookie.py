"""bpf_tcp_gen_syncookie(sk, iph, iph_len, th, th_len): the SYN cookie of a listening socket
(net/core/filter.c).

Linux has one only while the socket's queue of half-open connections overflows. No queue is here:
-ENOENT, as in Linux until then; -EINVAL or -EPROTONOSUPPORT for what is wrong before that.
"""

from __future__ import annotations

import errno

from xdpbatch.data.syncookie import HEADER, OFFSET
from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.host.listener import ACK_FLAG, FIN, FLAGS, RST, SYN, listens, version_error
from xdpbatch.mem import load8
from xdpbatch.native import native

EINVAL = errno.EINVAL


@native
def tcp_gen_syncookie(socket: int, ip: int, ip_length: int, tcp: int, tcp_length: int) -> int:
    tcp_length &= 0xFFFFFFFF
    if tcp_length < HEADER or tcp_length != (load8(tcp + OFFSET) >> 4) * 4:
        return -EINVAL
    if listens(socket) == 0 or load8(tcp + FLAGS) & (FIN | SYN | RST | ACK_FLAG) != SYN:
        return -EINVAL
    return version_error(socket, ip, ip_length & 0xFFFFFFFF)


HELPER = Helper(
    110,
    "tcp_gen_syncookie",
    (Arg.SOCK, Arg.MEM, Arg.CONST_SIZE, Arg.MEM, Arg.CONST_SIZE),
    Ret.INTEGER,
    tcp_gen_syncookie,
    gpl=True,
)
