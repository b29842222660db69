"""What the helpers for SYN cookies of a socket ask before they look at its queue.

Analogous to the first lines of bpf_tcp_gen_syncookie() and bpf_tcp_check_syncookie()
(net/core/filter.c).
"""

from __future__ import annotations

import errno

from xdpbatch.host import AF_INET6
from xdpbatch.host.layout import SK_FAMILY, SK_ONLY6, SK_PROTOCOL, SK_STATE
from xdpbatch.host.sockets import LISTEN, TCP
from xdpbatch.mem import load8, load32
from xdpbatch.native import native

EINVAL, ENOENT, EPROTONOSUPPORT = errno.EINVAL, errno.ENOENT, errno.EPROTONOSUPPORT
FLAGS = 13  # of a TCP header
FIN, SYN, RST, ACK_FLAG = 1, 2, 4, 16
IPV4_HEADER, IPV6_HEADER = 20, 40
INET6 = AF_INET6


@native
def listens(socket: int) -> int:
    """Whether it is a listening TCP socket."""
    return int(load32(socket + SK_STATE) == LISTEN and load32(socket + SK_PROTOCOL) == TCP)


@native
def version_error(socket: int, ip: int, length: int) -> int:
    """What is wrong with an IP header for a socket; -ENOENT if it is only that no cookie is due."""
    if length < IPV4_HEADER:
        return -EINVAL
    version = load8(ip) >> 4
    six = int(load32(socket + SK_FAMILY) == INET6)
    if version == 4:
        if six != 0 and load32(socket + SK_ONLY6) != 0:
            return -EINVAL
        return -ENOENT
    if version == 6:
        if length < IPV6_HEADER or six == 0:
            return -EINVAL
        return -ENOENT
    return -EPROTONOSUPPORT
