"""`xdpbatch compare`: do all ways to run a program agree?"""

from __future__ import annotations

import json
from itertools import islice
from typing import Annotated

import typer

from xdpbatch.cli.options import (
    Backend,
    BackendName,
    BtfFile,
    Count,
    HostOption,
    Json,
    Kconfig,
    MapFiles,
    ObjectFile,
    Pretty,
    ProgName,
    Read,
    Section,
    Synth,
)


def command(
    prog: ObjectFile,
    read: Read = None,
    synth: Synth = None,
    against: Annotated[
        str, typer.Option("--against", metavar="SIDES", help="Of interp, single, x86, kernel.")
    ] = "interp,single",
    batch_sizes: Annotated[
        str, typer.Option("-b", "--batch-size", metavar="N,...", help="Batch sizes to run.")
    ] = "1,2,3,63,64,65,256",
    prog_name: ProgName = None,
    section: Section = None,
    backend: Backend = BackendName.llvm,
    map: MapFiles = None,
    btf: BtfFile = "",
    kconfig: Kconfig = "",
    host: HostOption = "",
    count: Count = None,
    as_json: Json = False,
    pretty: Pretty = False,
) -> None:
    """Same verdicts, bytes and maps? Exit 1 with the first difference."""
    from xdpbatch import elf, map_file
    from xdpbatch.compare import compare, contents_of
    from xdpbatch.errors import XdpBatchError
    from xdpbatch.job import no_source
    from xdpbatch.packets import Capture, Synthetic
    from xdpbatch.runtime import Instance, the_program
    from xdpbatch.target import Target

    try:
        sizes = [int(size) for size in batch_sizes.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1 or max(sizes) > 4095:
        raise XdpBatchError.of(
            "usage", f"-b {batch_sizes} is no list of batch sizes", suggestion="-b 1,2,64"
        )
    obj = elf.load(prog, target=Target(btf, kconfig))
    program = the_program(obj, prog_name, section)
    if (read is None) == (synth is None):
        raise no_source()
    start = Instance(obj)
    filled = map_file.fill_all(start.views(), map_file.assignments(map or ()), str(prog))
    source = Capture(read) if read is not None else Synthetic(synth or "")
    done = compare(
        obj,
        islice(source, count),
        name=program.name,
        against=against.split(","),
        batch_sizes=sizes,
        backend=backend.value,
        host=host,
        entries={name: contents_of(start.maps[name]) for name in sorted(filled)},
    )
    skipped = dict(source.skipped)
    for reason, packets in done.skipped.items():
        skipped[reason] = skipped.get(reason, 0) + packets
    if as_json or pretty:
        answer = {
            "schema": 1,
            "program": program.name,
            "sides": done.sides,
            "packets": done.packets,
            "skipped": skipped,
            "notes": done.notes,
            "difference": str(done.difference) if done.difference else None,
        }
        print(json.dumps(answer, indent=2 if pretty else None))
    else:
        print(f"{program.name}: {', '.join(done.sides)}")
        for note in done.notes:
            print(f"note: {note}")
        for reason, packets in skipped.items():
            print(f"skipped: {packets} {reason}")
        print(f"{done.packets} packets: {done.difference or 'no difference'}")
    if done.difference:
        raise SystemExit(1)
