"""bpf_map_pop_elem(map, value): 0, or -ENOENT from an empty map (kernel/bpf/helpers.c)."""

from __future__ import annotations

from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.uapi import MapNumber as M

HELPER = Helper(
    88,
    "map_pop_elem",
    (Arg.CONST_MAP_PTR, Arg.UNINIT_MAP_VALUE),
    Ret.INTEGER,
    op="pop",
    params=("map", "out"),
    maps=frozenset({M.QUEUE, M.STACK}),
)
