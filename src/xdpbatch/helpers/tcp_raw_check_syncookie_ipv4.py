"""bpf_tcp_raw_check_syncookie_ipv4(iph, th): 0 if the packet acknowledges a SYN cookie that was
made with this process's secret, else -EACCES (net/core/filter.c)."""

from __future__ import annotations

import errno

from xdpbatch.data.syncookie import HEADER, holds
from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.native import native

EACCES = errno.EACCES


@native
def tcp_raw_check_syncookie_ipv4(buff: int, ip: int, tcp: int) -> int:
    if holds(buff, ip, tcp, 4) != 0:
        return 0
    return -EACCES


HELPER = Helper(
    206,
    "tcp_raw_check_syncookie_ipv4",
    (Arg.STRUCT, Arg.STRUCT),
    Ret.INTEGER,
    tcp_raw_check_syncookie_ipv4,
    gpl=True,
    sizes=(20, HEADER),
)
