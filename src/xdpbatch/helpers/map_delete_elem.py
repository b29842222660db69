"""bpf_map_delete_elem(map, key): 0 or -errno (kernel/bpf/helpers.c)."""

from __future__ import annotations

from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.uapi import MapNumber as M

HELPER = Helper(
    3,
    "map_delete_elem",
    (Arg.CONST_MAP_PTR, Arg.MAP_KEY),
    Ret.INTEGER,
    op="delete",
    params=("map", "key"),
    maps=frozenset(
        {M.HASH, M.ARRAY, M.PERCPU_HASH, M.PERCPU_ARRAY, M.LRU_HASH, M.LRU_PERCPU_HASH, M.LPM_TRIE}
    ),
)
