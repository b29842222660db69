"""`xdpbatch test-run`: one packet, in bpftool's words (`bpftool prog run`)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from xdpbatch.cli.options import (
    Backend,
    BackendName,
    Json,
    ObjectFile,
    Pretty,
    ProgName,
    Section,
)


def command(
    prog: ObjectFile,
    data_in: Annotated[
        str, typer.Option("--data-in", metavar="FILE", help="The packet's bytes, `-` for stdin.")
    ],
    data_out: Annotated[
        str | None, typer.Option("--data-out", metavar="FILE", help="Write the packet after it.")
    ] = None,
    repeat: Annotated[int, typer.Option("--repeat", min=1, help="How often to run it.")] = 1,
    prog_name: ProgName = None,
    section: Section = None,
    backend: Backend = BackendName.llvm,
    as_json: Json = False,
    pretty: Pretty = False,
) -> None:
    """Run a program on one packet: retval, and the average duration in ns."""
    from xdpbatch import api
    from xdpbatch.errors import XdpBatchError

    try:
        data = sys.stdin.buffer.read() if data_in == "-" else Path(data_in).read_bytes()
    except OSError as error:
        raise XdpBatchError.of("unreadable", f"{data_in}: {error.strerror}") from None
    program = api.load(prog).program(prog_name, section)
    runnable = program.compile(batch_size=1, backend=backend.value)
    outcome = runnable.test_run(data, repeat)
    if data_out is not None:
        try:
            if data_out == "-":
                sys.stdout.buffer.write(outcome.data)
            else:
                Path(data_out).write_bytes(outcome.data)
        except OSError as error:
            raise XdpBatchError.of("unwritable", f"{data_out}: {error.strerror}") from None
    if as_json or pretty:
        answer = {"retval": outcome.verdict, "duration": round(outcome.duration_ns)}
        print(json.dumps(answer, indent=2 if pretty else None))
        return
    where = sys.stderr if data_out == "-" else sys.stdout
    print(
        f"Return value: {outcome.verdict}, duration (average): {outcome.duration_ns:.0f}ns",
        file=where,
    )
