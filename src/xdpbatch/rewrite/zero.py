"""Clears the stack slots that a function may read without having written them.

Linux lets a privileged program do that; what it would see there is another packet's data or LLVM's
undefined value. Here it is 0, at each entry of the function (so for each packet of a batch).

Before                          After
  r0 = *(u64 *)(r10 - 8)          *(u64 *)(r10 - 8) = 0
                                  r0 = *(u64 *)(r10 - 8)
"""

from __future__ import annotations

from xdpbatch.facts import Access, Region
from xdpbatch.isa import FP, Class, Insn, Mode, Size
from xdpbatch.rewrite.patch import Code, Patch, expand

STORE = Class.ST | Size.DW | Mode.MEM


def zero(code: Code) -> Code:
    """`code` that writes all `code.unwritten` first; a function's own jumps do not do it again."""
    slots = {s.start: which for s, which in zip(code.subprogs, code.unwritten, strict=False)}

    def patch(i: int, insn: Insn) -> Patch | None:
        clear = [
            Insn(STORE, FP, off=slot, fact=Access(Region.STACK, slot)) for slot in slots.get(i, ())
        ]
        return Patch([*clear, insn], entry=len(clear))

    return expand(code, patch)
