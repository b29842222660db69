"""bpf_tcp_raw_gen_syncookie_ipv4(iph, th, th_len): the SYN cookie for an IPv4 packet
(net/core/filter.c). The low 32 bits are the cookie, the next 16 its MSS; -EINVAL if `th_len` is not
the length that the TCP header says."""

from __future__ import annotations

import errno

from xdpbatch.data.syncookie import HEADER, OFFSET, cookie_for
from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.mem import load8
from xdpbatch.native import native

EINVAL = errno.EINVAL


@native
def tcp_raw_gen_syncookie_ipv4(buff: int, ip: int, tcp: int, length: int) -> int:
    length &= 0xFFFFFFFF
    if length < HEADER or length != (load8(tcp + OFFSET) >> 4) * 4:
        return -EINVAL
    return cookie_for(buff, ip, tcp, 4)


HELPER = Helper(
    204,
    "tcp_raw_gen_syncookie_ipv4",
    (Arg.STRUCT, Arg.MEM, Arg.CONST_SIZE),
    Ret.INTEGER,
    tcp_raw_gen_syncookie_ipv4,
    gpl=True,
    sizes=(20, 0, 0),
)
