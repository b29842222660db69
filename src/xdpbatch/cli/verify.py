"""`xdpbatch verify`: is it safe? No root, no kernel."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from xdpbatch.cli.options import BtfFile, Json, Kconfig, Pretty, ProgName, Quiet, Section


def command(
    objects: Annotated[list[Path], typer.Argument(metavar="PROG.o...", help="Objects to verify.")],
    prog_name: ProgName = None,
    section: Section = None,
    btf: BtfFile = "",
    kconfig: Kconfig = "",
    as_json: Json = False,
    pretty: Pretty = False,
    quiet: Quiet = False,
) -> None:
    """Prove every XDP program safe. Exit 0 accepted, 1 refused, 2 unreadable."""
    from xdpbatch import elf
    from xdpbatch.errors import VerifierError, XdpBatchError
    from xdpbatch.runtime import select
    from xdpbatch.target import Target
    from xdpbatch.verify.verdict import verdict

    status, target = 0, Target(btf, kconfig)
    results: list[dict[str, object]] = []
    for path in objects:
        try:
            programs = select(elf.load(path, target=target), prog_name, section)
        except XdpBatchError as error:
            print(error, file=sys.stderr)
            status = 2
            results.append({"object": str(path), "accepted": False, "error": str(error)})
            continue
        for program in programs:
            result: dict[str, object] = {"object": str(path), "program": program.name}
            result["section"] = program.section
            try:
                verified = verdict(program)
            except VerifierError as error:
                print(error, file=sys.stderr)
                status = max(status, 1)
                results.append({**result, "accepted": False, "error": str(error)})
                continue
            results.append({**result, "accepted": True, "processed": verified.processed})
    if as_json or pretty:
        report = {"schema": 1, "programs": results}
        print(json.dumps(report, indent=2 if pretty else None))
    elif not quiet:
        for result in results:
            name = result.get("program", "-")
            said = (
                f"accepted, {result['processed']} instructions walked"
                if result["accepted"]
                else "refused"
            )
            print(f"{result['object']}: {name}: {said}")
    raise SystemExit(status)
