"""bpf_ringbuf_discard(record, flags): give a reserved record up
(kernel/bpf/ringbuf.c)."""

from __future__ import annotations

from xdpbatch.data.records import commit
from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.native import native


@native
def ringbuf_discard(record: int, flags: int) -> int:
    """The flags are about waking readers; nobody sleeps here."""
    return commit(record, 1)


HELPER = Helper(
    133, "ringbuf_discard", (Arg.ALLOC_MEM, Arg.ANYTHING), Ret.VOID, ringbuf_discard, releases=0
)
