"""What is known at one point of one path: registers, stack, frames, references. Analogous to
`struct bpf_reg_state`, `bpf_func_state` and `bpf_verifier_state` (include/linux/bpf_verifier.h).

Values are immutable but for `Scalar.precise`, so states share them: copying a state copies lists of
references. Two registers that hold the SAME Scalar object are known to be equal (the kernel's equal
ids). A Scalar knows what it was computed from (`deps`), so that "this value mattered" travels
back to every checkpoint that holds it or what it came from: the kernel's mark_chain_precision.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from xdpbatch.program import MapSpec
from xdpbatch.verify.domain import UNKNOWN, ZERO, Num, describe

MAX_STACK = 512
MAX_FRAMES = 8


class Scalar:
    """A number. `precise`: some path was decided by its exact range, so pruning must compare it.

    If `base` is set, this is `base + delta` modulo 2**64 (the kernel's BPF_ADD_CONST), so that what
    is learned of one is learned of the other.
    """

    __slots__ = ("anchored", "base", "delta", "deps", "num", "precise")

    def __init__(self, num: Num = UNKNOWN, deps: tuple[Scalar, ...] = ()) -> None:
        self.num = num
        self.deps = deps
        self.base: Scalar | None = None
        self.delta = 0
        self.precise = False
        self.anchored = False  # held by a checkpoint

    def __repr__(self) -> str:
        text = describe(self.num)
        if not self.num.mask:
            return f"the number {text}"
        return f"an {text} number" if text == "unknown" else f"a number in {text}"


def derived(num: Num, a: Scalar, b: Scalar | None = None) -> Scalar:
    """A Scalar computed from one or two others. Operands that no checkpoint holds are skipped in
    favour of what they came from: chains stay as short as the number of checkpoints."""
    deps = (a,) if a.anchored else a.deps
    if b is not None:
        more = (b,) if b.anchored else b.deps
        if more and more != deps:
            deps = tuple(dict.fromkeys(deps + more)) if deps else more
    return Scalar(num, deps)


def mark_precise(value: Scalar) -> None:
    """Record that the exact range of `value` mattered, and so of all that it came from."""
    if value.precise:
        return
    todo = [value]
    while todo:
        one = todo.pop()
        if not one.precise:
            one.precise = True
            todo += one.deps
            one.deps = ()


class Kind(IntEnum):
    """What a pointer points to: enum bpf_reg_type."""

    CTX, PACKET, PACKET_META, PACKET_END, STACK, MAP, MAP_VALUE, MEM, FUNC, MAP_KEY = range(10)
    XDP_SOCK, SOCK, SOCK_COMMON = range(10, 13)


PACKETS = frozenset((Kind.PACKET, Kind.PACKET_META))
WORDS = {
    Kind.CTX: "ctx",
    Kind.PACKET: "packet",
    Kind.PACKET_META: "metadata",
    Kind.PACKET_END: "data_end",
    Kind.STACK: "stack",
    Kind.MAP: "map",
    Kind.MAP_VALUE: "value",
    Kind.MEM: "record",
    Kind.FUNC: "function",
    Kind.MAP_KEY: "key",
    Kind.XDP_SOCK: "xdp_sock",
    Kind.SOCK: "socket",
    Kind.SOCK_COMMON: "sock_common",
}


class Pointer:
    """A pointer: base object, constant offset `off`, and a variable offset `num` on top of it.

    `id`: pointers with one id share the variable offset (packet) or the null check (`null`).
    `range`: bytes from packet+num that are proven to lie before data_end (or data, for metadata).
    `map`: the map of MAP, MAP_VALUE, MAP_KEY. `size`: bytes of MEM. `frame`: depth of the STACK
    frame, or for FUNC the function's first instruction. `ref`: the acquired reference, 0 if none.
    `inner`: the map came out of the map-in-map of that name; `map` is then its template.
    """

    __slots__ = (
        "frame",
        "id",
        "inner",
        "kind",
        "map",
        "null",
        "num",
        "off",
        "range",
        "ref",
        "size",
    )

    def __init__(
        self,
        kind: Kind,
        off: int = 0,
        num: Num = ZERO,
        id: int = 0,
        range: int = 0,
        map: MapSpec | None = None,
        null: bool = False,
        size: int = 0,
        frame: int = 0,
        ref: int = 0,
        inner: str | None = None,
    ) -> None:
        self.kind = kind
        self.off = off
        self.num = num
        self.id = id
        self.range = range
        self.map = map
        self.null = null
        self.size = size
        self.frame = frame
        self.ref = ref
        self.inner = inner

    def moved(self, off: int, num: Num, id: int, range: int) -> Pointer:
        """The same object, another place in it."""
        return Pointer(
            self.kind, off, num, id, range, self.map, self.null, self.size, self.frame, self.ref,
            self.inner,
        )  # fmt: skip

    def valid(self) -> Pointer:
        """The same pointer, known not to be null: nothing is left that its id links."""
        new = self.moved(self.off, self.num, 0, self.range)
        new.null = False
        return new

    @property
    def constant_offset(self) -> int | None:
        """Bytes from the base, None if they vary."""
        return None if self.num.mask else self.off + self.num.smin

    def __repr__(self) -> str:
        text = WORDS[self.kind]
        if self.kind in (Kind.MAP, Kind.MAP_VALUE, Kind.MAP_KEY) and self.map is not None:
            text = f"{'inner ' if self.inner else ''}{text} of {self.inner or self.map.name}"
            text = text if self.kind != Kind.MAP else text.replace("map of", "map")
        if self.kind == Kind.MEM:
            text += f" of {self.size} bytes"
        if self.kind not in (Kind.MAP, Kind.PACKET_END, Kind.FUNC):
            shift = self.off if self.num.mask else self.off + self.num.smin
            text += f"{shift:+d}" if shift or self.kind in PACKETS else ""
            text += f" + {describe(self.num)}" if self.num.mask else ""
        return text + (" or null" if self.null else "")


Value = Scalar | Pointer


class Byte(IntEnum):
    """What a byte of a stack slot that is not one whole spilled register holds."""

    INVALID, MISC, ZERO, SPILL = range(4)


class Partial:
    """A stack slot whose bytes differ in kind; `value` is the Scalar whose low bytes are SPILL.

    `kinds` has one Byte per byte, the lowest address first.
    """

    __slots__ = ("kinds", "value")

    def __init__(self, kinds: tuple[Byte, ...], value: Scalar | None = None) -> None:
        self.kinds = kinds
        self.value = value


MISC = Partial((Byte.MISC,) * 8)
ALL_ZERO = Partial((Byte.ZERO,) * 8)

# A stack slot: never written, one spilled register, or bytes. Slot i is [r10 - 8 * (i + 1), + 8).
Slot = Value | Partial | None
ALL = (1 << MAX_STACK) - 1  # every byte of a frame, bit i is r10 - 1 - i


class Frame:
    """One function call: registers, stack, and where it returns to.

    `callback` is the helper's name in a function that a helper calls, `refs` what was held then.
    `callback_runs` counts how often the helper that is being called has run its callback here.
    `written`: bytes of the stack written since the last checkpoint.
    """

    __slots__ = (
        "callback",
        "callback_runs",
        "callsite",
        "refs",
        "regs",
        "slots",
        "subprog",
        "written",
    )

    def __init__(self, subprog: int, callsite: int = -1, callback: str = "") -> None:
        self.subprog = subprog
        self.callsite = callsite
        self.callback = callback
        self.callback_runs = 0
        self.refs: tuple[tuple[int, int], ...] = ()
        self.regs: list[Value | None] = [None] * 11
        self.slots: list[Slot] = []
        self.written = ALL

    def copy(self) -> Frame:
        new = Frame.__new__(Frame)
        new.subprog = self.subprog
        new.callsite = self.callsite
        new.callback = self.callback
        new.callback_runs = self.callback_runs
        new.refs = self.refs
        new.regs = self.regs.copy()
        new.slots = self.slots.copy()
        new.written = self.written
        return new

    def slot(self, index: int) -> Slot:
        return self.slots[index] if index < len(self.slots) else None

    def set_slot(self, index: int, value: Slot) -> None:
        while len(self.slots) <= index:
            self.slots.append(None)
        self.slots[index] = value


class Path:
    """How a path got here: the jump at `index` was taken or not, and the decision before it."""

    __slots__ = ("before", "index", "taken")

    def __init__(self, before: Path | None, index: int, taken: bool) -> None:
        self.before = before
        self.index = index
        self.taken = taken


class State:
    """All frames of one path, the innermost last; the references it holds; the last checkpoint."""

    __slots__ = ("frames", "parent", "path", "refs")

    def __init__(self, frames: list[Frame]) -> None:
        self.frames = frames
        self.refs: tuple[tuple[int, int], ...] = ()  # (id, instruction that acquired it)
        self.parent: Checkpoint | None = None
        self.path: Path | None = None

    def copy(self) -> State:
        new = State.__new__(State)
        new.frames = [frame.copy() for frame in self.frames]
        new.refs = self.refs
        new.parent = self.parent
        new.path = self.path
        return new

    def replace(self, old: Value, new: Value) -> None:
        """Put `new` wherever `old` itself is held: all are known to be equal."""
        for frame in self.frames:
            regs, slots = frame.regs, frame.slots
            for i, value in enumerate(regs):
                if value is old:
                    regs[i] = new
            for i, slot in enumerate(slots):
                if slot is old:
                    slots[i] = new
                elif type(slot) is Partial and slot.value is old and isinstance(new, Scalar):
                    slots[i] = Partial(slot.kinds, new)

    def invalidate(self, gone: Callable[[Pointer], bool]) -> None:
        """Pointers for which `gone` holds are numbers from now on, in all frames."""
        for frame in self.frames:
            for values in (frame.regs, frame.slots):
                for i, value in enumerate(values):
                    if isinstance(value, Pointer) and gone(value):
                        values[i] = Scalar()

    def packet_moved(self) -> None:
        """Something moved the packet's start or end."""
        self.invalidate(lambda p: p.kind in (*PACKETS, Kind.PACKET_END))


class Checkpoint:
    """A state that later states at the same instruction are compared with.

    `branches`: paths from here that are still being walked. `read`: bytes of each frame's stack
    that some path from here read before writing them. `frames` is never changed.
    `exact`: it is part of a loop whose end is not known, so nothing may be ignored.
    """

    __slots__ = (
        "branches",
        "frames",
        "hits",
        "index",
        "misses",
        "parent",
        "read",
        "refs",
        "written",
    )

    def __init__(self, state: State, index: int) -> None:
        self.index = index
        self.frames = [frame.copy() for frame in state.frames]
        self.refs = state.refs
        self.parent = state.parent
        self.read = [0] * len(self.frames)
        self.written = [frame.written for frame in self.frames]
        self.branches = 1
        self.hits = self.misses = 0


def mark_read(state: State, depth: int, mask: int) -> None:
    """Record that stack bytes of the frame at `depth` were read: all checkpoints back to where they
    were written must compare them."""
    mask &= ~state.frames[depth].written
    at = state.parent
    while mask and at is not None and depth < len(at.frames):
        mask &= ~at.read[depth]
        at.read[depth] |= mask
        mask &= ~at.written[depth]
        at = at.parent
