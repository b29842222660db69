"""A writer of small BPF objects, well-formed or not, for tests that must not need a compiler."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

PROGBITS, SYMTAB, STRTAB, NOBITS, REL = 1, 2, 3, 8, 9
EXEC, ALLOC = 4, 2
LOCAL, GLOBAL, WEAK = 0, 1, 2
NOTYPE, OBJECT, FUNC, SECTION = 0, 1, 2, 3
HIDDEN = 2

RETURN_2 = bytes.fromhex("b700000002000000 9500000000000000")


@dataclass
class Raw:
    """One section header and its bytes; `size` lies about the length if it is set."""

    name: str
    type: int
    flags: int
    data: bytes
    link: int = 0
    info: int = 0
    size: int | None = None


@dataclass
class TinyElf:
    """Sections are numbered from 1 in the order they are added; symbols from 1 as well."""

    machine: int = 247
    type: int = 1
    sections: list[Raw] = field(default_factory=list)
    symbols: list[bytes] = field(default_factory=lambda: [bytes(24)])
    names: bytearray = field(default_factory=lambda: bytearray(b"\0"))

    def section(self, name: str, data: bytes, *, type: int = PROGBITS, flags: int = ALLOC) -> int:
        self.sections.append(Raw(name, type, flags, data))
        return len(self.sections)

    def code(self, name: str, data: bytes) -> int:
        return self.section(name, data, flags=ALLOC | EXEC)

    def _name(self, name: str) -> int:
        at = len(self.names)
        self.names += name.encode() + b"\0"
        return at

    def symbol(
        self,
        name: str,
        section: int,
        value: int = 0,
        size: int = 0,
        *,
        bind: int = GLOBAL,
        type: int = FUNC,
        visibility: int = 0,
    ) -> int:
        entry = (self._name(name), bind << 4 | type, visibility, section, value, size)
        self.symbols.append(struct.pack("<IBBHQQ", *entry))
        return len(self.symbols) - 1

    def relocations(self, section: int, entries: dict[int, int], kind: int = 1) -> None:
        """Offset in the section to number of a symbol."""
        data = b"".join(struct.pack("<QQ", at, sym << 32 | kind) for at, sym in entries.items())
        name = ".rel" + self.sections[section - 1].name
        self.sections.append(Raw(name, REL, 0, data, info=section))

    def program(self, section: str = "xdp", name: str = "prog", code: bytes = RETURN_2) -> None:
        self.symbol(name, self.code(section, code), 0, len(code))

    def bytes(self) -> bytes:
        sections = [*self.sections, Raw(".symtab", SYMTAB, 0, b"".join(self.symbols))]
        sections.append(Raw(".strtab", STRTAB, 0, b""))
        for raw in sections:
            raw.link = len(sections) if raw.type == SYMTAB else len(sections) - 1
        headers = bytearray(64)
        body = bytearray()
        starts = [self._name(raw.name) for raw in sections]
        sections[-1].data = bytes(self.names)
        for raw, name in zip(sections, starts, strict=True):
            held = b"" if raw.type == NOBITS else raw.data
            size = len(raw.data) if raw.size is None else raw.size
            fields = (name, raw.type, raw.flags, 0, 64 + len(body), size, raw.link, raw.info, 8, 0)
            headers += struct.pack("<IIQQQQIIQQ", *fields)
            body += held + bytes(-len(held) % 8)
        ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
        rest = (self.type, self.machine, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64)
        count = len(sections) + 1
        return ident + struct.pack("<HHIQQQIHHHHHH", *rest, count, count - 1) + body + headers
