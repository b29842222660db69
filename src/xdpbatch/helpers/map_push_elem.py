"""bpf_map_push_elem(map, value, flags): 0 or -errno (kernel/bpf/helpers.c)."""

from __future__ import annotations

from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.uapi import MapNumber as M

HELPER = Helper(
    87,
    "map_push_elem",
    (Arg.CONST_MAP_PTR, Arg.MAP_VALUE, Arg.ANYTHING),
    Ret.INTEGER,
    op="push",
    params=("map", "value", "flags"),
    maps=frozenset({M.QUEUE, M.STACK, M.BLOOM_FILTER}),
)
