"""bpf_xdp_get_buff_len(ctx): bytes of the packet (net/core/filter.c)."""

from __future__ import annotations

from xdpbatch.data.packet import length
from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.native import native


@native
def xdp_get_buff_len(buff: int, ctx: int) -> int:
    return length(buff)


HELPER = Helper(188, "xdp_get_buff_len", (Arg.CTX,), Ret.INTEGER, xdp_get_buff_len)
