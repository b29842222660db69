"""Loading an ELF object: `load(path) -> Object`, all XDP programs and maps of a file.

Analogous to bpf_object__open of libbpf: nothing is created yet. A section holds XDP programs if
libbpf, iproute2 or the kernel's samples take it for that: `xdp`, `xdp.frags`, `xdp/devmap`,
`xdp.frags/cpumap`, `xdp/NAME`, `xdp_NAME`, `xdp1`, `prog`; with `?` in front as well. Before
libbpf 0.7 the programs of device maps were in `xdp_devmap/NAME`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from xdpbatch import btf_ext, btf_kernel
from xdpbatch.btf import Btf
from xdpbatch.elf_file import ElfFile, Section
from xdpbatch.errors import ObjectError, UnsupportedError, XdpBatchError
from xdpbatch.externs import Externs
from xdpbatch.link import Linker
from xdpbatch.map_defs import MapTable
from xdpbatch.program import Attach, Object, Program
from xdpbatch.target import Target

MAX_FILE = 64 << 20  # bytes; an object with DWARF of a large program has one or two MiB

_XDP = re.compile(r"\??(xdp([./_\d-].*)?|prog)")


def load(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview,
    *,
    name: str = "",
    sections: Collection[str] = (),
    target: Target | None = None,
) -> Object:
    """The programs and maps of an object file, given by its path or its bytes.

    `name` is what errors call the file (default: its path); `sections` names further sections to
    take for XDP programs; `target` is the kernel whose types and configuration they are to fit
    (default: the running one). Raises ObjectError for a file that holds no XDP program
    or contradicts itself, UnsupportedError for what only the kernel can provide.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return _named(name or "<bytes>", lambda: bytes(source), sections, target)
    path = os.fspath(source)
    return _named(name or path, lambda: _read(Path(path)), sections, target)


def _named(
    path: str, read: Callable[[], bytes], sections: Collection[str], target: Target | None
) -> Object:
    """Errors of what follows name the file."""
    try:
        return _load(ElfFile(read()), path, sections, target)
    except (ObjectError, UnsupportedError) as error:
        raise _in_file(error, path) from None


def _read(path: Path) -> bytes:
    """A file's bytes, at most MAX_FILE (a device has no end)."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ObjectError.of("unreadable-file", f"cannot read the object: {why}") from None
    if len(data) > MAX_FILE:
        raise ObjectError.of("file-too-large", f"the file has more than {MAX_FILE >> 20} MiB")
    return data


def _in_file(error: XdpBatchError, path: str) -> XdpBatchError:
    places = [f"{path}: {d.where}" if d.where else path for d in error.diagnostics]
    found = zip(error.diagnostics, places, strict=True)
    return type(error)(*(replace(diagnostic, where=place) for diagnostic, place in found))


def _load(elf: ElfFile, path: str, extra: Collection[str], target: Target | None) -> Object:
    btf_section, ext_section = elf.find(".BTF"), elf.find(".BTF.ext")
    btf = Btf(btf_section.data) if btf_section else None
    ext = btf_ext.parse(ext_section.data, btf) if btf and ext_section else btf_ext.Ext()
    target = target or Target()
    table, externs = MapTable(elf, btf), Externs(elf, btf, target)
    maps = {**table.specs, **({externs.map.name: externs.map} if externs.map else {})}
    types = target.types if ext.relos else None
    linker = Linker(elf, table, externs, (btf, ext) if btf else None, types)
    kernel_btf = btf_kernel.complete(btf, elf) if btf else b""
    license_section = elf.find("license")
    license_ = _text(license_section) if license_section else ""
    programs: dict[str, Program] = {}
    for section in elf.sections:
        if not section.is_code or not (_XDP.fullmatch(section.name) or section.name in extra):
            continue
        for entry in linker.entries(section):
            linked = linker.link(entry)
            programs[entry.name] = Program(
                entry.name,
                section.name,
                linked.insns,
                linked.subprogs,
                maps,
                _attach(section.name),
                section.name.lstrip("?").startswith("xdp.frags"),
                license_,
                linked.lines,
                btf,
                kernel_btf,
                linked.func_info,
                linked.line_info,
            )
    if not programs:
        raise _no_program(elf)
    types_from = target.types_from if ext.relos else ""
    return Object(path, programs, maps, license_, btf, types_from, externs.config_from)


def _text(section: Section) -> str:
    return section.data.split(b"\0")[0].decode("utf-8", "backslashreplace")


def _attach(section: str) -> Attach:
    found = re.match(r"\??(?:xdp(?:\.frags)?/(devmap|cpumap)$|xdp_(devmap|cpumap)(?:/|$))", section)
    return Attach(f"xdp/{found[1] or found[2]}") if found else Attach.XDP


def _no_program(elf: ElfFile) -> ObjectError:
    code = ", ".join(s.name for s in elf.sections if s.is_code and s.data) or "none"
    return ObjectError.of(
        "no-xdp-program",
        "the object holds no XDP program",
        reason=f"its sections with code: {code}",
        suggestion='put SEC("xdp") before the program\'s function',
    )
