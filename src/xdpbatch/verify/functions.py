"""Global functions: verified once, by their types, for whatever their types allow. Analogous to
btf_prepare_func_args and btf_check_subprog_call of kernel/bpf, and do_check_subprogs.

A function is global if its symbol and its BTF say so; without BTF all functions are static, and
walked with what their callers pass. What a global function is given is the same in every call: a
number, the ctx, or memory of the pointee's size, which may be null.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xdpbatch.btf import Btf, Composite, Prototype
from xdpbatch.btf import Kind as BtfKind
from xdpbatch.errors import ObjectError
from xdpbatch.isa import CALL, HELPER_CALL
from xdpbatch.program import Program, Subprog
from xdpbatch.verify import stack
from xdpbatch.verify.arguments import Call, memory
from xdpbatch.verify.cfg import TAIL_CALL, Misshapen, called_functions
from xdpbatch.verify.explain import Refusal, reg
from xdpbatch.verify.require import uninitialised
from xdpbatch.verify.state import PACKETS, Frame, Kind, Pointer, Scalar, State, Value, mark_precise

if TYPE_CHECKING:
    from xdpbatch.verify.walk import Walk

ARGUMENTS = 5
CONTEXT = "xdp_md"
NUMBERS = (BtfKind.INT, BtfKind.ENUM, BtfKind.ENUM64)


def is_global(program: Program, subprog: int) -> bool:
    """Whether a function is verified by its type; without function info none is."""
    return bool(subprog and program.func_info and program.subprogs[subprog].is_global)


def parameters(program: Program, subprog: int) -> list[Value]:
    """What the function finds in r1, r2, ... Raises Misshapen for a type that none can be told of.

    The values are new ones, so that no two of them are known to be equal.
    """
    one = program.subprogs[subprog]
    if program.btf is None:
        raise _refused(one, "has no type information", "")
    try:
        return _parameters(program.btf, one)
    except ObjectError as error:
        raise _refused(one, "has types that make no sense", str(error)) from None


def _parameters(btf: Btf, one: Subprog) -> list[Value]:
    function = btf.type(one.btf_id)
    proto = btf.type(function.type)
    if not isinstance(proto, Prototype):
        raise _refused(one, "has no prototype", "")
    if len(proto.params) > ARGUMENTS:
        raise _refused(one, "has too many parameters", f"{len(proto.params)}, 5 are the most")
    if btf.resolve(proto.type).kind not in NUMBERS:
        raise _refused(one, "does not return a number", "other results are not followed")
    return [_parameter(btf, one, i, param.type) for i, param in enumerate(proto.params)]


def _parameter(btf: Btf, one: Subprog, index: int, type_id: int) -> Value:
    found = btf.resolve(type_id)
    if found.kind in NUMBERS and found.size <= 8:
        return Scalar()
    what = f"has a parameter {index + 1} that is not followed"
    if found.kind != BtfKind.PTR:
        raise _refused(one, what, "numbers, the ctx and pointers to memory are")
    pointee = btf.resolve(found.type)
    structure = pointee.name if isinstance(pointee, Composite) else ""
    if structure == CONTEXT or _tagged(btf, one, index, "arg:ctx"):
        return Pointer(Kind.CTX)
    if structure == "bpf_dynptr":
        raise _refused(one, what, "this runtime has no dynptr")
    try:
        size = btf.size_of(found.type)
    except ObjectError:
        raise _refused(one, what, "the size of what it points to is not known") from None
    null = not _tagged(btf, one, index, "arg:nonnull")
    return Pointer(Kind.MEM, size=size, null=null, id=-1 - index if null else 0)


def _tagged(btf: Btf, one: Subprog, index: int, tag: str) -> bool:
    """Whether a parameter has an __arg_ctx or __arg_nonnull tag of bpf_helpers.h."""
    tags = btf.named(tag, BtfKind.DECL_TAG)
    return any(t.type == one.btf_id and getattr(t, "component", -1) == index for t in tags)


def _refused(one: Subprog, what: str, reason: str) -> Misshapen:
    hint = "make it static, so that it is verified with what its callers pass"
    refusal = Refusal("global-function", f"the global function {one.name}() {what}", reason, hint)
    return Misshapen(one.start, refusal)


def call_global(walk: Walk, state: State, frame: Frame, subprog: int, index: int) -> int:
    """A call: the arguments are checked, the function itself is walked on its own."""
    program = walk.program
    one = program.subprogs[subprog]
    call = Call(walk, state, f"{one.name}()")
    wanted = walk.global_function(subprog)
    for number, template in enumerate(wanted, 1):
        value = frame.regs[number]
        if value is None:
            raise uninitialised(number)
        _check(call, number, value, template)
    for place, size, exact in call.writes:
        stack.write_range(walk, state, place, size, exact)
    if changes_packet(walk, subprog):
        _no_packets(call, frame, wanted)
        state.packet_moved()
    frame.regs[:6] = [Scalar(), *[None] * 5]
    return index + 1


def _check(call: Call, number: int, value: Value, template: Value) -> None:
    if isinstance(template, Scalar):
        if not isinstance(value, Scalar):
            raise call.bad(number, value, "a number")
    elif template.kind == Kind.CTX:
        if not isinstance(value, Pointer) or value.kind != Kind.CTX:
            raise call.bad(number, value, "the ctx")
        if value.off or value.num.umax:
            raise call.bad(number, value, "the ctx itself, not moved")
    elif isinstance(value, Scalar) and not value.num.umax and template.null:
        mark_precise(value)  # null
    else:
        if isinstance(value, Pointer) and value.null and template.null:
            value = value.valid()
        memory(call, number, value, template.size)
        memory(call, number, value, template.size, write=True)


def _no_packets(call: Call, frame: Frame, wanted: Sequence[Value]) -> None:
    """The kernel would let memory of the packet be used after the function has moved it."""
    for number in range(1, len(wanted) + 1):
        value = frame.regs[number]
        if isinstance(value, Pointer) and value.kind in PACKETS:
            raise Refusal(
                "global-function",
                f"{call.callee} may move the packet that its argument {number} points into",
                reg(number, value),
                "pass ctx and load the pointer there, or make the function static",
            )


def check_result(frame: Frame) -> None:
    """At the exit of a global function: r0 is a number, for the caller knows it as one."""
    r0 = frame.regs[0]
    if not isinstance(r0, Scalar):
        raise Refusal(
            "bad-return", "a global function must return a number", reg(0, r0), "set r0 before exit"
        )


def changes_packet(walk: Walk, subprog: int) -> bool:
    """Whether a function, or one that it calls, may move the packet (a tail call may)."""
    program = walk.program

    def moves(one: Subprog) -> bool:
        for insn in program.insns[one.start : one.end]:
            if insn.op == CALL and insn.src == HELPER_CALL:
                helper = walk.helpers.get(insn.imm)
                if insn.imm == TAIL_CALL or (helper is not None and helper.changes_packet):
                    return True
        return False

    seen, todo = {subprog}, [subprog]
    while todo:
        at = todo.pop()
        if moves(program.subprogs[at]):
            return True
        fresh = {callee for _, callee in called_functions(program, at)} - seen
        seen |= fresh
        todo += fresh
    return False


def entry(values: Sequence[Value], subprog: int) -> State:
    """The state in which a function starts."""
    frame = Frame(subprog)
    frame.regs[1 : 1 + len(values)] = values
    frame.regs[10] = Pointer(Kind.STACK)
    return State([frame])
