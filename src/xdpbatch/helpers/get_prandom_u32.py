"""bpf_get_prandom_u32(): a pseudo-random u32 (kernel/bpf/core.c, bpf_user_rnd_u32).

The generator is splitmix64; its state belongs to the queue, so that a seed makes runs repeatable.
"""

from __future__ import annotations

from xdpbatch.data.buff import RXQ, RXQ_RANDOM
from xdpbatch.helpers import Helper, Ret
from xdpbatch.mem import add64, load64, mul64, shr64, signed, store64
from xdpbatch.native import native

STEP = signed(0x9E3779B97F4A7C15)
MIX1, MIX2 = signed(0xBF58476D1CE4E5B9), signed(0x94D049BB133111EB)


@native
def get_prandom_u32(buff: int) -> int:
    """The next number of the queue's sequence."""
    rxq = load64(buff + RXQ)
    state = add64(load64(rxq + RXQ_RANDOM), STEP)
    store64(rxq + RXQ_RANDOM, state)
    state = mul64(state ^ shr64(state, 30), MIX1)
    state = mul64(state ^ shr64(state, 27), MIX2)
    return (state ^ shr64(state, 31)) & 0xFFFFFFFF


HELPER = Helper(7, "get_prandom_u32", (), Ret.INTEGER, get_prandom_u32)
