"""`xdpbatch run`: the main job. An unmodified object over a capture or synthetic traffic."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from xdpbatch.cli.options import (
    Backend,
    BackendName,
    BatchSize,
    Count,
    Json,
    ObjectFile,
    Pretty,
    ProgName,
    Quiet,
    Read,
    Section,
    Synth,
    Write,
)


def command(
    prog: ObjectFile,
    read: Read = None,
    synth: Synth = None,
    write: Write = None,
    prog_name: ProgName = None,
    section: Section = None,
    batch_size: BatchSize = 64,
    backend: Backend = BackendName.llvm,
    one_by_one: Annotated[
        bool, typer.Option("--one-by-one", help="Run, act and flush packet by packet.")
    ] = False,
    baseline: Annotated[
        bool,
        typer.Option("--baseline", help="Also measure one by one, in turns with batched."),
    ] = False,
    targets: Annotated[
        int, typer.Option("--targets", min=0, max=1024, help="Loop ports 1..N for redirects.")
    ] = 8,
    count: Count = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of get_prandom_u32; 0 is none.")] = 0,
    as_json: Json = False,
    pretty: Pretty = False,
    quiet: Quiet = False,
) -> None:
    """Run a program over packets, batched, as native code. No root, no kernel."""
    from xdpbatch.job import Job, measure_baseline, no_source, run
    from xdpbatch.report import report

    if (read is None) == (synth is None):
        raise no_source()
    job = Job(
        path=Path(prog),
        name=prog_name,
        section=section,
        read=read,
        synth=synth,
        write=write,
        backend=backend.value,
        batch_size=batch_size,
        single=one_by_one,
        targets=targets,
        count=count,
        seed=seed,
    )
    done = run(job, progress=not quiet and sys.stderr.isatty())
    out = sys.stderr if write == "-" else sys.stdout
    print(report(done, as_json=as_json or pretty, pretty=pretty), file=out)
    if baseline:
        line = measure_baseline(job)
        print(line, file=sys.stderr if as_json or pretty else out)
    if done.error is not None:
        raise done.error
    if done.interrupted:
        raise SystemExit(130)
