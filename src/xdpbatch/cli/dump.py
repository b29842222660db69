"""`xdpbatch dump`: a program at each stage between the object and the machine."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from xdpbatch.cli import options
from xdpbatch.cli.options import (
    Backend,
    BackendName,
    BtfFile,
    Kconfig,
    Layout,
    LayoutName,
    ObjectFile,
    PocFixed,
    Prefetch,
    ProgName,
    Results,
    ResultsName,
    Section,
)


class Stage(StrEnum):
    """What to show."""

    raw = "raw"
    xlated = "xlated"
    batched = "batched"
    slices = "slices"
    llvm = "llvm"
    jited = "jited"


def command(
    stage: Annotated[Stage, typer.Argument(help="Which stage.")],
    prog: ObjectFile,
    prog_name: ProgName = None,
    section: Section = None,
    layout: Layout = LayoutName.batch,
    results: Results = ResultsName.buff,
    prefetch: Prefetch = 0,
    poc_fixed: PocFixed = False,
    window: options.Stage = "off",
    backend: Backend = BackendName.llvm,
    btf: BtfFile = "",
    kconfig: Kconfig = "",
    opcodes: Annotated[bool, typer.Option("--opcodes", help="Show the bytes too.")] = False,
) -> None:
    """Show a program as loaded, rewritten, batched, as LLVM IR or as machine code."""
    from xdpbatch import dump, elf, rewrite
    from xdpbatch.rewrite.form import Form, stage_of
    from xdpbatch.runtime import the_program
    from xdpbatch.target import Target

    program = the_program(elf.load(prog, target=Target(btf, kconfig)), prog_name, section)
    form = Form(
        rewrite.Layout(layout.value),
        rewrite.Results(results.value),
        prefetch,
        poc_fixed,
        stage_of(window),
    )
    for line in dump.lines(program, stage.value, form, backend.value, opcodes):
        print(line)
