"""Turns references to maps into addresses: of the map's block, or of a place in its one value.

Analogous to resolve_pseudo_ldimm64() of kernel/bpf/verifier.c. The address itself is left to the
linker: `ref` names the map and `imm` is what to add, so that code does not depend on the place.

Before                              After
  r1 = map[flows]                     r1 = &flows + 0
  r2 = map_value[.rodata + 8]         r2 = &.rodata + 136      ; 128 bytes of header, then values
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from xdpbatch.errors import UnsupportedError
from xdpbatch.isa import LD_IMM64, PSEUDO_BTF_ID, PSEUDO_MAP_FD, PSEUDO_MAP_VALUE, Insn
from xdpbatch.maps import SIZEOF_HEADER, map_type
from xdpbatch.program import MapSpec
from xdpbatch.rewrite.check import RewriteError
from xdpbatch.rewrite.patch import Code, Patch, expand
from xdpbatch.uapi import MapNumber


def maps(code: Code, specs: Mapping[str, MapSpec]) -> Code:
    """`code` whose references are all PSEUDO_MAP_FD with `imm` to add.

    Raises UnsupportedError for a map type that this runtime does not have, and kernel symbols.
    """

    def patch(i: int, insn: Insn) -> Patch | None:
        if insn.op != LD_IMM64 or insn.ref is None:
            return None
        if insn.src == PSEUDO_BTF_ID:
            raise UnsupportedError.of(
                "kernel-symbol",
                f"the program uses the kernel symbol {insn.ref}",
                where=f"insn {i}",
                reason="there is no kernel around a program in user space",
            )
        if insn.ref not in specs:
            raise RewriteError(f"insn {i}: no map {insn.ref}")
        map_type(specs[insn.ref].type, insn.ref)  # or an error that names the map
        if insn.src == PSEUDO_MAP_FD:
            return None
        if insn.src != PSEUDO_MAP_VALUE or specs[insn.ref].type != MapNumber.ARRAY:
            raise RewriteError(f"insn {i}: {insn} does not refer to an array's value")
        return Patch([replace(insn, src=PSEUDO_MAP_FD, imm=insn.imm + SIZEOF_HEADER)])

    return expand(code, patch)
