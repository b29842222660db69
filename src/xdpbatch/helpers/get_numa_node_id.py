"""bpf_get_numa_node_id(): always node 0; this runtime does not tell nodes apart
(kernel/bpf/helpers.c)."""

from __future__ import annotations

from xdpbatch.helpers import Helper, Ret
from xdpbatch.native import native


@native
def get_numa_node_id() -> int:
    return 0


HELPER = Helper(42, "get_numa_node_id", (), Ret.INTEGER, get_numa_node_id)
