"""Helpers that call a function of the program: bpf_loop, bpf_for_each_map_elem. Analogous to
push_callback_call and the callback part of prepare_func_exit of kernel/bpf/verifier.c.

The call instruction is walked again after each run of the callback: once to leave the helper, once
to run the callback another time. It ends because a state at the call that is inside an earlier one
need not be walked again (`prune`), numbers that change from run to run being widened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from xdpbatch.helpers import Helper
from xdpbatch.verify.domain import UNKNOWN
from xdpbatch.verify.explain import Refusal, reg
from xdpbatch.verify.state import (
    MAX_FRAMES,
    Checkpoint,
    Frame,
    Kind,
    Pointer,
    Scalar,
    State,
    Value,
    mark_precise,
)

if TYPE_CHECKING:
    from xdpbatch.verify.walk import Walk

LOOP, FOR_EACH_MAP_ELEM = 181, 164


def _loop(args: list[Value]) -> list[Value | None]:
    """callback(u32 index, ctx)."""
    return [Scalar(), args[2], None, None, None]


def _for_each(args: list[Value]) -> list[Value | None]:
    """callback(map, key, value, ctx)."""
    assert isinstance(args[0], Pointer)
    spec = args[0].map
    key, value = Pointer(Kind.MAP_KEY, map=spec), Pointer(Kind.MAP_VALUE, map=spec)
    return [args[0], key, value, args[2], None]


# By helper: which argument is the function, and what the function's r1-r5 are.
CALLBACKS: dict[int, tuple[int, Callable[[list[Value]], list[Value | None]]]] = {
    LOOP: (1, _loop),
    FOR_EACH_MAP_ELEM: (1, _for_each),
}


def push_callback(
    walk: Walk, state: State, frame: Frame, helper: Helper, values: list[Value], index: int
) -> None:
    """Queue a run of the callback; the caller goes on with what follows the helper."""
    where, arguments = CALLBACKS[helper.id]
    function = values[where]
    assert isinstance(function, Pointer)
    if helper.id == LOOP:
        count = values[0]
        if not isinstance(count, Scalar):
            raise Refusal("bad-argument", "argument 1 of bpf_loop must be a number", reg(1, count))
        mark_precise(count)
        if frame.callback_runs >= count.num.umax & 0xFFFFFFFFFFFFFFFF:
            frame.callback_runs = 0
            return
    if len(state.frames) >= MAX_FRAMES:
        raise Refusal("call-depth", f"calls are nested deeper than {MAX_FRAMES} frames")
    other = state.copy()
    other.frames[-1].callback_runs += 1
    callee = Frame(walk.subprog_of[function.frame], index, helper.name)
    callee.regs[1:6] = arguments(values)
    callee.regs[10] = Pointer(Kind.STACK, frame=len(other.frames))
    callee.refs = other.refs
    other.frames.append(callee)
    walk.queue(function.frame, other)
    frame.callback_runs = 0


def return_from_callback(walk: Walk, state: State, frame: Frame) -> int:
    """EXIT of a callback: back to the call, to leave it or to run again."""
    r0 = frame.regs[0]
    if not isinstance(r0, Scalar) or r0.num.umax > 1:
        raise Refusal("bad-return", "a callback must return 0 (go on) or 1 (stop)", reg(0, r0))
    mark_precise(r0)
    if state.refs != frame.refs:
        raise Refusal(
            "unreleased-reference",
            "a callback keeps or gives back memory of its caller",
            "what a run reserves it must give back itself",
        )
    state.frames.pop()
    before = walk.previous(state, frame.callsite)
    if before is not None:
        _widen(before, state)
    return frame.callsite


def _widen(before: Checkpoint, state: State) -> None:
    """Numbers that no path was decided by and that changed since the last run become unknown."""
    for old, new in zip(before.frames, state.frames, strict=True):
        new.regs[:] = [_widened(a, b) for a, b in zip(old.regs, new.regs, strict=True)]
        for i, (was, slot) in enumerate(zip(old.slots, new.slots, strict=False)):
            if isinstance(slot, Scalar) and isinstance(was, Scalar):
                new.slots[i] = _widened(was, slot)


def _widened(old: Value | None, new: Value | None) -> Value | None:
    if not isinstance(old, Scalar) or not isinstance(new, Scalar):
        return new
    changed = not old.precise and old.num.views != new.num.views
    return Scalar(UNKNOWN) if changed else new
