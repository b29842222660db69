"""Conditional jumps: which way they can go, and what is known on each way. Analogous to
check_cond_jmp_op, reg_set_min_max, find_equal_scalars and find_good_pkt_pointers of
kernel/bpf/verifier.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpbatch.isa import Class, Insn, Jmp
from xdpbatch.verify.domain import const
from xdpbatch.verify.links import follow
from xdpbatch.verify.refine import INVERSE, Pair, refine
from xdpbatch.verify.require import MAX_PACKET_OFF, reserved, uninitialised
from xdpbatch.verify.state import (
    Frame,
    Kind,
    Path,
    Pointer,
    Scalar,
    State,
    Value,
    derived,
    mark_precise,
)

if TYPE_CHECKING:
    from xdpbatch.verify.walk import Walk

FLIPPED = {Jmp.JGT: Jmp.JLT, Jmp.JLT: Jmp.JGT, Jmp.JGE: Jmp.JLE, Jmp.JLE: Jmp.JGE}
AT_END, BEHIND_END = -1, -2  # Pointer.range of a packet pointer that is known not to be before it


def conditional(walk: Walk, state: State, frame: Frame, insn: Insn, index: int) -> int:
    """Follow a conditional jump; a way that stays possible besides the returned one is queued."""
    walk.jumps += 1
    a = frame.regs[insn.dst]
    if a is None:
        raise uninitialised(insn.dst)
    if insn.op & 0x08:
        reserved(insn, insn.imm, insn.off)
        b = frame.regs[insn.src]
        if b is None:
            raise uninitialised(insn.src)
    else:
        reserved(insn, insn.src, insn.off)
        b = Scalar(const(insn.imm))
    assert insn.target is not None
    if isinstance(a, Scalar) and isinstance(b, Scalar):
        return _numbers(walk, state, insn, index, a, b)
    taken = _pointer_outcome(insn, a, b)
    if taken is not None:
        return insn.target if taken else index + 1
    other = _fork(walk, state, insn, index)
    _learn_pointers(insn, a, b, other, state)
    return index + 1


def _fork(walk: Walk, state: State, insn: Insn, index: int) -> State:
    """Queue a copy of the state at the jump's target."""
    assert insn.target is not None
    other = state.copy()
    state.path = Path(state.path, index, False)
    other.path = Path(other.path, index, True)
    walk.queue(insn.target, other)
    return other


def _numbers(walk: Walk, state: State, insn: Insn, index: int, a: Scalar, b: Scalar) -> int:
    op, wide = insn.op & 0xF0, insn.op & 7 == Class.JMP
    assert insn.target is not None
    yes = refine(op, wide, a.num, b.num)
    no = refine(INVERSE[op], wide, a.num, b.num)
    if yes is None or no is None:
        mark_precise(a)
        mark_precise(b)
        return index + 1 if yes is None else insn.target
    if a is b and op != Jmp.JSET:  # two registers that are known to be equal
        mark_precise(a)
        if op in (Jmp.JEQ, Jmp.JGE, Jmp.JLE, Jmp.JSGE, Jmp.JSLE):
            return insn.target
        return index + 1
    other = _fork(walk, state, insn, index)
    _learn_numbers(walk, other, a, b, yes)
    _learn_numbers(walk, state, a, b, no)
    return index + 1


def _learn_numbers(walk: Walk, state: State, a: Scalar, b: Scalar, found: Pair) -> None:
    for old, num, other in ((a, found[0], b), (b, found[1], a)):
        if num is not old.num:
            new = derived(num, old, other)
            state.replace(old, new)
            if walk.has_links:
                follow(state, old, new)


# Pointers


def _pointer_outcome(insn: Insn, a: Value, b: Value) -> bool | None:
    """Whether a jump that compares a pointer is surely taken (or not)."""
    if insn.op & 7 != Class.JMP:
        return None
    op = insn.op & 0xF0
    zero = isinstance(b, Scalar) and not b.num.umax
    if isinstance(a, Pointer) and zero and not a.null and a.kind != Kind.XDP_SOCK:
        if isinstance(b, Scalar):
            mark_precise(b)
        return {Jmp.JEQ: False, Jmp.JNE: True}.get(Jmp(op)) if _never_null(a) else None
    if isinstance(a, Pointer) and isinstance(b, Pointer):
        if a.kind == Kind.PACKET_END:
            a, b, op = b, a, FLIPPED.get(Jmp(op), Jmp.JSET)
        if b.kind == Kind.PACKET_END and a.range < 0:
            if op in (Jmp.JLE, Jmp.JGT) and a.range == BEHIND_END:
                return op == Jmp.JGT
            if op in (Jmp.JLT, Jmp.JGE):
                return op == Jmp.JGE
    return None


def _never_null(pointer: Pointer) -> bool:
    """Whether a comparison with 0 is decided: reg_not_null, which knows no ctx, stack or packet."""
    return pointer.kind in (
        *(Kind.MAP, Kind.MAP_VALUE, Kind.MEM, Kind.MAP_KEY, Kind.SOCK, Kind.SOCK_COMMON),
    )


def _learn_pointers(insn: Insn, a: Value, b: Value, yes: State, no: State) -> None:
    """What a comparison with a pointer says: null or not, or how long the packet is."""
    op = insn.op & 0xF0
    if insn.op & 7 != Class.JMP:
        return
    if op in (Jmp.JEQ, Jmp.JNE):
        equal, unequal = (yes, no) if op == Jmp.JEQ else (no, yes)
        if isinstance(a, Pointer) and a.null and isinstance(b, Scalar) and not b.num.umax:
            mark_precise(b)
            _set_null(equal, a)
            _set_valid(unequal, a)
        elif isinstance(a, Pointer) and isinstance(b, Pointer) and a.null != b.null:
            _set_valid(equal, a if a.null else b)
        return
    if not isinstance(a, Pointer) or not isinstance(b, Pointer) or Jmp(op) not in FLIPPED:
        return
    if _is_limit(a, b):
        a, b, op = b, a, FLIPPED[Jmp(op)]
    if not _is_limit(b, a):
        return
    # now: packet pointer a, limit b
    if op in (Jmp.JGT, Jmp.JGE):
        before, behind = no, yes
    else:
        before, behind = yes, no
    strict = op in (Jmp.JGE, Jmp.JLT)  # a < b on the way `before`
    _prove_range(before, a, a.off + 1 if strict else a.off, strict)
    if a.kind == Kind.PACKET:
        behind.replace(a, a.moved(a.off, a.num, a.id, AT_END if strict else BEHIND_END))


def _is_limit(limit: Pointer, pointer: Pointer) -> bool:
    """Whether `limit` bounds what `pointer` points into: data_end, or for metadata unmoved data."""
    if pointer.kind == Kind.PACKET:
        return limit.kind == Kind.PACKET_END
    return (
        pointer.kind == Kind.PACKET_META
        and limit.kind == Kind.PACKET
        and not limit.off
        and not limit.num.mask
        and not limit.num.value
    )


def _prove_range(state: State, pointer: Pointer, size: int, strict: bool) -> None:
    """On this way `size` bytes from the pointer's variable part on lie before the limit."""
    if pointer.off < 0 or (pointer.off == 0 and strict):
        return
    if pointer.num.umax + pointer.off > MAX_PACKET_OFF:
        return  # so large a sum may have wrapped around
    new: dict[int, Pointer] = {}
    for frame in state.frames:
        for values in (frame.regs, frame.slots):
            for i, value in enumerate(values):
                if (
                    type(value) is Pointer
                    and value.kind == pointer.kind
                    and value.id == pointer.id
                    and value.range < size
                ):
                    if id(value) not in new:
                        new[id(value)] = value.moved(value.off, value.num, value.id, size)
                    values[i] = new[id(value)]


def _set_null(state: State, pointer: Pointer) -> None:
    state.replace(pointer, Scalar(const(0)))
    if pointer.ref:
        state.refs = tuple(ref for ref in state.refs if ref[0] != pointer.ref)


def _set_valid(state: State, pointer: Pointer) -> None:
    state.replace(pointer, pointer.valid())
