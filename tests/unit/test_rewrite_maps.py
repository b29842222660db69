"""References to maps that cannot be turned into addresses are refused by name."""

from __future__ import annotations

import pytest

from xdpbatch import asm
from xdpbatch.errors import UnsupportedError
from xdpbatch.facts import Access, Region
from xdpbatch.isa import LD_IMM64, PSEUDO_BTF_ID, PSEUDO_MAP_FD, PSEUDO_MAP_VALUE, Insn
from xdpbatch.program import MapSpec
from xdpbatch.rewrite.check import RewriteError
from xdpbatch.rewrite.ctx import ctx
from xdpbatch.rewrite.maps import maps
from xdpbatch.rewrite.patch import Code
from xdpbatch.uapi import MapNumber

SPECS = {
    "data": MapSpec("data", MapNumber.ARRAY, 4, 8, 1),
    "flows": MapSpec("flows", MapNumber.HASH, 4, 8, 16),
    "arena": MapSpec("arena", MapNumber.ARENA, 0, 0, 1),
}


def code(*insns: Insn) -> Code:
    program = asm.program("exit")
    return Code((*insns, *program.insns), program.subprogs, (0,))


def test_addresses() -> None:
    before = code(
        Insn(LD_IMM64, 1, PSEUDO_MAP_FD, ref="flows"),
        Insn(LD_IMM64, 2, PSEUDO_MAP_VALUE, imm=5, ref="data"),
        Insn(LD_IMM64, 3, imm=7),
    )
    after = maps(before, SPECS).insns
    assert [(i.src, i.imm, i.ref) for i in after[:3]] == [
        (PSEUDO_MAP_FD, 0, "flows"),
        (PSEUDO_MAP_FD, 133, "data"),
        (0, 7, None),
    ]


@pytest.mark.parametrize(
    ("insn", "error", "why"),
    [
        (Insn(LD_IMM64, 1, PSEUDO_BTF_ID, ref="jiffies"), UnsupportedError, "symbol jiffies"),
        (Insn(LD_IMM64, 1, PSEUDO_MAP_FD, ref="arena"), UnsupportedError, "map arena has type 33"),
        (Insn(LD_IMM64, 1, PSEUDO_MAP_FD, ref="none"), RewriteError, "no map none"),
        (Insn(LD_IMM64, 1, PSEUDO_MAP_VALUE, ref="flows"), RewriteError, "array's value"),
    ],
)
def test_refused(insn: Insn, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        maps(code(insn), SPECS)


def test_only_loads_of_whole_fields_of_ctx_exist() -> None:
    fact = Access(Region.CTX, 12)
    assert len(ctx(code(Insn(0x61, 2, 1, 12, fact=fact))).insns) == 3
    for op in (0x69, 0x79, 0x62):  # u16, u64, a store
        with pytest.raises(RewriteError, match="struct xdp_md"):
            ctx(code(Insn(op, 1, 1, 12, fact=fact)))


def test_a_base_beside_the_start_of_ctx() -> None:
    """r2 = ctx + 4; *(u32 *)(r2 + 0) is data_end, at offset 8 of the XdpBuff."""
    moved = ctx(code(Insn(0x61, 3, 2, 0, fact=Access(Region.CTX, 4)))).insns[0]
    assert (moved.width, moved.off) == (8, 4)
