"""`xdpbatch dump`: a program at each stage between the object and the machine."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from xdpbatch.cli.options import Backend, BackendName, ObjectFile, ProgName, Section


class Stage(StrEnum):
    """What to show."""

    raw = "raw"
    xlated = "xlated"
    batched = "batched"
    llvm = "llvm"
    jited = "jited"


class LayoutName(StrEnum):
    """How the program is called."""

    single = "single"
    batch = "batch"
    poc = "poc"


def command(
    stage: Annotated[Stage, typer.Argument(help="Which stage.")],
    prog: ObjectFile,
    prog_name: ProgName = None,
    section: Section = None,
    layout: Annotated[
        LayoutName, typer.Option("--layout", help="batch, or poc: exactly the slides' form.")
    ] = LayoutName.batch,
    backend: Backend = BackendName.llvm,
    opcodes: Annotated[bool, typer.Option("--opcodes", help="Show the bytes too.")] = False,
) -> None:
    """Show a program as loaded, rewritten, batched, as LLVM IR or as machine code."""
    from xdpbatch import dump, elf
    from xdpbatch.rewrite import Layout
    from xdpbatch.runtime import the_program

    program = the_program(elf.load(prog), prog_name, section)
    for line in dump.lines(program, stage.value, Layout(layout.value), backend.value, opcodes):
        print(line)
