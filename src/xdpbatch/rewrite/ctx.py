"""Turns accesses of struct xdp_md into accesses of the XdpBuff that r1 really points to.

Analogous to xdp_convert_ctx_access() of net/core/filter.c. As there, every access is a load of 4
bytes, and a load of `data` gives a pointer of 8.

Before                              After
  r2 = *(u32 *)(r1 + 4)               r2 = *(u64 *)(r1 + 8)        ; data_end
  r3 = *(u32 *)(r1 + 12)              r3 = *(u64 *)(r1 + 40)       ; rxq
                                      r3 = *(u32 *)(r3 + 0)        ; ifindex
"""

from __future__ import annotations

from xdpbatch.data import buff
from xdpbatch.facts import Access, Region
from xdpbatch.isa import MOV64_REG, Insn, Mode, Size
from xdpbatch.rewrite.check import RewriteError
from xdpbatch.rewrite.patch import Code, Patch, expand, load

# struct xdp_md of include/uapi/linux/bpf.h: offset of a field to where its value is
POINTERS = {0: buff.DATA, 4: buff.DATA_END, 8: buff.DATA_META}
OF_RXQ = {12: buff.RXQ_IFINDEX, 16: buff.RXQ_QUEUE_INDEX, 20: buff.RXQ_EGRESS_IFINDEX}


def ctx(code: Code) -> Code:
    """`code` with no access to struct xdp_md left."""
    return expand(code, _patch)


def _patch(i: int, insn: Insn) -> Patch | None:
    if not isinstance(insn.fact, Access) or insn.fact.region is not Region.CTX:
        return None
    field = insn.fact.offset
    if not insn.is_load or insn.width != 4 or field is None:
        raise RewriteError(f"insn {i}: {insn} is not an access of struct xdp_md that Linux allows")
    # the base register may be beside the start of the context
    start = insn.off - field
    dst, base = insn.dst, insn.src
    if field in POINTERS:
        return Patch([load(dst, base, start + POINTERS[field], Size.DW)])
    out = [
        load(dst, base, start + buff.RXQ, Size.DW),
        load(dst, dst, OF_RXQ[field], Size.W),
    ]
    if insn.op & 0xE0 == Mode.MEMSX:
        out.append(Insn(MOV64_REG, dst, dst, off=32))
    return Patch(out)
