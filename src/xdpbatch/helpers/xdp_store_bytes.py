"""bpf_xdp_store_bytes(ctx, offset, buf, len): copy into the packet (net/core/filter.c). Errors as
bpf_xdp_load_bytes()."""

from __future__ import annotations

from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.helpers.xdp_load_bytes import packet_pointer
from xdpbatch.mem import copy
from xdpbatch.native import native


@native
def xdp_store_bytes(buff: int, ctx: int, offset: int, source: int, size: int) -> int:
    to = packet_pointer(buff, offset, size)
    if to < 0:
        return to
    copy(to, source, size & 0xFFFFFFFF)
    return 0


HELPER = Helper(
    190,
    "xdp_store_bytes",
    (Arg.CTX, Arg.ANYTHING, Arg.MEM, Arg.CONST_SIZE),
    Ret.INTEGER,
    xdp_store_bytes,
)
