"""bpf_for_each_map_elem(map, callback, context, flags): the number of elements that the callback
saw, or -EINVAL for any flag (kernel/bpf/bpf_iter.c). The map type's `visit` finds the elements; the
rewrites and the interpreter make the calls."""

from __future__ import annotations

from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.uapi import MapNumber as M

HELPER = Helper(
    164,
    "for_each_map_elem",
    (Arg.CONST_MAP_PTR, Arg.FUNC, Arg.STACK_OR_NULL, Arg.ANYTHING),
    Ret.INTEGER,
    maps=frozenset({M.HASH, M.ARRAY, M.PERCPU_HASH, M.PERCPU_ARRAY, M.LRU_HASH, M.LRU_PERCPU_HASH}),
)
