"""`xdpbatch bench`: what would batching buy MY program? Measurements that anyone can repeat."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xdpbatch.cli.options import (
    Backend,
    BackendName,
    BatchSize,
    Json,
    MapFiles,
    Pretty,
    ProgName,
    Quiet,
    Read,
    Section,
    Synth,
)

if TYPE_CHECKING:
    from xdpbatch.bench.method import Grid
    from xdpbatch.bench.subject import Subject

app = typer.Typer(
    help="What would batching buy? Interleaved rounds, medians with least and greatest.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Rounds = Annotated[int, typer.Option("--rounds", min=1, help="Turns of each case that count.")]
Plot = Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw it: .png or .svg.")]
Packets = Annotated[
    int, typer.Option("--packets", min=1, max=1 << 20, help="Packets that lie ready.")
]
Programs = Annotated[
    list[Path] | None, typer.Argument(metavar="[PROG.o]...", help="Objects; without: ours.")
]
Program = Annotated[
    Path | None, typer.Argument(metavar="[PROG.o]", help="An object; without: one of ours.")
]
Entries = Annotated[
    int | None, typer.Option("--entries", min=0, help="Table entries of our own programs.")
]
ROUNDS = 31


@app.command()
def boost(
    batch_size: BatchSize = 64,
    backend: Backend = BackendName.llvm,
    synth: Synth = None,
    alone: Annotated[
        bool, typer.Option("--alone", help="Program and call only, without the poll.")
    ] = False,
    rounds: Rounds = ROUNDS,
    plot: Plot = None,
    as_json: Json = False,
    pretty: Pretty = False,
    quiet: Quiet = False,
) -> None:
    """DROP, PASS, TX and REDIRECT, one by one against batched, with and without retpoline."""
    from xdpbatch.bench import boost as experiment

    spec = synth or experiment.SPEC
    grid = experiment.grid(batch_size=batch_size, backend=_native(backend), spec=spec, alone=alone)
    _finish(grid, rounds, plot, as_json, pretty, quiet)


@app.command()
def programs(
    prog: Programs = None,
    read: Read = None,
    synth: Synth = None,
    prog_name: ProgName = None,
    section: Section = None,
    maps: MapFiles = None,
    entries: Entries = None,
    batch_size: BatchSize = 64,
    packets: Packets = 256,
    kernel: Annotated[
        bool, typer.Option("--kernel/--no-kernel", help="BPF_PROG_TEST_RUN too (root).")
    ] = True,
    rounds: Rounds = ROUNDS,
    plot: Plot = None,
    as_json: Json = False,
    pretty: Pretty = False,
    quiet: Quiet = False,
) -> None:
    """Per program: batched, one by one, both backends, the kernel; alone and in the poll."""
    from dataclasses import replace

    from xdpbatch.bench import costs, subject

    if prog:
        chosen = {
            path.stem: replace(
                subject.known(path),
                path=path,
                name=prog_name,
                section=section,
                maps=tuple(maps or ()),
            )
            for path in prog
        }
    else:
        chosen = {**subject.FIVE, **subject.EXAMPLES}
    chosen = {name: subject.over(one, synth, read, entries) for name, one in chosen.items()}
    grid = costs.grid(chosen, packets=packets, batch_size=batch_size, kernel=kernel)
    _finish(grid, rounds, plot, as_json, pretty, quiet)


@app.command()
def sweep(
    prog: Program = None,
    batch_sizes: Annotated[
        str, typer.Option("-b", "--batch-size", metavar="N,...", help="Batch sizes; or one.")
    ] = "64",
    flows: Annotated[
        str | None, typer.Option("--flows", metavar="N,...", help="Flows of the traffic.")
    ] = None,
    table_entries: Annotated[
        str | None,
        typer.Option("--table-entries", metavar="N,...", help="Entries of our programs' tables."),
    ] = None,
    packets: Annotated[
        str | None, typer.Option("--packets", metavar="N,...", help="Packets that lie ready.")
    ] = None,
    read: Read = None,
    synth: Synth = None,
    prog_name: ProgName = None,
    section: Section = None,
    maps: MapFiles = None,
    backend: Backend = BackendName.llvm,
    rounds: Rounds = ROUNDS,
    plot: Plot = None,
    as_json: Json = False,
    pretty: Pretty = False,
    quiet: Quiet = False,
) -> None:
    """Where batching pays and where it stops: one thing varies, all else stays."""
    from xdpbatch.bench import sweep as experiment

    one = _subject(prog, "parse and hash map", synth, read, prog_name, section, maps)
    sizes = _numbers("--batch-size", batch_sizes)
    native = _native(backend)
    lists = [("--flows", flows), ("--table-entries", table_entries), ("--packets", packets)]
    given = [(name, _numbers(name, text)) for name, text in lists if text is not None]
    if len(given) + (len(sizes) > 1) != 1:
        raise _usage("vary one thing: -b 1,2,4,…, --flows, --table-entries or --packets")
    match given:
        case [("--flows", values)]:
            grid = experiment.by_flows(one, values, native, sizes[0])
        case [("--table-entries", values)]:
            grid = experiment.by_entries(one, values, native, sizes[0])
        case [("--packets", values)]:
            grid = experiment.by_packets(one, values, native, sizes[0])
        case _:
            grid = experiment.by_batch_size(one, sizes, native)
    _finish(grid, rounds, plot, as_json, pretty, quiet)


@app.command()
def prefetch(
    prog: Program = None,
    distances: Annotated[
        str, typer.Option("--distances", metavar="K,...", help="Packets ahead; 0 is none.")
    ] = "0,1,2,4,8,16",
    packets: Packets = 65536,
    read: Read = None,
    synth: Synth = None,
    prog_name: ProgName = None,
    section: Section = None,
    maps: MapFiles = None,
    rounds: Rounds = ROUNDS,
    plot: Plot = None,
    as_json: Json = False,
    pretty: Pretty = False,
    quiet: Quiet = False,
) -> None:
    """Question 1: the prefetch instruction, 0 to 16 packets ahead, cold and warm packets."""
    from xdpbatch.bench import prefetch as experiment

    one = _subject(prog, "parse and hash map", synth, read, prog_name, section, maps)
    grid = experiment.grid(one, _numbers("--distances", distances), packets)
    _finish(grid, rounds, plot, as_json, pretty, quiet)


@app.command()
def latency(
    table: Annotated[str, typer.Argument(metavar="hash|lb", help="Which program.")] = "hash",
    flows: Annotated[
        str, typer.Option("--flows", metavar="N,...", help="Flows; each has an entry.")
    ] = "1000,100000,1000000",
    widths: Annotated[
        str, typer.Option("--stage", metavar="N,...", help="Packets staged at a time.")
    ] = "8,16,32,64",
    zipf: Annotated[
        float, typer.Option("--zipf", min=0, help="Exponent of Zipf's law; 0 is uniform.")
    ] = 0.0,
    kernel: Annotated[
        bool, typer.Option("--kernel/--no-kernel", help="Of 4194304 flows the kernel too (root).")
    ] = False,
    rounds: Rounds = ROUNDS,
    plot: Plot = None,
    as_json: Json = False,
    pretty: Pretty = False,
    quiet: Quiet = False,
) -> None:
    """Tables larger than the caches: one by one, batched, and with --stage."""
    from xdpbatch.bench import latency as experiment

    if table not in experiment.TABLES:
        raise _usage(f"{table} is none of {', '.join(experiment.TABLES)}")
    numbers, staged = _numbers("--flows", flows), _numbers("--stage", widths)
    if min(numbers) < 1 or max(numbers) > experiment.MOST_FLOWS or min(staged) < 1:
        raise _usage(f"flows are 1 to {experiment.MOST_FLOWS}, packets to stage at least 1")
    grid = experiment.grid(table, numbers, staged, zipf, kernel=kernel)
    _finish(grid, rounds, plot, as_json, pretty, quiet)


@app.command()
def sort(
    batch_size: BatchSize = 64,
    rounds: Rounds = ROUNDS,
    plot: Plot = None,
    as_json: Json = False,
    pretty: Pretty = False,
    quiet: Quiet = False,
) -> None:
    """Question 4: sorted against unsorted actions, from all DROP to all TX."""
    from xdpbatch.bench import sort as experiment

    _finish(experiment.grid(batch_size=batch_size), rounds, plot, as_json, pretty, quiet)


@app.command()
def results(
    batch_size: BatchSize = 64,
    rounds: Rounds = ROUNDS,
    plot: Plot = None,
    as_json: Json = False,
    pretty: Pretty = False,
    quiet: Quiet = False,
) -> None:
    """The two designs for verdicts: a field of xdp_buff, or an array."""
    from xdpbatch.bench import designs as experiment

    _finish(experiment.grid(batch_size=batch_size), rounds, plot, as_json, pretty, quiet)


@app.command()
def afxdp(
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Floods of each case.")] = 7,
    plot: Plot = None,
    as_json: Json = False,
    pretty: Pretty = False,
    quiet: Quiet = False,
) -> None:
    """Question 5: AF_XDP on a veth pair, one by one against batched (root)."""
    from xdpbatch.bench import afxdp as experiment

    _finish(experiment.grid(), rounds, plot, as_json, pretty, quiet)


@app.command()
def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD.json")],
    new: Annotated[Path, typer.Argument(metavar="NEW.json")],
) -> None:
    """Two measurements of the same thing: what changed by more than the spread."""
    from xdpbatch.bench.compare import compare as lines
    from xdpbatch.bench.report import load

    print("\n".join(lines(load(old), load(new))))


def _subject(
    prog: Path | None,
    ours: str,
    synth: str | None,
    read: str | None,
    name: str | None,
    section: str | None,
    maps: list[str] | None,
) -> Subject:
    from dataclasses import replace

    from xdpbatch.bench import subject

    one = subject.known(prog) if prog else subject.FIVE[ours]
    one = replace(one, path=prog or one.path, name=name, section=section, maps=tuple(maps or ()))
    return subject.over(one, synth, read, None)


def _native(backend: BackendName) -> str:
    from xdpbatch.runtime import NATIVE

    if backend.value not in NATIVE:
        raise _usage(f"--backend {backend.value} is no machine code: {' or '.join(NATIVE)}")
    return backend.value


def _numbers(option: str, text: str) -> list[int]:
    numbers = [int(part) for part in text.split(",") if part.strip().isdecimal()]
    if len(numbers) != text.count(",") + 1:
        raise _usage(f"{option} {text} is no list of numbers: 1,2,4")
    return numbers


def _usage(what: str) -> Exception:
    from xdpbatch.errors import XdpBatchError

    return XdpBatchError.of("usage", what)


def _finish(
    grid: Grid, rounds: int, plot: Path | None, as_json: bool, pretty: bool, quiet: bool
) -> None:
    """Measure a grid and say what came of it."""
    from xdpbatch.bench import machine, report
    from xdpbatch.bench.method import measure

    warning = machine.warning()
    if warning and not quiet:
        print(f"warning: {warning}", file=sys.stderr)
    answer = report.Report(grid, measure(grid, rounds), rounds).as_object()
    if as_json or pretty:
        print(json.dumps(answer, indent=2 if pretty else None))
    else:
        print(report.text(answer))
    if plot is not None:
        from xdpbatch.bench.plot import plot as draw

        draw(answer, plot)
