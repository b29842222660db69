"""Removes what no path reaches.

Analogous to opt_remove_dead_code() and opt_hard_wire_dead_code_branches() of kernel/bpf/verifier.c.

Before (r1 is proven not 0)      After
  0: if r1 == 0 goto 2             0: r0 = 1
  1: goto 4                        1: goto 2
  2: r0 = 2                        2: exit
  3: exit
  4: r0 = 1 ...
"""

from __future__ import annotations

from collections.abc import Set

from xdpbatch.isa import GOTOL, JA, LD_IMM64, MOV64_IMM, Insn
from xdpbatch.rewrite.patch import Code, Patch, expand, goto


def dead(code: Code, reached: Set[int]) -> Code:
    """`code` without the instructions, and the functions, that are not in `reached`."""

    def patch(i: int, insn: Insn) -> Patch | None:
        if i not in reached:
            return Patch([])
        if insn.op == LD_IMM64 and insn.target is not None and insn.target not in reached:
            return Patch([Insn(MOV64_IMM, insn.dst)])  # a callback that is never called
        if insn.is_jump and insn.op not in (JA, GOTOL) and insn.target is not None:
            if insn.target not in reached:
                return Patch([])
            if i + 1 not in reached:
                return Patch([goto(insn.target)])
        return None

    out = expand(code, patch)
    kept = [i for i, subprog in enumerate(out.subprogs) if subprog.start < subprog.end]
    subprogs = tuple(out.subprogs[i] for i in kept)
    depths = tuple(out.stack_depth[i] for i in kept)
    unwritten = tuple(out.unwritten[i] for i in kept) if out.unwritten else ()
    return Code(out.insns, subprogs, depths, unwritten)
