"""How a refusal is said: the house format's diagnostic of what a path ran into.

Analogous to the kernel's verbose() log, but as one value. `Refusal` is raised by whatever checks an
instruction and knows nothing of places; `diagnose` adds where, the source line and the path.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdpbatch.disasm import disassemble
from xdpbatch.errors import Diagnostic, VerifierError
from xdpbatch.program import Program
from xdpbatch.verify.state import Path, Value

PATH_STEPS = 8  # decisions shown, the last ones


class Refusal(Exception):  # noqa: N818 - the verdict, not a failure
    """Something is not proven: code, summary, and the house format's reason and suggestion."""

    def __init__(self, code: str, message: str, reason: str = "", suggestion: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.suggestion = suggestion


def reg(number: int, value: Value | None) -> str:
    """A register with its contents: `r2 is packet+14`."""
    return f"r{number} is {value if value is not None else 'not initialised'}"


def place(program: Program, index: int) -> str:
    """`insn 17, program xdp_fw (section xdp)`, with the function if it is another one."""
    function = ""
    if len(program.subprogs) > 1 and 0 <= index < len(program.insns):
        name = program.subprog_at(index).name
        function = f" in {name}()" if name != program.name else ""
    return f"insn {index}{function}, program {program.name} (section {program.section})"


def diagnose(
    program: Program, index: int, refusal: Refusal, path: Path | None = None
) -> VerifierError:
    """The error of `refusal` at instruction `index`, reached by `path`."""
    inside = 0 <= index < len(program.insns)
    error = VerifierError(
        Diagnostic(
            refusal.code,
            refusal.message,
            where=place(program, index),
            source=program.source_at(index) if inside else None,
            reason=refusal.reason,
            suggestion=refusal.suggestion,
            notes=tuple(_path(program, path)),
        )
    )
    error.index = index
    return error


def _path(program: Program, path: Path | None) -> Sequence[str]:
    steps: list[str] = []
    texts = disassemble(program.insns) if path else []
    while path is not None and len(steps) < PATH_STEPS:
        source = program.source_at(path.index)
        line = f" ({source.file}:{source.line})" if source else ""
        outcome = "taken" if path.taken else "not taken"
        steps.append(f"insn {path.index}{line}: {texts[path.index]}: {outcome}")
        path = path.before
    if path is not None:
        steps.append("(earlier decisions left out)")
    return steps[::-1]
