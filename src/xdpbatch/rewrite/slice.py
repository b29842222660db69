"""Cuts out of a program what finds the keys of its map lookups, leaving out all that has effects.

Analogous to what Beeswax's authors do by hand ("stages"), and to a backward slice (Weiser, 1981).
The slice is a program itself: the same instructions with the same branches, so that every bounds
check still guards its load, but

* a store or atomic goes away unless it is into the program's own stack,
* a helper call with effects goes away, r0 is 0 as if it had succeeded,
* what cannot go away that simply ends the slice: adjust_head, tail calls, callbacks, ...
* and so does the last lookup: what comes after it is of no use.

It is verified like any program, so it can fault nowhere. What is loaded may differ from what the
program itself would find; the verifier takes packets and map values to hold anything.

Before                                    After
  r7 = *(u32 *)(r6 + 26)                    r7 = *(u32 *)(r6 + 26)
  *(u8 *)(r6 + 22) = 63                     *(u32 *)(r10 - 4) = r7
  *(u32 *)(r10 - 4) = r7                    ...
  ...                                       call bpf_map_lookup_elem#1
  call bpf_map_lookup_elem#1                r0 = 0
  if r0 == 0 goto miss                      exit
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from xdpbatch.facts import Access, Called, Region
from xdpbatch.helpers import Arg, Helper, Ret, helpers
from xdpbatch.isa import (
    BPF_CALL,
    CALL,
    CALLX,
    EXIT,
    FETCH,
    HELPER_CALL,
    LOAD_ACQ,
    MOV64_IMM,
    STORE_REL,
    Insn,
)
from xdpbatch.maps import map_type, map_types
from xdpbatch.program import MapSpec, Program, Subprog
from xdpbatch.rewrite.dead import dead
from xdpbatch.rewrite.patch import Code, Patch, expand
from xdpbatch.verify import Verified, verify

NEAR = 128 << 10  # bytes of a map that stay in a core's own cache while it is used
HALT = 1  # `off` of an EXIT that ends the slice, also within a function; the kernel ignores it
ENDING = (Insn(MOV64_IMM, 0), Insn(EXIT, off=HALT))

# Helpers that only compute or read, cheaply
PURE = frozenset(
    {"csum_diff", "get_smp_processor_id", "get_numa_node_id", "xdp_get_buff_len", "strncmp"}
)
READS = frozenset(
    {Arg.ANYTHING, Arg.DONTCARE, Arg.CTX, Arg.CONST_MAP_PTR, Arg.MAP_KEY, Arg.MAP_VALUE}
    | {Arg.MEM, Arg.MEM_OR_NULL, Arg.CONST_SIZE, Arg.CONST_SIZE_OR_ZERO, Arg.CONST_STR}
)
OWN = (Region.STACK, Region.CALLER_STACK)
OUTSIDE = (Region.PACKET, Region.PACKET_META, Region.MAP_VALUE)


class Role(Enum):
    """What the slice does with an instruction."""

    KEPT = auto()
    DROPPED = auto()
    ENDS = auto()  # the slice ends there
    STAGED = auto()  # a lookup: what it will touch is prefetched


@dataclass(frozen=True, slots=True)
class Part:
    """An instruction's role, and of a lookup or an end why."""

    role: Role
    why: str = ""


KEPT, DROPPED = Part(Role.KEPT), Part(Role.DROPPED)


@dataclass(frozen=True, slots=True)
class Slice:
    """What finds the keys of a program's lookups: a program, verified; or `why` there is none."""

    verified: Verified | None
    why: str = ""


def slice_of(verified: Verified) -> Slice:
    """The slice of a program. The parts are `parts` of the same code."""
    program = verified.program
    code = dead(Code(program.insns, program.subprogs, verified.stack_depth), verified.reached)
    what = parts(code, program.maps)
    if all(part.role is not Role.STAGED for part in what):
        return Slice(None, "it has no lookup that is worth it")
    wanted = useful(code, what)
    if 0 not in wanted:
        return Slice(None, "no lookup is reached before the slice ends")

    def patch(i: int, insn: Insn) -> Patch | None:
        if i not in wanted or what[i].role is Role.ENDS:
            return Patch(ENDING)
        if what[i].role is not Role.DROPPED:
            return None
        return Patch([Insn(MOV64_IMM, 0)] if insn.op == CALL else [])

    cut = expand(code, patch)
    cut = dead(cut, reachable(cut))
    made = replace(program, insns=cut.insns, subprogs=cut.subprogs, lines={})
    return _proved(made)


def _proved(program: Program) -> Slice:
    from xdpbatch.errors import VerifierError

    try:
        return Slice(verify(program))
    except VerifierError as error:
        return Slice(None, f"the verifier does not accept the slice: {error}")


def parts(code: Code, specs: Mapping[str, MapSpec]) -> list[Part]:
    """The role of each instruction."""
    return [_part(insn, specs) for insn in code.insns]


def _part(insn: Insn, specs: Mapping[str, MapSpec]) -> Part:
    if insn.op == CALL and insn.src == BPF_CALL:
        return KEPT
    if insn.op in (CALL, CALLX):
        helper = helpers().get(insn.imm) if insn.src == HELPER_CALL else None
        return _call(insn, helper, specs) if helper else Part(Role.ENDS, "a call of the kernel")
    writes = insn.is_store or (insn.is_atomic and insn.imm != LOAD_ACQ)
    if not writes:
        return KEPT
    region = insn.fact.region if isinstance(insn.fact, Access) else None
    if region in OWN:
        return KEPT
    if region not in OUTSIDE:
        return Part(Role.ENDS, "a store that may go into the stack or elsewhere")
    if insn.is_atomic and insn.imm != STORE_REL and insn.imm & FETCH:
        return Part(Role.ENDS, "an atomic operation whose result is used")
    return DROPPED


def _call(insn: Insn, helper: Helper, specs: Mapping[str, MapSpec]) -> Part:
    called = insn.fact if isinstance(insn.fact, Called) else Called()
    if helper.op == "lookup":
        return _lookup(called, helper, specs)
    if helper.name in PURE:
        return KEPT
    if helper.name == "xdp_load_bytes":
        to = called.args[2]
        inside = to is not None and to.region in OWN
        return KEPT if inside else Part(Role.ENDS, "bpf_xdp_load_bytes that writes elsewhere")
    simple = helper.ret is Ret.INTEGER and not helper.changes_packet and helper.releases is None
    if simple and READS.issuperset(helper.args):
        return DROPPED
    return Part(Role.ENDS, f"bpf_{helper.name} has effects")


def _lookup(called: Called, helper: Helper, specs: Mapping[str, MapSpec]) -> Part:
    named = specs.get(called.map or "")
    spec = named.inner if named and called.inner else named
    if spec is None or spec.type not in map_types():
        return Part(Role.ENDS, "which map it is differs from path to path")
    kind = map_type(spec.type)
    if kind.quiet_lookup is None:
        return Part(Role.ENDS, f"a lookup in a map of type {kind.name} has effects")
    if not called.inner and kind.size(spec) < NEAR:
        return Part(Role.KEPT, f"map {spec.name} is small: {kind.size(spec):,} bytes")
    if not kind.prefetch_steps:
        return Part(Role.ENDS, f"a lookup in a map of type {kind.name} is a long chain of accesses")
    return Part(Role.STAGED, f"map {spec.name}, prefetched in {kind.prefetch_steps} passes")


def successors(code: Code, i: int) -> Sequence[int]:
    """Where control may be after instruction i, within its function."""
    insn = code.insns[i]
    after = [i + 1] if insn.falls_through else []
    if insn.is_jump and insn.target is not None:
        after.append(insn.target)
    return after


def named(insn: Insn) -> int | None:
    """The start of the function that an instruction calls or takes the address of."""
    return None if insn.is_jump else insn.target


def reachable(code: Code) -> set[int]:
    """All instructions that control can reach, as far as branches tell."""
    found: set[int] = set()
    waiting = [0]
    while waiting:
        i = waiting.pop()
        if i in found:
            continue
        found.add(i)
        waiting += successors(code, i)
        callee = named(code.insns[i])
        if callee is not None and code.insns[i].op == CALL:
            waiting.append(callee)
    return found


def useful(code: Code, what: Sequence[Part]) -> set[int]:
    """Instructions from which a staged lookup can be reached before the slice ends; a function's
    return counts as one, for its caller may go on to one."""
    before: list[list[int]] = [[] for _ in code.insns]
    for i in range(len(code.insns)):
        if what[i].role is not Role.ENDS:
            for after in successors(code, i):
                before[after].append(i)
    callers: dict[int, list[int]] = {}
    for i, insn in enumerate(code.insns):
        if insn.op == CALL and insn.src == BPF_CALL and insn.target is not None:
            callers.setdefault(insn.target, []).append(i)
    staged = _functions_with_lookups(code, what, callers)
    main = code.subprogs[0]

    def goal(i: int) -> bool:
        insn = code.insns[i]
        calls_one = insn.op == CALL and insn.src == BPF_CALL and insn.target in staged
        returns = insn.op == EXIT and i >= main.end
        return what[i].role is Role.STAGED or calls_one or returns

    found: set[int] = set()
    waiting = [i for i in range(len(code.insns)) if goal(i)]
    while waiting:
        i = waiting.pop()
        if i not in found:
            found.add(i)
            waiting += before[i]
    return found


def _functions_with_lookups(
    code: Code, what: Sequence[Part], callers: Mapping[int, Sequence[int]]
) -> set[int]:
    """Starts of the functions that have a staged lookup, themselves or in what they call."""

    def start_of(i: int) -> int:
        return next(s.start for s in code.subprogs if s.start <= i < s.end)

    found: set[int] = set()
    waiting = [start_of(i) for i, part in enumerate(what) if part.role is Role.STAGED]
    while waiting:
        start = waiting.pop()
        if start not in found:
            found.add(start)
            waiting += [start_of(i) for i in callers.get(start, ())]
    return found


def is_halt(insn: Insn) -> bool:
    """Whether an instruction ends the slice, not only the function that it is in."""
    return insn.op == EXIT and insn.off == HALT


def function_at(subprogs: Sequence[Subprog], i: int) -> int:
    """The number of the function that instruction i is in."""
    return next(n for n, s in enumerate(subprogs) if s.start <= i < s.end)
