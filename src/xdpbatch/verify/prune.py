"""Whether a state is inside one that was walked before, so that its path can end here. Analogous to
is_state_visited, states_equal, regsafe and stacksafe of kernel/bpf/verifier.c.

Only what matters is compared: registers that may still be read (`live`), stack bytes that some path
read (`Checkpoint.read`), ranges of numbers that decided something (`Scalar.precise`). When a path
ends here, what mattered to the old state is recorded for the new one's ancestors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpbatch.verify.domain import within
from xdpbatch.verify.stack import kinds
from xdpbatch.verify.state import (
    ALL,
    Byte,
    Checkpoint,
    Kind,
    Pointer,
    Scalar,
    Slot,
    State,
    Value,
    mark_precise,
    mark_read,
)
from xdpbatch.verify.tnum import M64

if TYPE_CHECKING:
    from xdpbatch.verify.walk import Walk

CALLER_SAVED = 0b111111


class Comparison:
    """One comparison of a new state with an old one, with what ids of the old stand for in the new.

    With `exact`, everything is compared: for an old state whose paths are still being walked.
    """

    __slots__ = ("exact", "ids", "scalars", "uninitialised", "zeros")

    def __init__(self, exact: bool) -> None:
        self.exact = exact
        self.ids: dict[int, int] = {0: 0}
        self.scalars: dict[int, tuple[Scalar, int]] = {}
        self.uninitialised: list[tuple[int, int]] = []  # (frame, byte): read, but not written now
        self.zeros: list[Scalar] = []  # spilled zeros that stand for zero bytes

    def value(self, old: Value | None, new: Value | None) -> bool:
        """Whether all that `new` can be was walked with `old`."""
        if old is None:
            return True
        if type(old) is Scalar:
            if type(new) is not Scalar:
                return False
            return not (old.precise or self.exact) or self._number(old, new)
        return type(new) is Pointer and type(old) is Pointer and self._pointer(old, new)

    def _number(self, old: Scalar, new: Scalar) -> bool:
        if not self.exact and not old.precise:
            return True
        if not within(new.num, old.num):
            return False
        if not old.num.mask:
            return True
        base = new.base or new
        shift = (new.delta - old.delta) & M64
        found = self.scalars.setdefault(id(old.base or old), (base, shift))
        return found[0] is base and found[1] == shift  # equal then, or a constant apart: so now

    def _pointer(self, old: Pointer, new: Pointer) -> bool:
        if old is not new:
            if (
                old.kind != new.kind
                or old.off != new.off
                or old.null != new.null
                or old.map is not new.map
                or old.inner != new.inner
                or old.size != new.size
                or old.frame != new.frame
            ):
                return False
            if old.range > new.range or (old.range != new.range and min(old.range, new.range) < 0):
                return False
            if old.kind == Kind.STACK:
                if old.num.views != new.num.views:
                    return False
            elif not within(new.num, old.num):
                return False
        return self._same_id(old.id, new.id) and self._same_id(old.ref, new.ref)

    def _same_id(self, old: int, new: int) -> bool:
        return self.ids.setdefault(old, new) == new

    def slot(self, old: Slot, new: Slot, read: int, frame: int, index: int) -> bool:
        """One stack slot, of which the bytes in `read` (bit i is byte 7 - i) matter."""
        if old is None:
            return True
        if isinstance(old, Pointer):
            return isinstance(new, Pointer) and self._pointer(old, new)
        held = old if isinstance(old, Scalar) else old.value
        have = new if isinstance(new, Scalar) else getattr(new, "value", None)
        before, now = kinds(old), kinds(new)
        for at in range(8):
            if not read >> (7 - at) & 1:
                continue
            was, has = before[at], now[at]
            if was == Byte.INVALID:
                continue
            if was == Byte.ZERO:
                if has == Byte.ZERO:
                    continue
                if has != Byte.SPILL or have is None or have.num.umax:
                    return False
                self.zeros.append(have)
            elif was == Byte.MISC or (held is not None and self._any_bytes(held)):
                if has == Byte.INVALID:
                    self.uninitialised.append((frame, -8 * (index + 1) + at))
                if was == Byte.SPILL and type(new) is Pointer:
                    return False
            elif has != Byte.SPILL or held is None or have is None or not self._number(held, have):
                return False
        return True

    def _any_bytes(self, held: Scalar) -> bool:
        """Whether whatever bytes there are will do for a spilled number."""
        return not self.exact and not held.precise


def compare(walk: Walk, old: Checkpoint, new: State, index: int, exact: bool) -> Comparison | None:
    """The comparison if `new` is inside `old`, else None. Both are at instruction `index`."""
    if len(old.frames) != len(new.frames) or len(old.refs) != len(new.refs):
        return None
    result = Comparison(exact)
    for depth in range(len(old.frames) - 1, -1, -1):
        was, now = old.frames[depth], new.frames[depth]
        if was.callsite != now.callsite or was.callback != now.callback:
            return None
        if was.callback_runs > now.callback_runs:
            return None
        olds, news = was.regs, now.regs
        for number in walk.registers[live_registers(walk, new, depth, index)]:
            if not result.value(olds[number], news[number]):
                return None
        read = ALL if exact else old.read[depth]
        if not read:
            continue
        have = now.slots
        for at, slot in enumerate(was.slots):
            part = read >> (8 * at) & 0xFF
            now_slot = have[at] if at < len(have) else None
            if part and not result.slot(slot, now_slot, part, depth, at):
                return None
    for a, b in zip(old.refs, new.refs, strict=True):
        if a[1] != b[1] or not result._same_id(a[0], b[0]):
            return None
    return result


def live_registers(walk: Walk, state: State, depth: int, index: int) -> int:
    """Registers (bit set) of the frame at `depth` that may still be read.

    The innermost frame is at `index`; a caller's are those after the call, and before it too if the
    call runs a callback."""
    if depth == len(state.frames) - 1:
        return walk.live[index]
    above = state.frames[depth + 1]
    live = walk.live[above.callsite + 1] & ~CALLER_SAVED
    return live | walk.live[above.callsite] if above.callback else live


def adopt(walk: Walk, old: Checkpoint, new: State, index: int, found: Comparison) -> None:
    """`new` ends in `old`: what mattered to `old` matters to the ancestors of `new`."""
    for frame, byte in found.uninitialised:
        walk.reads_uninitialised(new.frames[frame], byte, byte + 1)
    for zero in found.zeros:
        mark_precise(zero)
    for depth, (was, now) in enumerate(zip(old.frames, new.frames, strict=True)):
        for number in walk.registers[live_registers(walk, new, depth, index)]:
            _adopt_value(was.regs[number], now.regs[number], found.exact)
        read = ALL if found.exact else old.read[depth]
        if read:
            mark_read(new, depth, read)
            for at, (slot, have) in enumerate(zip(was.slots, now.slots, strict=False)):
                if read >> (8 * at) & 0xFF:
                    _adopt_value(slot, have, found.exact)


def _adopt_value(was: Slot, now: Slot, exact: bool) -> None:
    old = was if isinstance(was, Scalar) else getattr(was, "value", None)
    new = now if isinstance(now, Scalar) else getattr(now, "value", None)
    if isinstance(new, Scalar) and (exact or (isinstance(old, Scalar) and old.precise)):
        mark_precise(new)
