"""What a helper's arguments must be. Analogous to check_func_arg and check_helper_mem_access of
kernel/bpf/verifier.c: one rule per Arg of the prototype.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from xdpbatch.helpers import Arg, Helper
from xdpbatch.program import MapSpec
from xdpbatch.uapi import BPF_F_RDONLY_PROG, MapNumber
from xdpbatch.verify import require, stack
from xdpbatch.verify.explain import Refusal, reg
from xdpbatch.verify.state import WORDS, Kind, Pointer, Scalar, State, Value, mark_precise

if TYPE_CHECKING:
    from xdpbatch.verify.walk import Walk

MAX_SIZE = 1 << 29  # BPF_MAX_VAR_SIZ
SIZED = (Arg.MEM, Arg.MEM_OR_NULL, Arg.UNINIT_MEM, Arg.INOUT_MEM)


class Call:
    """One call while its arguments are checked.

    `writes` are (stack pointer, size, exactly so many bytes) that the callee writes.
    """

    def __init__(self, walk: Walk, state: State, callee: str) -> None:
        self.walk = walk
        self.state = state
        self.callee = callee
        self.writes: list[tuple[Pointer, int, bool]] = []

    def bad(self, number: int, value: Value, wanted: str) -> Refusal:
        """The refusal of an argument that is not what is wanted."""
        return Refusal(
            "bad-argument",
            f"argument {number} of {self.callee} must be {wanted}",
            reg(number, value),
        )


class Arguments(Call):
    """The arguments of a helper's call, and what it is found to do."""

    def __init__(self, walk: Walk, state: State, helper: Helper, values: tuple[Value, ...]) -> None:
        super().__init__(walk, state, f"bpf_{helper.name}")
        self.helper = helper
        self.values = values
        self.map: MapSpec | None = None
        self.inner: str | None = None
        self.allocated = 0


def check_argument(args: Arguments, number: int) -> None:
    """Raise Refusal unless register `number` is what the prototype wants there."""
    kind = args.helper.args[number - 1]
    rule = RULES.get(kind)
    if rule is None:
        raise Refusal(
            "unsupported",
            f"{args.callee} takes a {kind.name.lower()}",
            "this verifier does not know such arguments yet",
        )
    rule(args, number, args.values[number - 1])


def _pointer(args: Arguments, number: int, value: Value, kind: Kind, wanted: str) -> Pointer:
    if not isinstance(value, Pointer) or value.kind != kind:
        raise args.bad(number, value, wanted)
    if value.null:
        raise Refusal(
            "null-deref",
            f"argument {number} of {args.callee} may be null",
            reg(number, value),
            f"compare r{number} with 0 before the call",
        )
    return value


def _anything(args: Arguments, number: int, value: Value) -> None:
    """Any initialised value."""


def _ctx(args: Arguments, number: int, value: Value) -> None:
    base = _pointer(args, number, value, Kind.CTX, "the ctx")
    if base.off or base.num.umax:
        raise args.bad(number, value, "the ctx itself, not moved")


def _map(args: Arguments, number: int, value: Value) -> None:
    args.map = _pointer(args, number, value, Kind.MAP, "a map").map
    args.inner = value.inner if isinstance(value, Pointer) else None


def _key(args: Arguments, number: int, value: Value) -> None:
    assert args.map is not None
    memory(args, number, value, args.map.key_size)


def _value(args: Arguments, number: int, value: Value) -> None:
    assert args.map is not None
    memory(args, number, value, args.map.value_size)


def _out_value(args: Arguments, number: int, value: Value) -> None:
    """A value that is written; a bloom filter reads it, to say whether it holds it."""
    assert args.map is not None
    written = args.map.type != MapNumber.BLOOM_FILTER
    memory(args, number, value, args.map.value_size, write=written)


def _fixed(args: Arguments, number: int, value: Value) -> None:
    """A struct that the helper reads and writes."""
    memory(args, number, value, args.helper.fixed_size)
    memory(args, number, value, args.helper.fixed_size, write=True)


def _struct(args: Arguments, number: int, value: Value) -> None:
    """A struct that the helper reads."""
    memory(args, number, value, args.helper.sizes[number - 1])


def _sized(args: Arguments, number: int, value: Value) -> None:
    """The size in the next register decides: see `_size`."""


def _size(args: Arguments, number: int, value: Value) -> None:
    """CONST_SIZE: bounds of a size, and that the memory before it has so many bytes."""
    if not isinstance(value, Scalar):
        raise args.bad(number, value, "a size")
    kind, num = args.helper.args[number - 1], value.num
    before, memory_kind = args.values[number - 2], args.helper.args[number - 2]
    if num.smin < 0:
        raise Refusal(
            "bad-argument",
            f"size of {args.callee} may be negative",
            reg(number, value),
            "make it unsigned or check size >= 0",
        )
    if num.umax >= MAX_SIZE:
        raise Refusal(
            "bad-argument",
            f"size of {args.callee} is unbounded",
            reg(number, value),
            "bound it: size &= 0xff, or if (size < N)",
        )
    if not num.umin and kind != Arg.CONST_SIZE_OR_ZERO:
        raise Refusal(
            "bad-argument",
            f"size of {args.callee} may be 0",
            reg(number, value),
            "check size > 0",
        )
    mark_precise(value)
    if memory_kind not in SIZED:
        return
    nullable = memory_kind == Arg.MEM_OR_NULL
    if nullable and isinstance(before, Scalar) and not before.num.umax and not num.umax:
        mark_precise(before)  # nothing is touched
        return
    if memory_kind != Arg.UNINIT_MEM:
        memory(args, number - 1, before, num.umax)
    if memory_kind in (Arg.UNINIT_MEM, Arg.INOUT_MEM):
        memory(args, number - 1, before, num.umax, write=True, exact=not num.mask)


def memory(
    args: Call, number: int, value: Value, size: int, write: bool = False, exact: bool = True
) -> None:
    """A callee reads or writes `size` bytes (at most, unless `exact`) through an argument."""
    if not isinstance(value, Pointer):
        raise args.bad(number, value, "a pointer to memory")
    if value.null:
        raise Refusal(
            "null-deref",
            f"argument {number} of {args.callee} may be null",
            reg(number, value),
            f"compare r{number} with 0 before the call",
        )
    if value.kind == Kind.STACK:
        stack.read_range(args.walk, args.state, value, 0)
        if write:
            stack.extent(value, 0, size, "write by the callee")
            args.writes.append((value, size, exact))
        else:
            stack.read_range(args.walk, args.state, value, size)
    elif value.kind in (Kind.PACKET, Kind.PACKET_META, Kind.MAP_VALUE, Kind.MEM, Kind.MAP_KEY):
        require.memory(number, value, 0, size, write)
    else:
        raise args.bad(number, value, f"readable memory, not {WORDS[value.kind]}")


def _alloc_size(args: Arguments, number: int, value: Value) -> None:
    if not isinstance(value, Scalar) or value.num.mask:
        raise args.bad(number, value, "a constant")
    mark_precise(value)
    args.allocated = value.num.value & 0xFFFFFFFF


def _alloc_mem(args: Arguments, number: int, value: Value) -> None:
    base = _pointer(args, number, value, Kind.MEM, "a reserved record")
    if not base.ref or base.off or base.num.umax:
        raise args.bad(number, value, "the start of a reserved record")
    if all(ref[0] != base.ref for ref in args.state.refs):
        raise args.bad(number, value, "a record that was not given back yet")


def _socket(args: Arguments, number: int, value: Value) -> None:
    kind = value.kind if isinstance(value, Pointer) else None
    if kind not in (Kind.SOCK, Kind.SOCK_COMMON):
        raise args.bad(number, value, "a socket")
    base = _pointer(args, number, value, kind, "a socket")
    if all(ref[0] != base.ref for ref in args.state.refs):
        raise args.bad(number, value, "a socket that was not given back yet")


def _string(args: Arguments, number: int, value: Value) -> None:
    base = _pointer(args, number, value, Kind.MAP_VALUE, "a string in a read-only map")
    spec, at = base.map, base.constant_offset
    readonly = spec is not None and spec.frozen and spec.flags & BPF_F_RDONLY_PROG
    if spec is None or spec.contents is None or at is None or not readonly:
        raise args.bad(number, value, "a constant address in a read-only map")
    if not 0 <= at < spec.value_size or 0 not in spec.contents[at:]:
        raise args.bad(number, value, "a string with its NUL inside the map")


def _function(args: Arguments, number: int, value: Value) -> None:
    _pointer(args, number, value, Kind.FUNC, "a function of the program")


def _stack_or_null(args: Arguments, number: int, value: Value) -> None:
    if isinstance(value, Scalar) and not value.num.umax:
        mark_precise(value)
        return
    _pointer(args, number, value, Kind.STACK, "a pointer into the stack, or 0")


RULES: dict[Arg, Callable[[Arguments, int, Value], None]] = {
    Arg.ANYTHING: _anything,
    Arg.DONTCARE: _anything,
    Arg.CTX: _ctx,
    Arg.CONST_MAP_PTR: _map,
    Arg.MAP_KEY: _key,
    Arg.MAP_VALUE: _value,
    Arg.UNINIT_MAP_VALUE: _out_value,
    Arg.MEM: _sized,
    Arg.MEM_OR_NULL: _sized,
    Arg.UNINIT_MEM: _sized,
    Arg.INOUT_MEM: _sized,
    Arg.CONST_SIZE: _size,
    Arg.CONST_SIZE_OR_ZERO: _size,
    Arg.CONST_ALLOC_SIZE: _alloc_size,
    Arg.ALLOC_MEM: _alloc_mem,
    Arg.CONST_STR: _string,
    Arg.FIXED_MEM: _fixed,
    Arg.STRUCT: _struct,
    Arg.SOCK: _socket,
    Arg.FUNC: _function,
    Arg.STACK_OR_NULL: _stack_or_null,
}
