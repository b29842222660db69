"""A writer of small BTF sections, well-formed or not."""

from __future__ import annotations

import struct

from xdpbatch.btf import Btf, Kind


class TinyBtf:
    """Types are numbered from 1 in the order they are added."""

    def __init__(self) -> None:
        self.types = bytearray()
        self.strings = bytearray(b"\0")
        self.count = 0

    def name(self, text: str) -> int:
        if not text:
            return 0
        at = len(self.strings)
        self.strings += text.encode() + b"\0"
        return at

    def add(
        self,
        kind: int,
        name: str = "",
        word: int = 0,
        *tail: int,
        count: int = 0,
        flag: bool = False,
    ) -> int:
        """`word` is the size or the type; `tail` the 32-bit words that follow."""
        info = int(flag) << 31 | kind << 24 | count
        self.types += struct.pack("<III", self.name(name), info, word)
        self.types += b"".join(struct.pack("<I", number & 0xFFFFFFFF) for number in tail)
        self.count += 1
        return self.count

    def integer(self, name: str, size: int, signed: bool = False) -> int:
        return self.add(Kind.INT, name, size, int(signed) << 24 | size * 8)

    def composite(self, name: str, size: int, *members: tuple[str, int, int], kind: int = 4) -> int:
        """Members are (name, type, bit offset)."""
        words = [n for m in members for n in (self.name(m[0]), m[1], m[2])]
        return self.add(kind, name, size, *words, count=len(members))

    def bit_fields(self, name: str, size: int, *members: tuple[str, int, int, int]) -> int:
        """Members are (name, type, bit offset, bits)."""
        words = [n for m in members for n in (self.name(m[0]), m[1], m[3] << 24 | m[2])]
        return self.add(Kind.STRUCT, name, size, *words, count=len(members), flag=True)

    def enum(self, name: str, **values: int) -> int:
        words = [n for key, value in values.items() for n in (self.name(key), value)]
        return self.add(Kind.ENUM, name, 4, *words, count=len(values))

    def bytes(self) -> bytes:
        sizes = (0, len(self.types), len(self.types), len(self.strings))
        return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, *sizes) + self.types + self.strings

    def btf(self) -> Btf:
        return Btf(self.bytes())
