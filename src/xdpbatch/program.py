"""What a loaded object consists of: programs, maps, and where each came from in the source.

Analogous to cilium/ebpf's CollectionSpec: nothing here has touched memory or the kernel yet.
An Object is made by `elf.load`, a Program of it goes through verify, rewrite and jit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from xdpbatch.errors import Source
from xdpbatch.isa import Insn

if TYPE_CHECKING:
    from xdpbatch.btf import Btf


class Attach(Enum):
    """Where an XDP program may be attached: enum bpf_attach_type of the section's name."""

    XDP = "xdp"
    DEVMAP = "xdp/devmap"
    CPUMAP = "xdp/cpumap"


@dataclass(frozen=True, slots=True)
class MapSpec:
    """What an object says of one map: the fields of `union bpf_attr` for BPF_MAP_CREATE.

    `contents` are initial bytes of a data section (one array element); `values` the initial
    entries of a map-in-map or prog array, key to the name of a map or program.
    """

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    inner: MapSpec | None = None
    values: Mapping[int, str] = field(default_factory=dict)
    contents: bytes | None = None
    frozen: bool = False  # .rodata: the verifier may take its contents as constants
    pinning: int = 0
    map_extra: int = 0
    key_type: int = 0  # BTF type ids, 0 if unknown
    value_type: int = 0


@dataclass(frozen=True, slots=True)
class Subprog:
    """One function of a program: instructions [start, end). The first is the entry."""

    name: str
    start: int
    end: int
    btf_id: int = 0  # of its BTF FUNC, 0 if unknown
    is_global: bool = False


@dataclass(frozen=True, slots=True)
class Program:
    """One XDP program, self-contained: its entry function first, then all that it calls."""

    name: str
    section: str
    insns: tuple[Insn, ...]
    subprogs: tuple[Subprog, ...]
    maps: Mapping[str, MapSpec]  # every map of the object, by name
    attach: Attach = Attach.XDP
    frags: bool = False
    license: str = ""
    lines: Mapping[int, Source] = field(default_factory=dict)  # first insn of each line
    btf: Btf | None = None
    kernel_btf: bytes = b""  # what BPF_BTF_LOAD takes: `btf` with its data sections completed
    func_info: bytes = b""  # struct bpf_func_info[] of BPF_PROG_LOAD, for `insns` as they are
    line_info: bytes = b""  # struct bpf_line_info[]

    def source_at(self, index: int) -> Source | None:
        """The source line that instruction `index` was compiled from."""
        start = self.subprog_at(index).start
        for i in range(index, start - 1, -1):
            if i in self.lines:
                return self.lines[i]
        return None

    def subprog_at(self, index: int) -> Subprog:
        """The function that instruction `index` belongs to."""
        return next(s for s in self.subprogs if s.start <= index < s.end)


@dataclass(frozen=True, slots=True)
class Object:
    """A loaded ELF object: all its XDP programs and maps.

    `types_from` says whose types its CO-RE relocations were resolved against, `config_from` which
    file its kconfig variables were read from; "" if it has none.
    """

    path: str
    programs: Mapping[str, Program]
    maps: Mapping[str, MapSpec]
    license: str = ""
    btf: Btf | None = None
    types_from: str = ""
    config_from: str = ""
