"""One root exception, and the one shape in which every error is shown.

Like the kernel's `-EINVAL` plus verifier log, but as one value: what is wrong, where, why, and
what to do about it. The exit status of a command is the error's `status`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Source:
    """A place in a program's C source, from .BTF.ext line info. `line` and `col` count from 1."""

    file: str
    line: int
    col: int
    text: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One error: `code` is its stable kebab-case name (`xdpbatch explain CODE`)."""

    code: str
    message: str
    where: str = ""
    source: Source | None = None
    reason: str = ""
    suggestion: str = ""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The house format: summary, `-->` place, source line, reason, suggestion."""
        lines = [f"error[{self.code}]: {self.message}"]
        place = self.where
        if self.source:
            spot = f"{self.source.file}:{self.source.line}:{self.source.col}"
            place = f"{spot}   {place}" if place else spot
        if place:
            lines.append(f"  --> {place}")
        if self.source and self.source.text:
            lines.append(f"{self.source.line:>7} |  {self.source.text}")
        if self.reason:
            lines.append(f"  reason: {self.reason}")
        lines += [f"  note: {note}" for note in self.notes]
        if self.suggestion:
            lines.append(f"  suggestion: {self.suggestion}")
        return "\n".join(lines)


class XdpBatchError(Exception):
    """Root of all errors that a user can cause; carries one or more diagnostics."""

    status = 2

    def __init__(self, *diagnostics: Diagnostic) -> None:
        super().__init__("\n".join(map(str, diagnostics)))
        self.diagnostics = diagnostics

    @classmethod
    def of(
        cls, code: str, message: str, *, where: str = "", reason: str = "", suggestion: str = ""
    ) -> Self:
        """An error of this class with a single diagnostic."""
        return cls(Diagnostic(code, message, where=where, reason=reason, suggestion=suggestion))


class ObjectError(XdpBatchError):
    """The object file is not one that holds an XDP program, or lies about itself."""


class VerifierError(XdpBatchError):
    """The program is not proven safe. `index` is the instruction that is refused, -1 unknown."""

    status = 1
    index = -1


class MapError(XdpBatchError):
    """A map operation that the kernel would refuse; `errno` is what it would return."""

    def __init__(self, errno: int, *diagnostics: Diagnostic) -> None:
        super().__init__(*diagnostics)
        self.errno = errno


class CaptureError(XdpBatchError):
    """A capture that cannot be read or written."""


class UnsupportedError(XdpBatchError):
    """This machine or this version lacks what was asked for; the diagnostic names the remedy."""
