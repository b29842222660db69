"""Makes a slice run in passes: each pass gets one memory access further, and prefetches there.

Analogous to the stages of Beeswax, and to "group prefetching" (Chen et al., ICDE 2004) of hash
joins. Before a pass the trampoline puts its number into XdpBuff.act, which nobody else uses until
the program has run. A lookup takes as many passes as its map type has steps of prefetching: in
pass k, the lookups that earlier passes have prefetched are done (without side effects), the next
one prefetches, and the packet is left WAITING.

Before                        After
  call bpf_map_lookup_elem#1    slots = r1, r2
                                r0 = rewrite.stage.turn(buff, 2)
                                if r0 >= 2 goto look
                                r0 = maps.hash.prefetch(slot, slot, r0, ...)
                                r0 = rewrite.stage.wait(buff)
                                exit
                                look: r0 = maps.hash.lookup(slot, slot, ...)
  call f                        r0 = f(...)
                                slot = r0
                                r0 = rewrite.stage.halted(buff)
                                if r0 == 0 goto on
                                exit
                                on: r0 = slot
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from xdpbatch.data.buff import ACT
from xdpbatch.isa import BPF_CALL, CALL, EXIT, HELPER_CALL, Insn
from xdpbatch.maps import map_type
from xdpbatch.mem import load32, store32
from xdpbatch.native import Hidden, Native, native
from xdpbatch.program import MapSpec
from xdpbatch.rewrite import lowered
from xdpbatch.rewrite.calls import CallSite, native_call, operation, site_of
from xdpbatch.rewrite.check import RewriteError
from xdpbatch.rewrite.patch import Code, Patch, expand, slots, written
from xdpbatch.rewrite.slice import Role, function_at, is_halt, parts, slice_of, successors
from xdpbatch.verify import Verified

MOST_PASSES = 12
WAITING, ENDED = 1 << 20, 1 << 21  # in XdpBuff.act: more than any number of a pass
SLOTS = 16  # bytes of a function's frame


@native
def turn(buff: int, steps: int) -> int:
    """Which step of a lookup this pass is to prefetch; `steps` if it is to be done."""
    left = load32(buff + ACT)
    if left < steps:
        return left
    store32(buff + ACT, left - steps)
    return steps


@native
def wait(buff: int) -> int:
    """The packet's slice ends for this pass, having prefetched something."""
    return store32(buff + ACT, WAITING)


@native
def end(buff: int) -> int:
    """The packet's slice ends."""
    return store32(buff + ACT, ENDED)


@native
def halted(buff: int) -> int:
    """Whether the packet's slice has ended, in a function that was called."""
    return int(load32(buff + ACT) >= WAITING)


@dataclass(frozen=True, slots=True)
class Staged:
    """A slice as functions for a trampoline to call, the first with an XdpBuff in r1 for a pass.

    What it returns means nothing; XdpBuff.act is WAITING if the next pass may get further. `code`
    is None if there is no slice, and `why` says so.
    """

    code: Code | None
    passes: int = 0
    why: str = ""


def staged(verified: Verified) -> Staged:
    """The slice of a program, ready for a trampoline."""
    found = slice_of(verified)
    if found.verified is None:
        return Staged(None, why=found.why)
    cut = found.verified
    specs = cut.program.maps
    code = lowered(cut, lambda code: Stage(code, specs).run())
    plain = Code(cut.program.insns, cut.program.subprogs, cut.stack_depth)
    return Staged(code, passes(plain, specs))


def passes(code: Code, specs: Mapping[str, MapSpec]) -> int:
    """How many passes have something to prefetch: the steps on the longest path without loops."""
    what = parts(code, specs)
    longest = [0] * (len(code.insns) + 1)
    for i in reversed(range(len(code.insns))):
        insn = code.insns[i]
        own = _steps(insn, specs) if what[i].role is Role.STAGED else 0
        if insn.op == CALL and insn.src == BPF_CALL and insn.target is not None:
            own = longest[insn.target]  # functions come after those that call them
        after = successors(code, i)
        if any(j <= i for j in after):
            return MOST_PASSES
        longest[i] = own + max((longest[j] for j in after), default=0)
    return min(longest[0], MOST_PASSES)


def _steps(insn: Insn, specs: Mapping[str, MapSpec]) -> int:
    spec = site_of(0, insn, specs).spec
    return map_type(spec.type).prefetch_steps if spec else 0


class Stage:
    """The pass itself, over code that has helper calls by number."""

    def __init__(self, code: Code, specs: Mapping[str, MapSpec]) -> None:
        self.code, self.specs = code, specs
        self.frames = code.stack_depth

    @cached_property
    def roles(self) -> list[Role]:
        return [part.role for part in parts(self.code, self.specs)]

    def run(self) -> Code:
        """The staged code."""
        depths = tuple(frame + SLOTS for frame in self.frames)
        return replace(expand(self.code, self.patch), stack_depth=depths)

    def patch(self, i: int, insn: Insn) -> Patch | None:
        if is_halt(insn):
            return Patch([_call(end), Insn(EXIT)])
        calls = insn.op == CALL and insn.src in (BPF_CALL, HELPER_CALL)
        if not calls:
            return None
        frame = self.frames[function_at(self.code.subprogs, i)]
        if insn.src == BPF_CALL:
            return Patch(slots(_function(insn, frame), -frame))
        site = site_of(i, insn, self.specs)
        if self.roles[i] not in (Role.KEPT, Role.STAGED):
            raise RewriteError(f"insn {i}: a slice calls bpf_{site.helper.name}")
        if self.roles[i] is Role.STAGED:
            return Patch(slots(_lookup(site, frame), -frame))
        if site.helper.op == "lookup" and site.spec is not None:
            return Patch([_operation(site, "quiet_lookup", ("map", "key"))])
        return None


def _lookup(site: CallSite, frame: int) -> list[Insn]:
    assert site.spec is not None
    steps = map_type(site.spec.type).prefetch_steps
    code = written(f"""
        *(u64 *)(r10 - {frame + 8}) = r1
        *(u64 *)(r10 - {frame + 16}) = r2
        call 1
        if r0 >= {steps} goto look
        r3 = r0
        r1 = *(u64 *)(r10 - {frame + 8})
        r2 = *(u64 *)(r10 - {frame + 16})
        call 1
        call 1
        exit
        look:
        r1 = *(u64 *)(r10 - {frame + 8})
        r2 = *(u64 *)(r10 - {frame + 16})
        call 1
    """)
    natives = (
        _call(turn, steps),
        _operation(site, "prefetch", ("map", "key", "step")),
        _call(wait),
        _operation(site, "quiet_lookup", ("map", "key")),
    )
    return _with_calls(code, natives)


def _function(insn: Insn, frame: int) -> list[Insn]:
    code = written(f"""
        call 1
        *(u64 *)(r10 - {frame + 8}) = r0
        call 1
        if r0 == 0 goto on
        exit
        on:
        r0 = *(u64 *)(r10 - {frame + 8})
    """)
    return _with_calls(code, (insn, _call(halted)))


def _with_calls(code: Sequence[Insn], calls: Sequence[Insn]) -> list[Insn]:
    """`code` whose calls are `calls`, in order."""
    rest = iter(calls)
    return [next(rest) if insn.op == CALL else insn for insn in code]


def _operation(site: CallSite, op: str, params: tuple[str, ...]) -> Insn:
    assert site.spec is not None
    helper = replace(site.helper, op=op, params=params)
    return operation(replace(site, helper=helper), site.spec.type)


def _call(function: Native, *constants: int) -> Insn:
    return native_call(Insn(CALL), function, (Hidden.BUFF, *constants))
