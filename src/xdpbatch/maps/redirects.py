"""bpf_redirect_map() for every map type that has it.

Analogous to __bpf_xdp_redirect_map() (include/linux/filter.h).
"""

from __future__ import annotations

from xdpbatch.data.target import redirect_failed, redirect_to
from xdpbatch.native import native
from xdpbatch.uapi import BPF_F_BROADCAST, Action

XDP_ABORTED, XDP_REDIRECT = int(Action.XDP_ABORTED), int(Action.XDP_REDIRECT)
ACTIONS = int(Action.XDP_ABORTED | Action.XDP_DROP | Action.XDP_PASS | Action.XDP_TX)


@native
def redirect(buff: int, map: int, type: int, key: int, flags: int, allowed: int, value: int) -> int:
    """XDP_REDIRECT to `value`, or the low bits of `flags` if it is 0 and nothing is broadcast.

    XDP_ABORTED for flags outside of `allowed`. A broadcast keeps its flags and has no value.
    """
    if flags & ~(ACTIONS | allowed) != 0:
        return XDP_ABORTED
    if flags & allowed & BPF_F_BROADCAST != 0:
        redirect_to(buff, type, map, key, flags, 0)
        return XDP_REDIRECT
    if value == 0:
        redirect_failed(buff)
        return flags & ACTIONS
    redirect_to(buff, type, map, key, 0, value)
    return XDP_REDIRECT
