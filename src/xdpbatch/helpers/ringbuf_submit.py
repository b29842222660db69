"""bpf_ringbuf_submit(record, flags): give a reserved record to the reader
(kernel/bpf/ringbuf.c)."""

from __future__ import annotations

from xdpbatch.data.records import commit
from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.native import native


@native
def ringbuf_submit(record: int, flags: int) -> int:
    """The flags are about waking readers; nobody sleeps here."""
    return commit(record, 0)


HELPER = Helper(
    132, "ringbuf_submit", (Arg.ALLOC_MEM, Arg.ANYTHING), Ret.VOID, ringbuf_submit, releases=0
)
