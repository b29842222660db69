"""`xdpbatch run`: the main job. An unmodified object over a capture or synthetic traffic."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from xdpbatch.cli.options import (
    AttachMode,
    Backend,
    BackendName,
    BatchSize,
    BtfFile,
    ClockOption,
    CopyModeName,
    CopyModeOption,
    Count,
    DumpMaps,
    Duration,
    EgressIfindex,
    EventsFile,
    Extended,
    HostOption,
    Ifindex,
    Interfaces,
    Interval,
    Json,
    Kconfig,
    Layout,
    LayoutName,
    MapFiles,
    Meta,
    ModeName,
    ObjectFile,
    PocFixed,
    Prefetch,
    Pretty,
    ProgName,
    Queues,
    Quiet,
    Read,
    Results,
    ResultsName,
    RxQueue,
    Section,
    Seed,
    Stage,
    Synth,
    Verify,
    VerifyName,
    Write,
)


def command(
    prog: ObjectFile,
    read: Read = None,
    interface: Interfaces = None,
    synth: Synth = None,
    write: Write = None,
    prog_name: ProgName = None,
    section: Section = None,
    batch_size: BatchSize = 64,
    backend: Backend = BackendName.llvm,
    layout: Layout = LayoutName.batch,
    results: Results = ResultsName.buff,
    prefetch: Prefetch = 0,
    stage: Stage = "off",
    poc_fixed: PocFixed = False,
    one_by_one: Annotated[
        bool,
        typer.Option("--one-by-one", help="Run and act packet by packet, without a trampoline."),
    ] = False,
    retpoline: Annotated[
        bool, typer.Option("--retpoline", help="One by one: call through a retpoline.")
    ] = False,
    baseline: Annotated[
        bool,
        typer.Option("--baseline", help="Also measure one by one, in turns with batched."),
    ] = False,
    targets: Annotated[
        int, typer.Option("--targets", min=0, max=1024, help="Loop ports 1..N for redirects.")
    ] = 8,
    queue: Queues = "all",
    mode: AttachMode = ModeName.native,
    copy_mode: CopyModeOption = CopyModeName.auto,
    to: Annotated[
        list[str] | None,
        typer.Option("--to", metavar="IFACE", help="Live: may be redirected to; repeatable."),
    ] = None,
    duration: Duration = None,
    interval: Interval = 1.0,
    extended: Extended = False,
    ring_size: Annotated[
        int, typer.Option("--ring-size", min=64, help="Live: entries of each ring.")
    ] = 2048,
    flush_each: Annotated[
        bool, typer.Option("--flush-each", help="Live, one by one: send after every packet.")
    ] = False,
    pin: Annotated[bool, typer.Option("--pin", help="Live: each thread to one CPU.")] = False,
    spin: Annotated[bool, typer.Option("--spin", help="Live: never sleep.")] = False,
    busy_poll: Annotated[
        bool, typer.Option("--busy-poll", help="Live: run the driver's NAPI ourselves.")
    ] = False,
    user: Annotated[
        str | None,
        typer.Option("--user", metavar="NAME", help="Live: become that user once set up."),
    ] = None,
    verify: Verify = VerifyName.strict,
    map: MapFiles = None,
    dump_maps: DumpMaps = None,
    events: EventsFile = None,
    btf: BtfFile = "",
    kconfig: Kconfig = "",
    host: HostOption = "",
    count: Count = None,
    ifindex: Ifindex = 1,
    rx_queue: RxQueue = 0,
    egress_ifindex: EgressIfindex = 0,
    meta: Meta = "",
    clock: ClockOption = "real",
    seed: Seed = 0,
    as_json: Json = False,
    pretty: Pretty = False,
    quiet: Quiet = False,
) -> None:
    """Run a program over packets, batched, as native code. Root only for live interfaces."""
    from xdpbatch import map_file, rewrite
    from xdpbatch.context import Clock, Context, metadata
    from xdpbatch.errors import XdpBatchError
    from xdpbatch.job import Job, measure_baseline, no_source, run
    from xdpbatch.report import report
    from xdpbatch.rewrite.form import Form, stage_of
    from xdpbatch.target import Target

    if [read, synth, interface].count(None) != 2:
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
        context=Context(
            ifindex,
            rx_queue,
            egress_ifindex,
            metadata(meta),
            Clock.parse(clock, not interface),
            seed,
        ),
        trampoline=Form(
            rewrite.Layout(layout.value),
            rewrite.Results(results.value),
            prefetch,
            poc_fixed,
            stage_of(stage),
        ),
        retpoline=retpoline,
        target=Target(btf, kconfig),
        host=host,
        fills=map_file.assignments(map or ()),
        dump=dump_maps is not None,
        verify=verify.value,
        events=("" if quiet else "trace") if events is None else events,
    )
    if interface:
        if verify is VerifyName.guard:
            raise XdpBatchError.of("usage", "--verify guard is for captures and synthetic traffic")
        if ifindex != 1 or rx_queue or egress_ifindex or meta:
            raise XdpBatchError.of(
                "usage",
                "a live interface has its own ctx fields, and no --meta",
                suggestion="leave out --ifindex, --rx-queue, --egress-ifindex and --meta",
            )
        from xdpbatch.live import Setup
        from xdpbatch.live_run import LiveJob, parse_queues
        from xdpbatch.live_run import run as run_live
        from xdpbatch.sys.link import Mode
        from xdpbatch.sys.xsk import CopyMode

        setup = Setup(
            interfaces=interface,
            to=to or (),
            queues=parse_queues(queue),
            mode=Mode(mode.value),
            copy_mode=CopyMode(copy_mode.value),
            batch_size=batch_size,
            ring_size=ring_size,
            single=one_by_one,
            flush_each=flush_each,
            pin=pin,
            spin=spin,
            busy_poll=busy_poll,
            context=job.context,
        )
        how = LiveJob(job, setup, duration, interval, extended, as_json or pretty, quiet, user)
        maps = run_live(how)
        if dump_maps is not None and maps is not None:
            map_file.write(maps, dump_maps)
        return
    done = run(job, progress=not quiet and sys.stderr.isatty())
    if dump_maps is not None and done.maps is not None and not (dump_maps == "-" and as_json):
        map_file.write(done.maps, dump_maps)
    out = sys.stderr if "-" in (write, dump_maps, events) and not as_json else sys.stdout
    print(report(done, as_json=as_json or pretty, pretty=pretty), file=out)
    if baseline:
        line = measure_baseline(job)
        print(line, file=sys.stderr if as_json or pretty else out)
    if done.error is not None:
        raise done.error
    if done.interrupted:
        raise SystemExit(130)
