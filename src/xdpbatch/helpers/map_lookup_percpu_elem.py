"""bpf_map_lookup_percpu_elem(map, key, cpu): the address of one CPU's value, or 0
(kernel/bpf/helpers.c)."""

from __future__ import annotations

from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.uapi import MapNumber as M

HELPER = Helper(
    195,
    "map_lookup_percpu_elem",
    (Arg.CONST_MAP_PTR, Arg.MAP_KEY, Arg.ANYTHING),
    Ret.MAP_VALUE_OR_NULL,
    op="lookup_cpu",
    params=("map", "key", "cpu"),
    maps=frozenset({M.PERCPU_ARRAY, M.PERCPU_HASH, M.LRU_PERCPU_HASH}),
)
