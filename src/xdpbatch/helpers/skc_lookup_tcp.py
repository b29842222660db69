"""bpf_skc_lookup_tcp(ctx, tuple, size, netns, flags): the TCP socket that a packet is for,
in any state, or 0
(net/core/filter.c). The reference that it holds is given back by bpf_sk_release()."""

from __future__ import annotations

from xdpbatch.data.buff import RXQ, RXQ_IFINDEX
from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.host.sockets import TCP, find_socket, this_namespace
from xdpbatch.mem import load32, load64
from xdpbatch.native import native


@native
def skc_lookup_tcp(buff: int, ctx: int, tuple: int, length: int, netns: int, flags: int) -> int:
    if this_namespace(netns, flags) == 0:
        return 0
    ifindex = load32(load64(buff + RXQ) + RXQ_IFINDEX)
    return find_socket(buff, TCP, tuple, length & 0xFFFFFFFF, ifindex)


HELPER = Helper(
    99,
    "skc_lookup_tcp",
    (Arg.CTX, Arg.MEM, Arg.CONST_SIZE, Arg.ANYTHING, Arg.ANYTHING),
    Ret.SOCK_COMMON_OR_NULL,
    skc_lookup_tcp,
)
