"""bpf_redirect_map(map, key, flags): XDP_REDIRECT, or the low bits of `flags` where the map has no
such entry (net/core/filter.c, bpf_xdp_redirect_map). The map type does the work."""

from __future__ import annotations

from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.uapi import MapNumber as M

HELPER = Helper(
    51,
    "redirect_map",
    (Arg.CONST_MAP_PTR, Arg.ANYTHING, Arg.ANYTHING),
    Ret.INTEGER,
    op="redirect",
    params=("map", "key", "flags"),
    maps=frozenset({M.DEVMAP, M.DEVMAP_HASH, M.CPUMAP, M.XSKMAP}),
)
