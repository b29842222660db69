"""`xdpbatch verify`: is it safe? No root, no kernel."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xdpbatch.cli.options import (
    BtfFile,
    FormatName,
    Json,
    Kconfig,
    OutputFormat,
    Pretty,
    ProgName,
    Quiet,
    Section,
    VerifyName,
)

if TYPE_CHECKING:
    from xdpbatch.findings import Finding
    from xdpbatch.program import Object, Program
    from xdpbatch.target import Target


def command(
    objects: Annotated[list[Path], typer.Argument(metavar="PROG.o...", help="Objects to verify.")],
    prog_name: ProgName = None,
    section: Section = None,
    btf: BtfFile = "",
    kconfig: Kconfig = "",
    verify: Annotated[
        VerifyName,
        typer.Option("--verify", help="guard: at run time; kernel: ask the running one (root)."),
    ] = VerifyName.strict,
    output_format: OutputFormat = FormatName.full,
    as_json: Json = False,
    pretty: Pretty = False,
    quiet: Quiet = False,
) -> None:
    """Prove every XDP program safe. Exit 0 accepted, 1 refused, 2 unreadable."""
    from xdpbatch.findings import FORMATS, as_object
    from xdpbatch.target import Target

    target = Target(btf, kconfig)
    status = 0
    findings: list[Finding] = []
    for path in objects:
        found, worst = _object(path, target, prog_name, section, verify)
        status = max(status, worst)
        findings += found
    if as_json or pretty:
        print(json.dumps(as_object(findings), indent=2 if pretty else None))
        raise SystemExit(status)
    text = FORMATS[output_format](findings)
    if output_format is FormatName.full:
        for finding in findings:
            for one in finding.diagnostics:
                print(one, file=sys.stderr)
        text = "" if quiet else text
    if text:
        print(text)
    raise SystemExit(status)


def _object(
    path: Path, target: Target, name: str | None, section: str | None, how: VerifyName
) -> tuple[list[Finding], int]:
    """The findings of one object's programs, and the exit status that they are worth."""
    from xdpbatch import elf
    from xdpbatch.errors import XdpBatchError
    from xdpbatch.findings import Finding
    from xdpbatch.runtime import select

    found: list[Finding] = []
    status = 0
    try:
        obj = elf.load(path, target=target)
        programs = select(obj, name, section)
    except XdpBatchError as error:
        return [Finding(str(path), diagnostics=error.diagnostics)], 2
    for program in programs:
        try:
            said, numbers = _accepted(obj, program, how)
            one = Finding(str(path), program.name, program.section, (), said, numbers)
        except XdpBatchError as error:
            one = Finding(str(path), program.name, program.section, error.diagnostics)
            status = max(status, error.status)
        found.append(one)
    return found, status


def _accepted(
    obj: Object, program: Program, how: VerifyName
) -> tuple[str, tuple[tuple[str, int], ...]]:
    """What is said of a program that is accepted. Raises VerifierError, UnsupportedError."""
    if how is VerifyName.kernel:
        from xdpbatch.sys.kernel import KernelObject

        KernelObject(obj).program(program.name)
        return "accepted by the kernel", ()
    if how is VerifyName.guard:
        from xdpbatch.rewrite.guard import guarded

        _, guards = guarded(obj, program.name)
        said = "accepted" + "".join(f"\n  guard: {guard}" for guard in guards)
        return said, (("guards", len(guards)),)
    from xdpbatch.verify.verdict import verdict

    walked = verdict(program).processed
    return f"accepted, {walked} instructions walked", (("processed", walked),)
