"""`xdpbatch test-run`: one packet, in bpftool's words (`bpftool prog run`)."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from xdpbatch.cli.options import (
    Backend,
    BackendName,
    BtfFile,
    ClockOption,
    DumpMaps,
    EgressIfindex,
    HostOption,
    Ifindex,
    Json,
    Kconfig,
    MapFiles,
    Meta,
    ObjectFile,
    Pretty,
    ProgName,
    RxQueue,
    Section,
    Seed,
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
    map: MapFiles = None,
    dump_maps: DumpMaps = None,
    btf: BtfFile = "",
    kconfig: Kconfig = "",
    host: HostOption = "",
    ifindex: Ifindex = 1,
    rx_queue: RxQueue = 0,
    egress_ifindex: EgressIfindex = 0,
    meta: Meta = "",
    clock: ClockOption = "real",
    seed: Seed = 0,
    as_json: Json = False,
    pretty: Pretty = False,
) -> None:
    """Run a program on one packet: retval, and the average duration in ns."""
    from xdpbatch import api, map_file
    from xdpbatch.context import Clock, Context, metadata
    from xdpbatch.data import chance
    from xdpbatch.errors import XdpBatchError
    from xdpbatch.host.choice import host_for
    from xdpbatch.job import require_own_maps

    try:
        data = sys.stdin.buffer.read() if data_in == "-" else Path(data_in).read_bytes()
    except OSError as error:
        raise XdpBatchError.of("unreadable", f"{data_in}: {error.strerror}") from None
    context = Context(
        ifindex, rx_queue, egress_ifindex, metadata(meta), Clock.parse(clock, has_times=False), seed
    )
    with chance.seeded(seed):
        collection = api.load(prog, btf=btf, kconfig=kconfig)
    if host:
        context = replace(context, host=host_for(collection.object, host))
    program = collection.program(prog_name, section)
    runnable = program.compile(batch_size=1, backend=backend.value, context=context)
    require_own_maps(backend.value, bool(map or dump_maps))
    map_file.fill_all(runnable.maps, map_file.assignments(map or ()), str(prog))
    outcome = runnable.test_run(data, repeat)
    if dump_maps is not None:
        map_file.write(map_file.dump_all(runnable.maps, collection.object.btf), dump_maps)
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
    where = sys.stderr if "-" in (data_out, dump_maps) else sys.stdout
    print(
        f"Return value: {outcome.verdict}, duration (average): {outcome.duration_ns:.0f}ns",
        file=where,
    )
