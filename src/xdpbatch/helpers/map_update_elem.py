"""bpf_map_update_elem(map, key, value, flags): 0 or -errno (kernel/bpf/helpers.c)."""

from __future__ import annotations

from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.uapi import MapNumber as M

HELPER = Helper(
    2,
    "map_update_elem",
    (Arg.CONST_MAP_PTR, Arg.MAP_KEY, Arg.MAP_VALUE, Arg.ANYTHING),
    Ret.INTEGER,
    op="update",
    params=("map", "key", "value", "flags"),
    maps=frozenset(
        {M.HASH, M.ARRAY, M.PERCPU_HASH, M.PERCPU_ARRAY, M.LRU_HASH, M.LRU_PERCPU_HASH, M.LPM_TRIE}
    ),
)
