"""Symbols that an object leaves to the kernel: `__kconfig` variables and `__ksym`s.

Analogous to bpf_object__resolve_externs of libbpf. Options come from the target's configuration.
This runtime is not in the kernel: every weak kernel symbol is absent (0), as on a kernel that
lacks it.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from dataclasses import replace

from xdpbatch.btf import Btf, DataSection, Kind
from xdpbatch.elf_file import STB_WEAK, ElfFile, Symbol
from xdpbatch.errors import ObjectError, UnsupportedError
from xdpbatch.isa import PSEUDO_MAP_VALUE, Insn
from xdpbatch.kconfig import Variable
from xdpbatch.program import MapSpec
from xdpbatch.target import Target
from xdpbatch.uapi import BPF_F_RDONLY_PROG, MapNumber

KCONFIG = ".kconfig"
_VIRTUAL = ("LINUX_HAS_BPF_COOKIE", "LINUX_HAS_SYSCALL_WRAPPER")  # libbpf answers these by probing


class Externs:
    """The undefined symbols of one object; `map` holds the values of its kconfig variables,
    `config_from` says where they are from, "" if from nowhere.
    """

    def __init__(self, elf: ElfFile, btf: Btf | None, target: Target) -> None:
        self._target = target
        self.config_from = ""
        self._weak = {s.name for s in elf.symbols if s.section == 0 and s.bind == STB_WEAK}
        self._ksyms = {name for name, _ in _members(btf, ".ksyms")}
        self._offsets: dict[str, int] = {}
        contents = bytearray()
        for variable in _kconfig(btf):
            contents += bytes(-len(contents) % variable.align)
            self._offsets[variable.name] = len(contents)
            contents += self._value(variable)
        self.map = _kconfig_map(bytes(contents)) if contents else None

    def resolve(self, insn: Insn, symbol: Symbol, where: str) -> Insn:
        """The LD_IMM64 that loads the address of an undefined symbol."""
        if symbol.name in self._offsets:
            offset = self._offsets[symbol.name]
            return replace(insn, src=PSEUDO_MAP_VALUE, imm=offset, ref=KCONFIG)
        if symbol.bind == STB_WEAK:
            return replace(insn, src=0, imm=0)
        if symbol.name not in self._ksyms:
            raise ObjectError.of(
                "undefined-symbol",
                f"{symbol.name} is defined in another object",
                where=where,
                suggestion="link both: bpftool gen object linked.o a.o b.o",
            )
        raise UnsupportedError.of(
            "unsupported-extern",
            f"the program uses the kernel symbol {symbol.name}",
            where=where,
            reason="symbols of the running kernel (__ksym) do not exist in user space",
            suggestion="declare it __weak and test for it, or remove the access",
        )

    def _value(self, variable: Variable) -> bytes:
        name = variable.name
        if name == "LINUX_KERNEL_VERSION":
            return variable.number(kernel_version())
        if name in _VIRTUAL:
            return variable.number(1)
        if name.startswith("CONFIG_"):
            self.config_from = self._target.config_from
            # A machine that does not show its configuration is one without what is weak.
            options = {} if name in self._weak and not self.config_from else self._target.options
            if name in options:
                return variable.value(options[name])
        if name in self._weak:
            return bytes(variable.size)
        raise UnsupportedError.of(
            "unsupported-extern",
            f"the program asks for {name}, which the kernel's configuration does not have",
            reason=f"looked in {self.config_from}" if self.config_from else "",
            suggestion="declare it __weak, it then reads as 0; or --kconfig FILE",
        )


def kernel_version(release: str = "") -> int:
    """KERNEL_VERSION(a, b, c) of a release string, by default the running kernel's."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release or platform.release())
    major, minor, patch = (int(n or 0) for n in found.groups()) if found else (0, 0, 0)
    return major << 16 | min(minor, 255) << 8 | min(patch, 255)


def _kconfig(btf: Btf | None) -> list[Variable]:
    """The kconfig variables, large ones first, so that all are aligned."""
    found = [
        Variable.of(btf, name, type_id)
        for name, type_id in _members(btf, KCONFIG)
        if btf is not None
    ]
    return sorted(found, key=lambda variable: -variable.align)


def _members(btf: Btf | None, section: str) -> Iterator[tuple[str, int]]:
    """Name and type of what is declared to be in a section."""
    if btf is None:
        return
    for found in btf.named(section, Kind.DATASEC):
        assert isinstance(found, DataSection)
        for variable in found.vars:
            yield btf.type(variable.type).name, variable.type


def _kconfig_map(contents: bytes) -> MapSpec:
    size = len(contents)
    return MapSpec(
        KCONFIG, MapNumber.ARRAY, 4, size, 1, BPF_F_RDONLY_PROG, contents=contents, frozen=True
    )
