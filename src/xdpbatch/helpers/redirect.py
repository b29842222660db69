"""bpf_redirect(ifindex, flags): remember the interface (net/core/filter.c, bpf_xdp_redirect)."""

from __future__ import annotations

from xdpbatch.data.target import redirect_to
from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.native import native
from xdpbatch.uapi import Action

XDP_ABORTED, XDP_REDIRECT = int(Action.XDP_ABORTED), int(Action.XDP_REDIRECT)


@native
def redirect(buff: int, ifindex: int, flags: int) -> int:
    """XDP_REDIRECT; no flag is defined for XDP, any gives XDP_ABORTED."""
    if flags != 0:
        return XDP_ABORTED
    redirect_to(buff, 0, 0, ifindex, 0, 0)
    return XDP_REDIRECT


HELPER = Helper(23, "redirect", (Arg.ANYTHING, Arg.ANYTHING), Ret.INTEGER, redirect)
