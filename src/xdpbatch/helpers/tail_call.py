"""bpf_tail_call(ctx, map, index): go on in another program, or after the call if there is none
(kernel/bpf/core.c). The map type says which program; the rewrites and the interpreter do the rest.
"""

from __future__ import annotations

from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.uapi import MapNumber

HELPER = Helper(
    12,
    "tail_call",
    (Arg.CTX, Arg.CONST_MAP_PTR, Arg.ANYTHING),
    Ret.VOID,
    op="target",
    params=("ctx", "map", "index"),
    maps=frozenset({MapNumber.PROG_ARRAY}),
)
