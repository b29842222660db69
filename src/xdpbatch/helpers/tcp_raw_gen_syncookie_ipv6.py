"""bpf_tcp_raw_gen_syncookie_ipv6(iph, th, th_len): the SYN cookie for an IPv6 packet
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
def tcp_raw_gen_syncookie_ipv6(buff: int, ip: int, tcp: int, length: int) -> int:
    length &= 0xFFFFFFFF
    if length < HEADER or length != (load8(tcp + OFFSET) >> 4) * 4:
        return -EINVAL
    return cookie_for(buff, ip, tcp, 16)


HELPER = Helper(
    205,
    "tcp_raw_gen_syncookie_ipv6",
    (Arg.STRUCT, Arg.MEM, Arg.CONST_SIZE),
    Ret.INTEGER,
    tcp_raw_gen_syncookie_ipv6,
    gpl=True,
    sizes=(40, 0, 0),
)
