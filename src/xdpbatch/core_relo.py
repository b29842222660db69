"""CO-RE."""

from __future__ import annotations

from xdpbatch.btf import Btf
from xdpbatch.btf_ext import CoreRelo
from xdpbatch.isa import Insn


def apply(insn: Insn, relo: CoreRelo, local: Btf, target: Btf | None, where: str) -> Insn:
    """Patched."""
    return insn
