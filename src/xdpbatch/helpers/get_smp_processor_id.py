"""bpf_get_smp_processor_id(): the CPU that the queue belongs to (kernel/bpf/helpers.c)."""

from __future__ import annotations

from xdpbatch.data.buff import RXQ, RXQ_CPU
from xdpbatch.helpers import Helper, Ret
from xdpbatch.mem import load32, load64
from xdpbatch.native import native


@native
def get_smp_processor_id(buff: int) -> int:
    return load32(load64(buff + RXQ) + RXQ_CPU)


HELPER = Helper(8, "get_smp_processor_id", (), Ret.INTEGER, get_smp_processor_id)
