"""Helper calls in the interpreter: arguments checked by prototype, then the one definition.

Analogous to check_helper_call() of kernel/bpf/verifier.c followed by the call itself. The map's
operation is chosen by the map's type at run time, where native code has it chosen beforehand.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass

from xdpbatch import mem
from xdpbatch.data.layout import address_of, aligned
from xdpbatch.helpers import Arg, Helper, Ret, helpers
from xdpbatch.host.layout import SIZEOF_BPF_SOCK
from xdpbatch.interp import FUNCTION, Frame, Interpreter, Region
from xdpbatch.isa import MASK32, MASK64
from xdpbatch.maps import ENOTSUPP, GEOMETRY, KEY_SIZE, MAP_FLAGS, MAP_TYPE, VALUE_SIZE, map_type
from xdpbatch.native import Native
from xdpbatch.uapi import BPF_F_RDONLY_PROG, MapNumber

TAIL_CALL, FOR_EACH_MAP_ELEM, LOOP = 12, 164, 181
MAX_LOOPS = 8 * 1024 * 1024  # BPF_MAX_LOOPS of include/linux/bpf.h
MAPS_OF_MAPS = (MapNumber.ARRAY_OF_MAPS, MapNumber.HASH_OF_MAPS)


@dataclass(slots=True)
class HelperCall:
    """One call: who calls what, with which arguments (unsigned, one per parameter)."""

    machine: Interpreter
    frame: Frame
    helper: Helper
    arguments: list[int]

    @property
    def map(self) -> int:
        """Address of the map that is passed."""
        return self.arguments[self.helper.args.index(Arg.CONST_MAP_PTR)]

    def bad(self, index: int, reason: str) -> Exception:
        """The error for argument `index`."""
        what = f"argument {index + 1} of {self.helper.name}: {reason}"
        return self.machine.error(self.frame, what)


def call(machine: Interpreter, frame: Frame, number: int) -> int:
    """Run helper `number` with the arguments in r1-r5; its r0."""
    helper = helpers().get(number)
    if helper is None:
        raise machine.error(frame, f"there is no helper {number}")
    one = HelperCall(machine, frame, helper, frame.r[1 : 1 + len(helper.args)])
    for index, kind in enumerate(helper.args):
        _check(one, index, kind)
    if number in CONTROL:
        return CONTROL[number](one)
    result = _map_operation(one) if helper.op else _native(one)
    if helper.releases is not None and helper.args[helper.releases] == Arg.ALLOC_MEM:
        del machine.granted[one.arguments[helper.releases]]
    if result:
        _grant(one, result)
    return result


def _check(one: HelperCall, index: int, kind: Arg) -> None:
    """Raise unless the argument is what the prototype asks for."""
    machine, value = one.machine, one.arguments[index]
    if kind == Arg.CONST_MAP_PTR and value not in machine.map_addresses:
        raise one.bad(index, f"{value:#x} is not a map")
    if kind == Arg.CTX and value != machine.buff:
        raise one.bad(index, f"{value:#x} is not the context")
    if kind == Arg.FUNC and not value & FUNCTION:
        raise one.bad(index, f"{value:#x} is not a function")
    if kind in (Arg.ALLOC_MEM, Arg.SOCK) and value not in machine.granted:
        raise one.bad(index, f"{value:#x} was not reserved")
    size = _size(one, index, kind)
    if size and not (kind == Arg.MEM_OR_NULL and value == 0):
        machine.check(one.frame, value, size, write=kind in WRITTEN and not _asks(one, kind))


WRITTEN = {
    *(Arg.UNINIT_MAP_VALUE, Arg.UNINIT_MEM, Arg.INOUT_MEM, Arg.FIXED_MEM),
    *(Arg.SPIN_LOCK, Arg.TIMER),
}


def _asks(one: HelperCall, kind: Arg) -> bool:
    """Whether a value is only read although other maps write there: a bloom filter's."""
    return kind == Arg.UNINIT_MAP_VALUE and mem.load32(one.map + MAP_TYPE) == MapNumber.BLOOM_FILTER


def _size(one: HelperCall, index: int, kind: Arg) -> int:
    """Bytes of memory that an argument of this kind stands for, 0 if none."""
    if kind == Arg.MAP_KEY:
        return mem.load32(one.map + KEY_SIZE)
    if kind in (Arg.MAP_VALUE, Arg.UNINIT_MAP_VALUE):
        return mem.load32(one.map + VALUE_SIZE)
    if kind in (Arg.MEM, Arg.MEM_OR_NULL, Arg.UNINIT_MEM, Arg.INOUT_MEM):
        return one.arguments[index + 1]
    if kind == Arg.STRUCT:
        return one.helper.sizes[index]
    return {Arg.FIXED_MEM: one.helper.fixed_size, Arg.SPIN_LOCK: 4, Arg.TIMER: 16}.get(kind, 0)


def _grant(one: HelperCall, result: int) -> None:
    """What a helper returned a pointer to belongs to the program from now on."""
    if one.helper.ret == Ret.MAP_VALUE_OR_NULL:
        if mem.load32(one.map + MAP_TYPE) in MAPS_OF_MAPS:
            one.machine.map_addresses.add(result)
            return
        size = mem.load32(one.map + VALUE_SIZE)
        writable = not mem.load32(one.map + MAP_FLAGS) & BPF_F_RDONLY_PROG
        one.machine.grant(Region(result, result + size, writable))
    elif one.helper.ret in (Ret.SOCK_OR_NULL, Ret.SOCK_COMMON_OR_NULL):
        one.machine.grant(Region(result, result + SIZEOF_BPF_SOCK, writable=False))
    elif one.helper.ret == Ret.ALLOC_MEM_OR_NULL:
        size = one.arguments[one.helper.args.index(Arg.CONST_ALLOC_SIZE)]
        one.machine.grant(Region(result, result + size))


def _native(one: HelperCall) -> int:
    """A helper that is one function, whatever the map."""
    native = one.helper.native
    if native is None:
        raise one.machine.error(one.frame, f"helper {one.helper.name} cannot be run")
    hidden = [one.machine.buff] if native.takes_buff else []
    return native(*hidden, *map(mem.signed, one.arguments)) & MASK64


def _map_operation(one: HelperCall) -> int:
    """A helper whose work the map's type does; a type without the operation says -ENOTSUPP."""
    kind = map_type(mem.load32(one.map + MAP_TYPE))
    native: Native | None = getattr(kind, one.helper.op)
    if native is None:
        return -ENOTSUPP & MASK64
    known = {name: mem.load32(one.map + offset) for name, offset in GEOMETRY.items()}
    known["buff"] = one.machine.buff
    known |= zip(one.helper.params, map(mem.signed, one.arguments), strict=True)
    return native(*(known[name] for name in native.params)) & MASK64


def _loop(one: HelperCall) -> int:
    """bpf_loop(): call back up to `count` times, until the callback returns other than 0."""
    count, callback, context, flags = one.arguments
    if flags:
        return -errno.EINVAL & MASK64
    if count > MAX_LOOPS:
        return -errno.E2BIG & MASK32  # as the kernel's inlined form says it
    for i in range(count):
        if one.machine.function(one.frame.program, callback ^ FUNCTION, (i, context)):
            return i + 1
    return count


def _tail_call(one: HelperCall) -> int:
    """bpf_tail_call(): the rest of this function is replaced by another program, or goes on."""
    machine, frame = one.machine, one.frame
    target = _map_operation(one)
    if target:
        if target not in machine.programs:
            raise one.bad(2, f"no program is known at {target:#x}")
        frame.program, frame.pc = machine.programs[target], 0
        frame.r[1] = machine.buff
    return 0


def _for_each(one: HelperCall) -> int:
    """bpf_for_each_map_elem(): call back for each element, until one call returns other than 0."""
    machine = one.machine
    address, callback, context, flags = one.arguments
    if flags:
        return -errno.EINVAL & MASK64
    geometry = {name: mem.load32(address + offset) for name, offset in GEOMETRY.items()}
    writable = not geometry["map_flags"] & BPF_F_RDONLY_PROG
    visit = map_type(mem.load32(address + MAP_TYPE)).visit
    assert visit is not None
    entry = aligned(24)
    known = {**geometry, "buff": machine.buff, "map": address, "entry": address_of(entry)}
    count = position = 0
    while position := visit(*({**known, "position": position}[name] for name in visit.params)):
        key, value, _ = entry.view("<u8").tolist()
        machine.grant(Region(key, key + geometry["key_size"], writable=False))
        machine.grant(Region(value, value + geometry["value_size"], writable))
        count += 1
        if machine.function(one.frame.program, callback ^ FUNCTION, (address, key, value, context)):
            break
    return count


CONTROL: dict[int, Callable[[HelperCall], int]] = {
    LOOP: _loop,
    TAIL_CALL: _tail_call,
    FOR_EACH_MAP_ELEM: _for_each,
}
