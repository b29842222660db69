"""Reads and writes of a function's stack. Analogous to check_stack_read, check_stack_write and
check_stack_range_initialized of kernel/bpf/verifier.c.

A stack slot remembers a spilled register, so that it is still known when it is filled. As for a
privileged program in the kernel, bytes that were never written may be read; they are recorded in
`Walk.zero_stack`, so that a rewrite can clear them and every packet sees the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpbatch.verify.domain import UNSIGNED, const, zext
from xdpbatch.verify.explain import Refusal
from xdpbatch.verify.state import (
    MAX_STACK,
    MISC,
    Byte,
    Frame,
    Kind,
    Partial,
    Pointer,
    Scalar,
    Slot,
    State,
    Value,
    derived,
    mark_precise,
    mark_read,
)

if TYPE_CHECKING:
    from xdpbatch.verify.walk import Walk

MAX_VAR_OFF = 1 << 29


def extent(pointer: Pointer, off: int, size: int, what: str = "access") -> tuple[int, int]:
    """[low, high) of all bytes relative to r10 that an access may touch; refuses what leaves the
    frame's 512 bytes."""
    num = pointer.num
    if num.smin <= -MAX_VAR_OFF or num.smax >= MAX_VAR_OFF:
        raise Refusal(
            "stack-bounds",
            f"{what} of the stack at an unbounded offset",
            f"the base is {pointer!r}",
            "bound the index with a comparison",
        )
    low, high = pointer.off + off + num.smin, pointer.off + off + num.smax + size
    if low < -MAX_STACK or high > 0:
        raise Refusal(
            "stack-bounds",
            f"{what} of {size} bytes leaves the stack",
            f"it touches [{low}, {high}) from r10, only [-{MAX_STACK}, 0) is the frame",
            "check the array's size and the index",
        )
    return low, high


def check_alignment(pointer: Pointer, off: int, size: int) -> None:
    """Stack accesses are aligned, so that one never touches two slots."""
    if (pointer.off + off + pointer.num.value | pointer.num.mask) & (size - 1):
        raise Refusal(
            "stack-alignment",
            f"misaligned {size}-byte access of the stack",
            f"the base is {pointer!r}, the instruction's offset {off:+d}",
        )


def touch(walk: Walk, state: State, pointer: Pointer, low: int) -> Frame:
    """The frame that a stack pointer points into; its depth grows to `low`."""
    frame = state.frames[pointer.frame]
    if -low > walk.stack_depth[frame.subprog]:
        walk.stack_depth[frame.subprog] = -(low & ~7)
    return frame


def bits(low: int, high: int) -> int:
    """The bytes [low, high) from r10 as a mask of Frame.written."""
    return ((1 << (high - low)) - 1) << -high


def kinds(slot: Slot) -> tuple[Byte, ...]:
    """One Byte for each byte of a slot."""
    if slot is None:
        return (Byte.INVALID,) * 8
    return slot.kinds if isinstance(slot, Partial) else (Byte.SPILL,) * 8


def load(walk: Walk, state: State, pointer: Pointer, off: int, size: int) -> Value:
    """The value that a load of `size` bytes gives."""
    check_alignment(pointer, off, size)
    low, high = extent(pointer, off, size, "load")
    frame = touch(walk, state, pointer, low)
    mark_read(state, pointer.frame, bits(low, high))
    if pointer.num.mask:
        return _load_somewhere(walk, frame, low, high, size)
    index, at = -(low // 8) - 1, low & 7
    slot = frame.slots[index] if index < len(frame.slots) else None
    if isinstance(slot, Pointer) or (size == 8 and isinstance(slot, Scalar)):
        if size != 8:
            raise Refusal(
                "stack-partial-fill",
                "load of a part of a spilled pointer",
                f"the slot at r10{low - at:+d} holds {slot!r}",
            )
        return slot
    held = slot if isinstance(slot, Scalar) else slot.value if isinstance(slot, Partial) else None
    touched = kinds(slot)[at : at + size]
    if held is not None and not at and touched == (Byte.SPILL,) * size:
        num = zext(held.num, 8 * size)
        return held if num is held.num else derived(num, held)
    return _bytes(walk, frame, touched, low)


def _bytes(walk: Walk, frame: Frame, touched: tuple[Byte, ...], low: int) -> Scalar:
    if touched == (Byte.ZERO,) * len(touched):
        return Scalar(const(0))
    if Byte.INVALID in touched:
        walk.reads_uninitialised(frame, low, low + len(touched))
    return Scalar(UNSIGNED[8 * len(touched)])


def _load_somewhere(walk: Walk, frame: Frame, low: int, high: int, size: int) -> Scalar:
    touched = _range_kinds(frame, low, high)
    num = const(0) if set(touched) == {Byte.ZERO} else UNSIGNED[8 * size]
    if Byte.INVALID in touched:
        walk.reads_uninitialised(frame, low, high)
    return Scalar(num)


def _range_kinds(frame: Frame, low: int, high: int) -> tuple[Byte, ...]:
    return tuple(kinds(frame.slot(-(b // 8) - 1))[b & 7] for b in range(low, high))


def store(walk: Walk, state: State, pointer: Pointer, off: int, size: int, value: Value) -> None:
    """A store of the low `size` bytes of a value."""
    check_alignment(pointer, off, size)
    low, high = extent(pointer, off, size, "store")
    frame = touch(walk, state, pointer, low)
    if isinstance(value, Pointer):
        if value.kind == Kind.STACK and pointer.frame != len(state.frames) - 1:
            raise Refusal(
                "pointer-leak",
                "store of a stack pointer into a caller's stack",
                "the frame it points to is gone when the caller reads it",
            )
        if size != 8 and not pointer.num.mask:
            raise Refusal(
                "stack-partial-spill",
                f"store of {size} bytes of a pointer",
                f"the value is {value!r}",
                "store all 8 bytes",
            )
    if pointer.num.mask:
        _store_somewhere(walk, frame, low, high, value)
        return
    index, at = -(low // 8) - 1, low & 7
    frame.written |= bits(low, high)
    if size == 8:
        frame.set_slot(index, value)
        return
    before = list(kinds(frame.slot(index)))
    if Byte.SPILL in before:
        before = [Byte.MISC if kind == Byte.SPILL else kind for kind in before]
    assert isinstance(value, Scalar)
    held: Scalar | None = None
    if not at:
        num = zext(value.num, 8 * size)
        held = value if num is value.num else derived(num, value)
        kind = Byte.SPILL
    elif value.num.mask or value.num.value:
        kind = Byte.MISC
    else:
        mark_precise(value)
        kind = Byte.ZERO
    before[at : at + size] = [kind] * size
    frame.set_slot(index, Partial(tuple(before), held))


def _store_somewhere(walk: Walk, frame: Frame, low: int, high: int, value: Value) -> None:
    """A store at a variable offset: any byte of the range may change, none is sure to."""
    zero = isinstance(value, Scalar) and not value.num.mask and not value.num.value
    if zero and isinstance(value, Scalar):
        mark_precise(value)
    forget(walk, frame, low, high, keep_zero=zero)


def forget(walk: Walk, frame: Frame, low: int, high: int, keep_zero: bool = False) -> None:
    """Bytes [low, high) may be overwritten by anything, or stay as they are.

    A byte that was never written may still be so, although it counts as written from now on.
    """
    if Byte.INVALID in _range_kinds(frame, low, high):
        walk.reads_uninitialised(frame, low, high)
    for index in range(-((high - 1) // 8) - 1, -(low // 8)):
        base = -8 * (index + 1)
        new = list(kinds(frame.slot(index)))
        slot = frame.slot(index)
        if keep_zero and isinstance(slot, Scalar) and not slot.num.umax:
            mark_precise(slot)
            continue
        for at in range(8):
            hit = low <= base + at < high and not (keep_zero and new[at] == Byte.ZERO)
            if hit or new[at] == Byte.SPILL:
                new[at] = Byte.MISC
        frame.set_slot(index, Partial(tuple(new)))


def read_range(walk: Walk, state: State, pointer: Pointer, size: int) -> tuple[int, int]:
    """A helper reads `size` bytes from where the pointer points: its extent."""
    low, high = extent(pointer, 0, size, "helper read")
    frame = touch(walk, state, pointer, low)
    if size:
        mark_read(state, pointer.frame, bits(low, high))
        touched = _range_kinds(frame, low, high)
        if Byte.INVALID in touched:
            walk.reads_uninitialised(frame, low, high)
    return low, high


def write_range(walk: Walk, state: State, pointer: Pointer, size: int, exact: bool) -> None:
    """A helper writes `size` bytes, or with `exact` false at most so many."""
    low, high = extent(pointer, 0, size, "helper write")
    frame = touch(walk, state, pointer, low)
    if not size:
        return
    if not exact or pointer.num.mask:
        forget(walk, frame, low, high)
        return
    if Byte.INVALID in _range_kinds(frame, low, high):
        walk.reads_uninitialised(frame, low, high)  # a helper that fails may write nothing
    for index in range(-((high - 1) // 8) - 1, -(low // 8)):
        base = -8 * (index + 1)
        if low <= base and base + 8 <= high:
            frame.set_slot(index, MISC)
            continue
        new = [
            Byte.MISC if low <= base + at < high or kind == Byte.SPILL else kind
            for at, kind in enumerate(kinds(frame.slot(index)))
        ]
        frame.set_slot(index, Partial(tuple(new)))
    frame.written |= bits(low, high)


def constant_at(state: State, pointer: Pointer, size: int) -> int | None:
    """The constant that `size` bytes of stack hold, for a helper that takes a key by address."""
    at = pointer.constant_offset
    if pointer.kind != Kind.STACK or at is None or (at & 7 and at & (size - 1)):
        return None
    slot = state.frames[pointer.frame].slot(-(at // 8) - 1)
    touched = kinds(slot)[at & 7 : (at & 7) + size]
    if len(touched) == size and set(touched) == {Byte.ZERO}:
        return 0
    held = slot.value if isinstance(slot, Partial) else None
    if held is None or at & 7 or touched != (Byte.SPILL,) * size or held.num.mask:
        return None
    if isinstance(slot, Partial) and slot.kinds[size] == Byte.SPILL:
        return None  # the kernel takes only a spill of the key's own size
    mark_precise(held)
    return held.num.value & ((1 << 8 * size) - 1)
