"""bpf_sk_release(sock): give back a socket that a lookup found (net/core/filter.c)."""

from __future__ import annotations

from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.native import native


@native
def sk_release(socket: int) -> int:
    """The host's sockets stay where they are: there is nothing to count."""
    return 0


HELPER = Helper(86, "sk_release", (Arg.SOCK,), Ret.INTEGER, sk_release, releases=0)
