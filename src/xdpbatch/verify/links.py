"""Numbers that are a constant apart: after `r2 = r1; r2 += 4`, a check of one bounds the other.

Analogous to BPF_ADD_CONST and sync_linked_regs of kernel/bpf/verifier.c (Linux 6.10). Compilers
make such code of `if (i < N) use(p[i + 1])`. The sum is modulo 2**64: nothing is assumed of
overflow. As in the kernel, only a number that is held twice is linked, and constants do not
accumulate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from xdpbatch.isa import Alu, Jmp
from xdpbatch.verify.arith import alu
from xdpbatch.verify.domain import Num, const
from xdpbatch.verify.refine import refine
from xdpbatch.verify.state import Frame, Partial, Scalar, State, derived
from xdpbatch.verify.tnum import M64

if TYPE_CHECKING:
    from xdpbatch.verify.walk import Walk


def link(walk: Walk, frame: Frame, new: Scalar, old: Scalar, delta: int) -> None:
    """`new` is `old` + `delta`: remember it, if `old` stays somewhere else as well."""
    if old.base is None and old.num.mask and (frame.regs.count(old) > 1 or old in frame.slots):
        new.base, new.delta = old, delta & M64
        walk.has_links = True


def follow(state: State, old: Scalar, new: Scalar) -> None:
    """`new` stands for `old` now, about which something was learned: so for what is linked."""
    base = old.base or old

    def linked(value: object) -> bool:
        return type(value) is Scalar and (value is base or value.base is base)

    if not any(linked(value) for value in _held(state)):
        return
    top = new
    if old.base is not None:
        computed = alu(Alu.SUB, True, new.num, const(old.delta))
        top = derived(_both(base.num, computed), base, new)
        new.base, new.delta = top, old.delta
    fresh: dict[int, Scalar] = {id(base): top}

    def renewed(value: Scalar) -> Scalar:
        if id(value) not in fresh:
            computed = alu(Alu.ADD, True, top.num, const(value.delta))
            one = fresh[id(value)] = derived(_both(value.num, computed), value, top)
            one.base, one.delta = top, value.delta
        return fresh[id(value)]

    _replace(state, linked, renewed)


def _both(a: Num, b: Num) -> Num:
    """What is in both; where that is nothing, the path is never taken and `a` will do."""
    found = refine(Jmp.JEQ, True, a, b)
    return found[0] if found else a


def _held(state: State) -> list[object]:
    return [
        slot.value if type(slot) is Partial else slot
        for frame in state.frames
        for slot in (*frame.regs, *frame.slots)
    ]


def _replace(
    state: State, which: Callable[[object], bool], new: Callable[[Scalar], Scalar]
) -> None:
    for frame in state.frames:
        for i, value in enumerate(frame.regs):
            if isinstance(value, Scalar) and which(value):
                frame.regs[i] = new(value)
        for i, slot in enumerate(frame.slots):
            if isinstance(slot, Scalar) and which(slot):
                frame.slots[i] = new(slot)
            elif isinstance(slot, Partial) and slot.value is not None and which(slot.value):
                frame.slots[i] = Partial(slot.kinds, new(slot.value))
