"""The one operation that all rewrites are made of: replace instructions by lists of them.

Analogous to bpf_patch_insn_data() of kernel/bpf/core.c, for all instructions at once.

Before                     After `expand` with {1: [a, b], 2: []}
  0: if r1 == 0 goto 2       0: if r1 == 0 goto 3
  1: call helper             1: a
  2: r3 = r3                 2: b
  3: exit                    3: exit
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from xdpbatch.asm import assemble
from xdpbatch.facts import Access, Region
from xdpbatch.isa import FP, JA, Class, Insn, Mode, Size
from xdpbatch.program import Subprog


@dataclass(frozen=True, slots=True)
class Code:
    """Instructions and their functions, on the way from Verified to Xlated."""

    insns: tuple[Insn, ...]
    subprogs: tuple[Subprog, ...]
    stack_depth: tuple[int, ...]  # bytes of frame per subprog, a multiple of 8
    unwritten: tuple[tuple[int, ...], ...] = ()  # per subprog, `Verified.zero_stack`


@dataclass(frozen=True, slots=True)
class Patch:
    """What replaces an instruction; jumps to it land on the `entry`-th of `insns`."""

    insns: Sequence[Insn]
    entry: int = 0


def here(index: int) -> int:
    """The `target` of a jump within a patch: its `index`-th instruction, or the one after it.

    Other targets in a patch are those of the code that is patched.
    """
    return -1 - index


def expand(code: Code, patch: Callable[[int, Insn], Patch | None]) -> Code:
    """Replace each instruction that `patch` has a Patch for; all targets are kept right.

    A jump to an instruction that is removed goes to the one after it.
    """
    patches = [patch(i, insn) or Patch([insn]) for i, insn in enumerate(code.insns)]
    starts = [0]
    for one in patches:
        starts.append(starts[-1] + len(one.insns))
    entries = [start + one.entry for start, one in zip(starts, patches, strict=False)]
    functions = {subprog.start: starts[subprog.start] for subprog in code.subprogs}

    def moved(insn: Insn, start: int) -> Insn:
        if insn.target is None:
            return insn
        if insn.target < 0:
            return replace(insn, target=start - 1 - insn.target)
        # what names a function means its very start, a jump does not
        where = entries[insn.target] if insn.is_jump else functions[insn.target]
        return replace(insn, target=where)

    insns = tuple(
        moved(insn, start)
        for start, one in zip(starts, patches, strict=False)
        for insn in one.insns
    )
    subprogs = tuple(replace(s, start=starts[s.start], end=starts[s.end]) for s in code.subprogs)
    return replace(code, insns=insns, subprogs=subprogs)


def written(text: str) -> list[Insn]:
    """Instructions of assembler text, for a patch: its labels are local to it."""
    insns = assemble(f"{text}\nexit")[:-1]  # so that a label may stand at the end
    return [i if i.target is None else replace(i, target=here(i.target)) for i in insns]


def later(insns: Sequence[Insn], by: int) -> list[Insn]:
    """`insns`, written for a patch that starts with them, for one where `by` others come first."""
    return [
        replace(insn, target=insn.target - by)
        if insn.target is not None and insn.target < 0
        else insn
        for insn in insns
    ]


def slots(insns: Sequence[Insn], below: int) -> list[Insn]:
    """`insns` with every access of r10 below `below` marked as one of a slot of its own."""
    return [
        replace(insn, fact=Access(Region.SLOT, insn.off)) if _is_slot(insn, below) else insn
        for insn in insns
    ]


def _is_slot(insn: Insn, below: int) -> bool:
    base = insn.src if insn.is_load else insn.dst if insn.is_store else None
    return base == FP and insn.off < below


def load(dst: int, base: int, offset: int, size: Size) -> Insn:
    """dst = *(size *)(base + offset)"""
    return Insn(Class.LDX | size | Mode.MEM, dst, base, offset)


def goto(target: int) -> Insn:
    """Jump to `target`."""
    return Insn(JA, target=target)
