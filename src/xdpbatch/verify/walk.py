"""The walk over all paths of a program. Analogous to do_check and is_state_visited of
kernel/bpf/verifier.c: depth first, the fall-through before the jump, compared at prune points.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import replace

from xdpbatch.facts import Access, Called, Fact, Region
from xdpbatch.helpers import Helper, helpers
from xdpbatch.isa import CALL, CALLX, EXIT, HELPER_CALL, OPCODES, Class
from xdpbatch.program import Program
from xdpbatch.verify import branch, call, functions, prune, transfer
from xdpbatch.verify.arguments import Arguments
from xdpbatch.verify.callbacks import CALLBACKS
from xdpbatch.verify.cfg import Misshapen, live_before, prune_points
from xdpbatch.verify.explain import Refusal, diagnose
from xdpbatch.verify.require import REGIONS
from xdpbatch.verify.state import (
    Checkpoint,
    Frame,
    Kind,
    Partial,
    Pointer,
    Scalar,
    State,
    Value,
    mark_precise,
)

MAX_PROCESSED = 1_000_000
PLAIN, FORCED = 1, 2  # a prune point; one that always keeps its state

STEPS = transfer.steps() | {
    op: branch.conditional
    for op in OPCODES
    if op & 7 in (Class.JMP, Class.JMP32) and op not in transfer.steps()
}
STEPS |= {CALL: call.call, CALLX: call.callx, EXIT: call.leave}
GPL = {"GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL"}


class Walk:
    """The verification of one program: what is still to be walked, and what was found."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.helpers = helpers()
        self.gpl = program.license in GPL
        self.globals: dict[int, list[Value]] = {}  # those called, with their parameters
        self.subprog_of = {s.start: i for i, s in enumerate(program.subprogs)}
        self.live = [*live_before(program), 0]
        self.registers = _Members()
        self.points = self._points()
        self.todo: list[tuple[int, State]] = []
        self.explored: dict[int, list[Checkpoint]] = {}
        self.reached = bytearray(len(program.insns))
        self.facts: dict[int, Fact] = {}
        self.stack_depth = [0] * len(program.subprogs)
        self.zero_stack: list[set[int]] = [set() for _ in program.subprogs]
        self.processed = 0
        self.has_links = False  # some numbers are known to be a constant apart
        self.jumps = 0
        self._last = (0, 0)  # (processed, jumps) at the last checkpoint
        self._ids = 0

    def _points(self) -> bytearray:
        points = bytearray(len(self.program.insns))
        for index in prune_points(self.program):
            points[index] = PLAIN
        for index, insn in enumerate(self.program.insns):
            if insn.op == CALL and insn.src == HELPER_CALL and insn.imm in CALLBACKS:
                points[index] = FORCED
        return points

    def new_id(self) -> int:
        """A number that no other pointer has."""
        self._ids += 1
        return self._ids

    def queue(self, index: int, state: State) -> None:
        """Walk `state` from `index` later."""
        if state.parent is not None:
            state.parent.branches += 1
        self.todo.append((index, state))

    def run(self) -> None:
        """Walk every path, or raise VerifierError for the first that is not proven safe."""
        collects = gc.isenabled()
        gc.disable()  # the walk makes many objects and no cycles
        try:
            self._function(0, [Pointer(Kind.CTX)])
            done = {0}
            while fresh := self.globals.keys() - done:
                done.add(subprog := min(fresh))
                self._function(subprog, functions.parameters(self.program, subprog))
        finally:
            if collects:
                gc.enable()

    def _function(self, subprog: int, values: list[Value]) -> None:
        """Walk one function from its start: the program, or a global function."""
        self.explored.clear()
        self.todo.append((self.program.subprogs[subprog].start, functions.entry(values, subprog)))
        while self.todo:
            index, state = self.todo.pop()
            self._path(index, state)

    def global_function(self, subprog: int) -> list[Value]:
        """The parameters of a global function that is called, which is then walked as well."""
        if subprog not in self.globals:
            self.globals[subprog] = functions.parameters(self.program, subprog)
        return self.globals[subprog]

    def _path(self, index: int, state: State) -> None:
        """Walk one path until it ends or joins one that was walked."""
        insns, points, reached = self.program.insns, self.points, self.reached
        frames = state.frames
        try:
            while index >= 0:
                if points[index] and self._visited(index, state, points[index] == FORCED):
                    break
                self.processed += 1
                if self.processed > MAX_PROCESSED:
                    raise _too_complex()
                reached[index] = 1
                insn = insns[index]
                index = STEPS[insn.op](self, state, frames[-1], insn, index)
        except Misshapen:
            raise
        except Refusal as refusal:
            raise diagnose(self.program, index, refusal, state.path) from None
        at = state.parent
        while at is not None:
            at.branches -= 1
            if at.branches:
                break
            at = at.parent

    def _visited(self, index: int, state: State, forced: bool) -> bool:
        """Whether the path may end here; if not, the state may become a checkpoint."""
        known = self.explored.get(index)
        since, jumps = self.processed - self._last[0], self.jumps - self._last[1]
        keep = forced or (jumps >= 2 and since >= 8)
        if known:
            for old in known.copy():
                if old.branches:
                    if forced:
                        found = prune.compare(self, old, state, index, True)
                        if found is not None:
                            prune.adopt(self, old, state, index, found)
                            return True
                    elif _unchanged(self, old, state, index):
                        raise _endless()
                    elif jumps < 20 and since < 100:
                        keep = False
                else:
                    found = prune.compare(self, old, state, index, False)
                    if found is not None:
                        old.hits += 1
                        prune.adopt(self, old, state, index, found)
                        return True
                old.misses += keep
                patience = 64 if forced and old.branches else 3
                if old.misses > old.hits * patience + patience:
                    known.remove(old)
        if keep:
            self._checkpoint(index, state)
        return False

    def _checkpoint(self, index: int, state: State) -> None:
        self._last = (self.processed, self.jumps)
        fresh: dict[int, Scalar] = {}
        for depth, frame in enumerate(state.frames):
            live = prune.live_registers(self, state, depth, index) | 1 << 10
            for number in range(11):
                if not live >> number & 1:
                    frame.regs[number] = None
            for number, value in enumerate(frame.regs):
                if isinstance(value, Scalar):
                    frame.regs[number] = _anchored(value, fresh)
            for i, slot in enumerate(frame.slots):
                if isinstance(slot, Scalar):
                    frame.slots[i] = _anchored(slot, fresh)
                elif isinstance(slot, Partial) and slot.value is not None:
                    frame.slots[i] = Partial(slot.kinds, _anchored(slot.value, fresh))
        self.explored.setdefault(index, []).append(checkpoint := Checkpoint(state, index))
        state.parent = checkpoint
        for frame in state.frames:
            frame.written = 0

    def previous(self, state: State, index: int) -> Checkpoint | None:
        """The last checkpoint of this path at an instruction, in a frame of the same depth."""
        at = state.parent
        while at is not None and (at.index != index or len(at.frames) != len(state.frames)):
            at = at.parent
        return at

    # What is found

    def reads_uninitialised(self, frame: Frame, low: int, high: int) -> None:
        """Stack bytes [low, high) from r10 may be read although no path wrote them."""
        self.zero_stack[frame.subprog].update(range(low & ~7, high, 8))

    def accessed(self, state: State, index: int, base: Pointer, off: int) -> None:
        """A load, store or atomic at `base` + `off`; merged with what other paths do there."""
        access = self._place(state, base, off)
        known = self.facts.get(index)
        if known == access:
            return
        if isinstance(known, Access):
            if known.region != access.region and Region.CTX in (known.region, access.region):
                raise Refusal(
                    "mixed-pointers",
                    "one path accesses the ctx here, another something else",
                    f"{known.region.name} on one path, {access.region.name} on this one",
                    "a ctx access is rewritten, so that it must be one on every path",
                )
            access = _merged(known, access)
        self.facts[index] = access

    def _place(self, state: State, base: Pointer, off: int) -> Access:
        kind = base.kind
        at = None if base.num.mask else base.off + base.num.smin + off
        if kind == Kind.STACK:
            if base.frame == len(state.frames) - 1:
                return Access(Region.STACK, at)
            return Access(Region.CALLER_STACK)
        return Access(REGIONS[kind], at, base.map.name if base.map and not base.inner else None)

    def called(
        self, state: State, index: int, helper: Helper, values: Sequence[Value], args: Arguments
    ) -> None:
        """A helper call with these arguments; merged with what other paths pass."""
        known = self.facts.get(index)
        places: list[Access | None] = [None] * 5
        consts: list[int | None] = [None] * 5
        for i, value in enumerate(values):
            if isinstance(value, Scalar):
                if not value.num.mask and (
                    not isinstance(known, Called) or known.consts[i] == value.num.smin
                ):
                    mark_precise(value)  # a state with another constant must be walked too
                    consts[i] = value.num.smin
            elif value.kind == Kind.STACK or value.kind in REGIONS:
                places[i] = self._place(state, value, 0)
        name = None if args.map is None else args.inner or args.map.name
        fact = Called(name, args.inner is not None, tuple(places), tuple(consts))
        if isinstance(known, Called) and known != fact:
            same_map = known.map == fact.map and known.inner == fact.inner
            fact = Called(
                fact.map if same_map else None,
                fact.inner and same_map,
                tuple(
                    None if a is None or b is None else _merged(a, b)
                    for a, b in zip(known.args, fact.args, strict=True)
                ),
                tuple(
                    a if a == b else None for a, b in zip(known.consts, fact.consts, strict=True)
                ),
            )
        self.facts[index] = fact


def annotated(program: Program, facts: Mapping[int, Fact]) -> Program:
    """The program with a fact on each instruction that has one."""
    insns = tuple(replace(insn, fact=facts.get(i)) for i, insn in enumerate(program.insns))
    return replace(program, insns=insns)


class _Members(dict[int, tuple[int, ...]]):
    """The numbers of the bits that are set, for each bit set that is asked for."""

    def __missing__(self, bits: int) -> tuple[int, ...]:
        self[bits] = tuple(i for i in range(11) if bits >> i & 1)
        return self[bits]


def _merged(a: Access, b: Access) -> Access:
    if a == b:
        return a
    if a.region != b.region:
        return Access(Region.MIXED)
    return Access(
        a.region, a.offset if a.offset == b.offset else None, a.map if a.map == b.map else None
    )


def _anchored(value: Scalar, fresh: dict[int, Scalar]) -> Scalar:
    """The Scalar that a checkpoint holds: precise only if a path from there needs it."""
    if value.precise:
        value = _renewed(value, fresh)
    value.anchored = True
    return value


def _renewed(value: Scalar, fresh: dict[int, Scalar]) -> Scalar:
    """A Scalar like this one of which nothing mattered yet; what was a constant apart still is."""
    if id(value) not in fresh:
        fresh[id(value)] = new = Scalar(value.num)
        base = value.base
        if base is not None:
            new.base = _renewed(base, fresh) if base.precise else base
            new.delta = value.delta
    return fresh[id(value)]


def _unchanged(walk: Walk, old: Checkpoint, state: State, index: int) -> bool:
    """Whether the state is the old one: a loop came round without any change."""
    if len(old.frames) != len(state.frames):
        return False
    was, now = old.frames[-1].regs, state.frames[-1].regs
    for number in walk.registers[walk.live[index]]:
        a, b = was[number], now[number]
        if isinstance(a, Scalar) and isinstance(b, Scalar) and a.num.views != b.num.views:
            return False
    if prune.compare(walk, old, state, index, True) is None:
        return False
    back = Checkpoint(state, index)
    before = State(old.frames)
    before.refs = old.refs
    return prune.compare(walk, back, before, index, True) is not None


def _too_complex() -> Refusal:
    return Refusal(
        "too-complex",
        f"more than {MAX_PROCESSED} instructions were walked",
        "the program has too many paths, or a loop without a bound",
        "bound each loop by a constant, or use bpf_loop",
    )


def _endless() -> Refusal:
    return Refusal(
        "infinite-loop",
        "a loop comes round without any change",
        "it is not proven to end",
        "count iterations against a constant bound",
    )
