"""bpf_map_peek_elem(map, value): 0, or -ENOENT if there is no such value (kernel/bpf/helpers.c)."""

from __future__ import annotations

from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.uapi import MapNumber as M

HELPER = Helper(
    89,
    "map_peek_elem",
    (Arg.CONST_MAP_PTR, Arg.UNINIT_MAP_VALUE),
    Ret.INTEGER,
    op="peek",
    params=("map", "out"),
    maps=frozenset({M.QUEUE, M.STACK, M.BLOOM_FILTER}),
)
