"""bpf_ringbuf_reserve(map, size, flags): memory for a record, or 0 (kernel/bpf/ringbuf.c)."""

from __future__ import annotations

from xdpbatch.data.records import reserve
from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.maps import SIZEOF_HEADER
from xdpbatch.native import native
from xdpbatch.uapi import MapNumber


@native
def ringbuf_reserve(map: int, size: int, flags: int) -> int:
    """No flag is defined: any gives 0."""
    if flags != 0:
        return 0
    return reserve(map + SIZEOF_HEADER, size)


HELPER = Helper(
    131,
    "ringbuf_reserve",
    (Arg.CONST_MAP_PTR, Arg.CONST_ALLOC_SIZE, Arg.ANYTHING),
    Ret.ALLOC_MEM_OR_NULL,
    ringbuf_reserve,
    maps=frozenset({MapNumber.RINGBUF}),
)
