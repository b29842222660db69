"""`xdpbatch compile`: C to an object, with whatever compiler there is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def command(
    source: Annotated[Path, typer.Argument(metavar="PROG.c", help="C source of an XDP program.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Object to write; default PROG.o.")
    ] = None,
) -> None:
    """Compile C to a BPF object: clang if found, else ziglang from pip."""
    from xdpbatch import cc

    target = output or source.with_suffix(".o")
    compiler = cc.compile(source, target)
    print(f"{target}: compiled by {compiler}", file=sys.stderr)
