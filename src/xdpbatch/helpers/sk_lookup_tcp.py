"""bpf_sk_lookup_tcp(ctx, tuple, size, netns, flags): the TCP socket that a packet is for, or 0
(net/core/filter.c). The reference that it holds is given back by bpf_sk_release()."""

from __future__ import annotations

from xdpbatch.data.buff import RXQ, RXQ_IFINDEX
from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.host.layout import SK_STATE
from xdpbatch.host.sockets import TCP, TIME_WAIT, find_socket, this_namespace
from xdpbatch.mem import load32, load64
from xdpbatch.native import native


@native
def sk_lookup_tcp(buff: int, ctx: int, tuple: int, length: int, netns: int, flags: int) -> int:
    if this_namespace(netns, flags) == 0:
        return 0
    ifindex = load32(load64(buff + RXQ) + RXQ_IFINDEX)
    socket = find_socket(buff, TCP, tuple, length & 0xFFFFFFFF, ifindex)
    if socket != 0 and load32(socket + SK_STATE) == TIME_WAIT:
        return 0
    return socket


HELPER = Helper(
    84,
    "sk_lookup_tcp",
    (Arg.CTX, Arg.MEM, Arg.CONST_SIZE, Arg.ANYTHING, Arg.ANYTHING),
    Ret.SOCK_OR_NULL,
    sk_lookup_tcp,
)
