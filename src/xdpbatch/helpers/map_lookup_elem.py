"""bpf_map_lookup_elem(map, key): the address of the value, or 0 (kernel/bpf/helpers.c)."""

from __future__ import annotations

from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.uapi import MapNumber as M

HELPER = Helper(
    1,
    "map_lookup_elem",
    (Arg.CONST_MAP_PTR, Arg.MAP_KEY),
    Ret.MAP_VALUE_OR_NULL,
    op="lookup",
    params=("map", "key"),
    maps=frozenset(
        {M.HASH, M.ARRAY, M.PERCPU_HASH, M.PERCPU_ARRAY, M.LRU_HASH, M.LRU_PERCPU_HASH}
        | {M.LPM_TRIE, M.ARRAY_OF_MAPS, M.HASH_OF_MAPS, M.DEVMAP, M.DEVMAP_HASH, M.XSKMAP}
    ),
)
