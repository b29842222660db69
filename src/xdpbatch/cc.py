"""Compiling C to a BPF object: `compile(source, output)`, with clang or else with zig's.

Analogous to the clang line in the kernel's samples/bpf/Makefile. The package ziglang brings a
clang that knows BPF as a wheel, so that no system package is needed. `#include "xdp.h"` finds the
examples' header, which replaces linux/bpf.h and bpf/bpf_helpers.h where they are not installed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from xdpbatch.errors import ObjectError, UnsupportedError

EXAMPLES = Path(__file__).parent / "examples"
FLAGS = ("-O2", "-g", "-mcpu=v3", "-Wall", "-fdebug-compilation-dir=.")
TIMEOUT = 120  # seconds


@dataclass(frozen=True, slots=True)
class Compiler:
    """A command that compiles C for BPF; `version` is its own first line."""

    name: str
    command: tuple[str, ...]
    version: str

    def __str__(self) -> str:
        return f"{self.name} ({self.version})"


@dataclass(frozen=True, slots=True)
class Compilation:
    """What was made, by which compiler, and what that said (warnings)."""

    output: Path
    compiler: Compiler
    messages: str


def compilers() -> Iterator[Compiler]:
    """Every compiler for BPF of this machine, the preferred one first."""
    for name in sorted(_clangs(), key=_number, reverse=True):
        targets = _output([name, "--print-targets"])
        if re.search(r"^\s*bpfel\b", targets, re.MULTILINE):
            version = _output([name, "--version"]).partition("\n")[0]
            yield Compiler(name, (name, "--target=bpfel"), version)
    if importlib.util.find_spec("ziglang"):
        zig = (sys.executable, "-m", "ziglang")
        command = (*zig, "cc", "-target", "bpfel-freestanding-none")
        yield Compiler("ziglang", command, f"zig {_output([*zig, 'version']).strip()}")


def compile(  # noqa: A001
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    compiler: Compiler | None = None,
    options: Sequence[str] = (),
) -> Compilation:
    """Compile one C file to a BPF object with type and line information.

    Raises UnsupportedError if there is no compiler, ObjectError with the compiler's own messages
    if it fails.
    """
    path, target = Path(source).absolute(), Path(output).absolute()
    compiler = compiler or find()
    try:
        result = subprocess.run(
            [
                *compiler.command,
                *FLAGS,
                *options,
                *_includes(),
                "-c",
                f"./{path.name}",
                "-o",
                target,
            ],
            cwd=path.parent,  # so that the object names the source without this machine's paths
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(path, compiler, str(error)) from None
    if result.returncode:
        raise _failed(path, compiler, result.stderr.strip())
    return Compilation(target, compiler, result.stderr)


def find() -> Compiler:
    """The preferred compiler."""
    found = next(compilers(), None)
    if found is None:
        raise UnsupportedError.of(
            "no-compiler",
            "no compiler for BPF was found",
            reason="neither clang nor the Python package ziglang is installed",
            suggestion="pip install xdpbatch[cc]",
        )
    return found


def _failed(path: Path, compiler: Compiler, why: str) -> ObjectError:
    return ObjectError.of(
        "compile-failed", f"{compiler} cannot compile {path.name}", where=str(path), reason=why
    )


def _clangs() -> set[str]:
    """The names clang and clang-NN in the search path."""
    names = {"clang"}
    for directory in os.get_exec_path():
        try:
            names |= {n for n in os.listdir(directory) if re.fullmatch(r"clang-\d+", n)}
        except OSError:
            continue
    return {name for name in names if shutil.which(name)}


def _number(name: str) -> int:
    return int(name.partition("-")[2] or 0)


def _output(command: Sequence[str]) -> str:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _includes() -> list[str]:
    """Where headers are looked for after the compiler's own places.

    A bare BPF target knows neither /usr/include nor Debian's directory for asm/types.h.
    """
    multiarch = sorted(str(p.parent) for p in Path("/usr/include").glob("*-linux-gnu/asm"))
    return [f"-idirafter{d}" for d in (str(EXAMPLES), "/usr/include", *multiarch[:1])]
