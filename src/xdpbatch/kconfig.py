"""Values of `__kconfig` variables: an option of a kernel's configuration as a C type.

Analogous to set_kcfg_value_tri, _str and _num of libbpf. The type decides: bool, enum
libbpf_tristate, char, an integer, or an array of char.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdpbatch.btf import Array, Btf, Enum, Int
from xdpbatch.errors import ObjectError

_TRISTATE = {"n": 0, "y": 1, "m": 2}  # enum libbpf_tristate
_SIZES = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable of the .kconfig section; `align` in bytes."""

    name: str
    type: Int | Enum | Array
    size: int
    align: int

    @classmethod
    def of(cls, btf: Btf, name: str, type_id: int) -> Variable:
        """The variable of a BTF VAR. Raises ObjectError for a type that libbpf does not take."""
        found, size = btf.resolve(btf.type(type_id).type), btf.size_of(type_id)
        if isinstance(found, Array):
            element = btf.resolve(found.type)
            if isinstance(element, Int) and element.size == 1 and not element.bool and size:
                return cls(name, found, size, 1)
        elif (isinstance(found, Int) and size in _SIZES) or (
            isinstance(found, Enum) and found.name == "libbpf_tristate"
        ):
            return cls(name, found, size, size)
        raise ObjectError.of(
            "bad-extern",
            f"kconfig variable {name} has a type that no option can have",
            where=".kconfig",
            suggestion="declare it bool, enum libbpf_tristate, char, an integer or char[N]",
        )

    def value(self, text: str) -> bytes:
        """What an option's text is in this variable. Raises ObjectError if it does not fit."""
        if text in _TRISTATE:
            return self._letter(text)
        if text[:1] == '"':
            return self._string(text)
        try:
            return self.number(int(text, 0))
        except ValueError:
            raise self._misfit(text, "an integer") from None

    def number(self, value: int) -> bytes:
        """A number; libbpf takes one only for integers and char."""
        found = self.type
        if not isinstance(found, Int) or found.bool:
            raise self._misfit(str(value), "an integer")
        if self.size == 8 and -(1 << 63) <= value < 0:
            value += 1 << 64  # libbpf does not look at the sign of 64 bits
        try:
            return value.to_bytes(self.size, "little", signed=found.signed and self.size < 8)
        except OverflowError:
            raise self._misfit(str(value), "a wider integer") from None

    def _letter(self, text: str) -> bytes:
        found = self.type
        if isinstance(found, Enum):
            return _TRISTATE[text].to_bytes(self.size, "little")
        if isinstance(found, Int) and found.size == 1:
            if found.bool and text != "m":
                return bytes([text == "y"])
            if not found.bool:
                return text.encode()
        raise self._misfit(text, "enum libbpf_tristate")

    def _string(self, text: str) -> bytes:
        """Without its quotes, cut off so that a NUL follows."""
        if not isinstance(self.type, Array):
            raise self._misfit(text, "char[N]")
        return text[1:-1].encode()[: self.size - 1].ljust(self.size, b"\0")

    def _misfit(self, value: str, wanted: str) -> ObjectError:
        return ObjectError.of(
            "bad-extern",
            f"{self.name} is {value}, which does not fit its variable",
            where=".kconfig",
            suggestion=f"declare it as {wanted}",
        )
