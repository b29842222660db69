"""Calls: helpers by their prototypes, functions of the program, callbacks, and exit. Analogous to
check_helper_call, check_func_arg, check_func_call and prepare_func_exit of kernel/bpf/verifier.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.isa import BPF_CALL, HELPER_CALL, KFUNC_CALL, Insn
from xdpbatch.program import MapSpec
from xdpbatch.uapi import HELPER_NAMES, MapNumber
from xdpbatch.verify import stack
from xdpbatch.verify.arguments import Arguments, check_argument
from xdpbatch.verify.callbacks import CALLBACKS, push_callback, return_from_callback
from xdpbatch.verify.cfg import TAIL_CALL
from xdpbatch.verify.domain import UNKNOWN
from xdpbatch.verify.explain import Refusal, reg
from xdpbatch.verify.functions import call_global, check_result, is_global
from xdpbatch.verify.require import reserved, uninitialised
from xdpbatch.verify.state import (
    MAX_FRAMES,
    Frame,
    Kind,
    Pointer,
    Scalar,
    State,
    Value,
)

if TYPE_CHECKING:
    from xdpbatch.verify.walk import Walk

# Map types that only the helpers which name them take (check_map_func_compatibility).
SPECIAL_MAPS = frozenset(
    {MapNumber.PROG_ARRAY, MapNumber.PERF_EVENT_ARRAY, MapNumber.RINGBUF, MapNumber.CPUMAP}
    | {MapNumber.STACK_TRACE, MapNumber.CGROUP_ARRAY, MapNumber.SOCKMAP, MapNumber.SOCKHASH}
    | {MapNumber.QUEUE, MapNumber.STACK, MapNumber.BLOOM_FILTER, MapNumber.USER_RINGBUF}
    | {MapNumber.ARRAY_OF_MAPS, MapNumber.HASH_OF_MAPS, MapNumber.DEVMAP, MapNumber.DEVMAP_HASH}
    | {MapNumber.XSKMAP, MapNumber.REUSEPORT_SOCKARRAY}
)


def call(walk: Walk, state: State, frame: Frame, insn: Insn, index: int) -> int:
    """A call of a helper or of a function of the program."""
    walk.jumps += 1
    if insn.src == BPF_CALL:
        reserved(insn, insn.dst, insn.off, insn.imm)
        assert insn.target is not None
        subprog = walk.subprog_of[insn.target]
        if is_global(walk.program, subprog):
            return call_global(walk, state, frame, subprog, index)
        return _function(state, frame, subprog, index, insn.target)
    if insn.src == KFUNC_CALL:
        raise Refusal(
            "unsupported",
            f"call of kfunc {insn.ref or insn.imm}",
            "this runtime has no kernel functions",
        )
    if insn.src != HELPER_CALL:
        raise Refusal("reserved-field", f"no kind {insn.src} of call")
    reserved(insn, insn.dst, insn.off)
    return _helper(walk, state, frame, insn, index)


def callx(walk: Walk, state: State, frame: Frame, insn: Insn, index: int) -> int:
    """A call through a register: as in the kernel, not for programs that are verified."""
    raise Refusal(
        "unsupported",
        "call through a register",
        "neither Linux nor this verifier follows such calls",
    )


# Functions of the program


def _function(state: State, frame: Frame, subprog: int, index: int, start: int) -> int:
    if len(state.frames) >= MAX_FRAMES:
        raise Refusal("call-depth", f"calls are nested deeper than {MAX_FRAMES} frames")
    callee = Frame(subprog, index)
    callee.regs[1:6] = frame.regs[1:6]
    callee.regs[10] = Pointer(Kind.STACK, frame=len(state.frames))
    frame.regs[:6] = [None] * 6
    state.frames.append(callee)
    return start


def leave(walk: Walk, state: State, frame: Frame, insn: Insn, index: int) -> int:
    """EXIT: of the program, of a function, of a callback. Negative: the path ends."""
    reserved(insn, insn.dst, insn.src, insn.imm)
    r0 = frame.regs[0]
    if len(state.frames) == 1:
        if r0 is None:
            raise Refusal(
                "bad-return",
                "the program returns without a verdict",
                reg(0, r0),
                "set r0 before exit",
            )
        if frame.subprog:
            check_result(frame)
        _check_references(walk, state, "the program ends")
        return -1
    return _return(walk, state, frame)


def _return(walk: Walk, state: State, frame: Frame) -> int:
    """The innermost function returns to what called it."""
    r0 = frame.regs[0]
    if isinstance(r0, Pointer) and r0.kind == Kind.STACK:
        raise Refusal("bad-return", "a function returns a pointer into a stack", reg(0, r0))
    if frame.callback:
        return return_from_callback(walk, state, frame)
    state.frames.pop()
    state.frames[-1].regs[0] = r0
    return frame.callsite + 1


def _check_references(walk: Walk, state: State, event: str) -> None:
    if state.refs:
        _, acquired = state.refs[0]
        raise Refusal(
            "unreleased-reference",
            f"{event} with memory that was not given back",
            f"it was reserved by insn {acquired}",
            "submit or discard the record on every path",
        )


# Helpers


def _helper(walk: Walk, state: State, frame: Frame, insn: Insn, index: int) -> int:
    helper = walk.helpers.get(insn.imm)
    if helper is None:
        raise _unknown(insn.imm)
    if helper.gpl and not walk.gpl:
        raise Refusal(
            "gpl-only",
            f"bpf_{helper.name} is for GPL-compatible programs",
            f"the license is {walk.program.license!r}",
        )
    values: list[Value] = []
    for number in range(1, len(helper.args) + 1):
        ignored = helper.args[number - 1] is Arg.DONTCARE
        value = Scalar() if ignored else frame.regs[number]
        if value is None:
            raise uninitialised(number)
        values.append(value)
    args = Arguments(walk, state, helper, tuple(values))
    for number in range(1, len(values) + 1):
        check_argument(args, number)
    if args.map is not None:
        _check_map(helper, args.map)
    if helper.id == TAIL_CALL:
        _check_references(walk, state, "a tail call happens")
        _tail_call(walk, state)
    walk.called(state, index, helper, values, args)
    if helper.id in CALLBACKS:
        push_callback(walk, state, frame, helper, values, index)
    _effects(state, helper, args, values)
    for low, size, exact in args.writes:
        stack.write_range(walk, state, low, size, exact)
    frame = state.frames[-1]
    frame.regs[:6] = [None] * 6
    result = _result(walk, state, helper, args, index)
    frame.regs[0] = result
    return index + 1


def _unknown(number: int) -> Refusal:
    if 0 < number < len(HELPER_NAMES):
        return Refusal(
            "unknown-helper",
            f"bpf_{HELPER_NAMES[number]} is not available",
            f"helper {number} does not exist for XDP programs in this runtime",
            "`xdpbatch features` lists the helpers",
        )
    return Refusal("unknown-helper", f"there is no helper {number}")


def _check_map(helper: Helper, spec: MapSpec) -> None:
    known = helper.maps is None or spec.type in helper.maps
    if not known or (helper.maps is None and spec.type in SPECIAL_MAPS):
        name = MapNumber(spec.type).name if spec.type in set(MapNumber) else str(spec.type)
        raise Refusal(
            "map-helper-mismatch",
            f"bpf_{helper.name} does not take map {spec.name}",
            f"its type is {name}",
        )


def _effects(state: State, helper: Helper, args: Arguments, values: list[Value]) -> None:
    """What becomes of pointers: a released reference, packet pointers after the packet moved."""
    if helper.releases is not None:
        released = values[helper.releases]
        assert isinstance(released, Pointer)
        state.refs = tuple(ref for ref in state.refs if ref[0] != released.ref)
        state.invalidate(lambda p: p.ref == released.ref)
    if helper.changes_packet:
        state.packet_moved()


def _tail_call(walk: Walk, state: State) -> None:
    """A tail call that succeeds returns to this function's caller, out of a program that may have
    moved the packet; one that fails goes on here."""
    if len(state.frames) == 1:
        return
    other = state.copy()
    other.frames[-1].regs[0] = Scalar(UNKNOWN)
    other.packet_moved()
    walk.queue(_return(walk, other, other.frames[-1]), other)


def _result(walk: Walk, state: State, helper: Helper, args: Arguments, index: int) -> Value | None:
    """r0 after the call."""
    match helper.ret:
        case Ret.VOID:
            return None
        case Ret.INTEGER:
            return Scalar(UNKNOWN)
        case Ret.MAP_VALUE_OR_NULL:
            return _looked_up(args)
        case Ret.ALLOC_MEM_OR_NULL:
            ref = walk.new_id()
            state.refs = (*state.refs, (ref, index))
            return Pointer(Kind.MEM, id=ref, null=True, size=args.allocated, ref=ref)
        case Ret.SOCK_OR_NULL | Ret.SOCK_COMMON_OR_NULL:
            ref = walk.new_id()
            state.refs = (*state.refs, (ref, index))
            common = helper.ret == Ret.SOCK_COMMON_OR_NULL
            return Pointer(Kind.SOCK_COMMON if common else Kind.SOCK, id=ref, null=True, ref=ref)
    raise Refusal("unsupported", f"bpf_{helper.name} returns what this verifier does not know")


def _looked_up(args: Arguments) -> Pointer:
    """The result of a lookup; its id links copies, as a null check of one holds for all."""
    spec, link = args.map, args.walk.new_id()
    assert spec is not None
    if spec.type in (MapNumber.ARRAY_OF_MAPS, MapNumber.HASH_OF_MAPS):
        if spec.inner is None:
            raise Refusal("bad-argument", f"map {spec.name} has no inner map to go by")
        return Pointer(Kind.MAP, id=link, map=spec.inner, null=True, inner=spec.name)
    if spec.type == MapNumber.XSKMAP:
        return Pointer(Kind.XDP_SOCK, id=link, map=spec, null=True)
    null = True
    if spec.type in (MapNumber.ARRAY, MapNumber.PERCPU_ARRAY):
        key = args.values[1]
        at = stack.constant_at(args.state, key, 4) if isinstance(key, Pointer) else None
        null = at is None or at >= spec.max_entries
    return Pointer(Kind.MAP_VALUE, id=link if null else 0, map=spec, null=null, inner=args.inner)
