"""Moves the stack of a program's main function down, so that a trampoline has the top of the frame.

Analogous to what the slides ask of the verifier ("the instructions that make use of stack are
refreshed"). Every pointer to the stack starts as r10, which no instruction can change, so it is
enough to move r10 wherever it is used: an access on r10 by its offset, a copy of r10 where it
is made. All that is derived from a copy (arithmetic, spills, arguments of helpers and
functions) is then right as it stands. The verifier's facts move along.

Before                              After, by 12 bytes
  r2 = *(u64 *)(r10 - 12)             r2 = *(u64 *)(r10 - 24)
  r1 = r10                            r1 = r10
  r1 += -20                           r1 += -32
  r3 = r10                            r3 = r10
  r3 += r2                            r3 += -12
                                      r3 += r2
"""

from __future__ import annotations

from dataclasses import replace

from xdpbatch.errors import UnsupportedError
from xdpbatch.facts import Access, Called, Fact, Region
from xdpbatch.isa import FP, LOAD_ACQ, MOV64_REG, Alu, Class, Insn, K, X
from xdpbatch.rewrite.patch import Code, Patch, expand

ADD_IMM = Class.ALU64 | Alu.ADD | K
ADD_REG = Class.ALU64 | Alu.ADD | X
SUB_REG = Class.ALU64 | Alu.SUB | X


def lower(code: Code, by: int) -> Code:
    """`code` whose main function leaves the top `by` bytes of its frame alone.

    Raises UnsupportedError for an r10 that is stored or compared: Linux accepts that of a
    privileged program, no compiler makes it, and no register would be free to move it.
    """
    main = code.subprogs[0]
    targets = {insn.target for insn in code.insns if insn.is_jump}

    def copied(i: int) -> bool:
        """Whether instruction i is a copy of r10 and the next one adds a constant to it."""
        insn, after = code.insns[i], code.insns[i + 1]
        copy = insn.op == MOV64_REG and insn.src == FP
        added = after.op == ADD_IMM and after.dst == insn.dst
        return copy and added and i + 1 not in targets

    def patch(i: int, insn: Insn) -> Patch | None:
        if not main.start <= i < main.end:
            return Patch([replace(insn, fact=_in_function(insn.fact))])
        insn = replace(insn, fact=_moved(insn.fact, by))
        if _base(insn) == FP:
            if insn.cls == Class.STX and _value(insn) == FP:
                raise _refused(i, insn)
            return Patch([replace(insn, off=insn.off - by)])
        if i > main.start and copied(i - 1):
            return Patch([replace(insn, imm=insn.imm - by)])
        if _value(insn) != FP or copied(i):
            return Patch([insn])
        if insn.op in (MOV64_REG, ADD_REG):
            return Patch([insn, Insn(ADD_IMM, insn.dst, imm=-by)])
        if insn.op == SUB_REG:
            return Patch([insn, Insn(ADD_IMM, insn.dst, imm=by)])
        raise _refused(i, insn)

    moved = expand(code, patch)
    depth, *others = code.stack_depth
    return Code(moved.insns, moved.subprogs, (depth + by, *others))


def _base(insn: Insn) -> int | None:
    """The register that holds the address of an access."""
    if insn.cls == Class.LDX or (insn.is_atomic and insn.imm == LOAD_ACQ):
        return insn.src
    return insn.dst if insn.cls in (Class.ST, Class.STX) else None


def _value(insn: Insn) -> int | None:
    """The register whose contents an instruction uses as its source operand."""
    if insn.is_atomic and insn.imm == LOAD_ACQ:
        return None
    if insn.cls == Class.STX or ((insn.is_alu or insn.is_jump) and insn.uses_reg):
        return insn.src
    return None


def _moved(fact: Fact | None, by: int) -> Fact | None:
    """A fact of the main function: offsets in its stack are from the same r10 as before."""
    if isinstance(fact, Called):
        args = tuple(arg and _moved_access(arg, by) for arg in fact.args)
        return replace(fact, args=args)
    return _moved_access(fact, by) if fact else None


def _moved_access(access: Access, by: int) -> Access:
    if access.region in (Region.STACK, Region.SLOT) and access.offset is not None:
        return replace(access, offset=access.offset - by)
    return access


def _in_function(fact: Fact | None) -> Fact | None:
    """A fact of another function: where in the main function's stack is no longer said."""
    if isinstance(fact, Called):
        return replace(fact, args=tuple(arg and _anywhere(arg) for arg in fact.args))
    return _anywhere(fact) if fact else None


def _anywhere(access: Access) -> Access:
    return replace(access, offset=None) if access.region is Region.CALLER_STACK else access


def _refused(i: int, insn: Insn) -> UnsupportedError:
    return UnsupportedError.of(
        "poc-frame-pointer",
        "the program stores or compares its frame pointer itself",
        where=f"insn {i}",
        reason=f"r{insn.src} cannot be moved down for this instruction alone",
        suggestion="use --layout batch",
    )
