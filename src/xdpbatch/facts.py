"""What the verifier proved of one instruction, carried on the instruction itself.

Analogous to the kernel's `struct bpf_insn_aux_data`, but attached to the Insn (`Insn.fact`), so
that no rewrite can leave it pointing at the wrong place. Facts say what EVERY path proved;
where paths differ they say so (`Region.MIXED`, `None`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Region(Enum):
    """What the base register of an access points into."""

    CTX = auto()  # struct xdp_md; offset is the field's
    STACK = auto()  # this function's own frame; offset is relative to its r10
    CALLER_STACK = auto()  # the frame of a function further up
    PACKET = auto()  # [data, data_end)
    PACKET_META = auto()  # [data_meta, data)
    MAP_VALUE = auto()
    MEM = auto()  # ring buffer records, dynptr slices, global function arguments
    MIXED = auto()
    SLOT = auto()  # 8 bytes that a rewrite added: only accesses at this offset touch them


@dataclass(frozen=True, slots=True)
class Access:
    """Of a load, store or atomic: where it goes. `offset` is None where it is not constant.

    For STACK, `offset` is the lowest byte touched relative to r10 (negative), insn.off included.
    """

    region: Region
    offset: int | None = None
    map: str | None = None


@dataclass(frozen=True, slots=True)
class Called:
    """Of a helper or kfunc call: what its arguments are.

    `map` is the map that is passed, None if none or if paths differ; with `inner` the map came
    out of the map-in-map named `map` and only its template is known.
    `args` has one Access per argument register r1..r5: set where it is a pointer on every path.
    `consts` has one integer per argument register, set where its value is the same on every path.
    """

    map: str | None = None
    inner: bool = False
    args: tuple[Access | None, ...] = (None,) * 5
    consts: tuple[int | None, ...] = (None,) * 5


Fact = Access | Called
