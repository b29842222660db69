"""`xdpbatch map`: the maps of a program that runs on a live interface."""

from __future__ import annotations

from typing import Annotated

import typer

from xdpbatch.cli.options import DumpMaps


def command(
    interface: Annotated[
        str, typer.Option("-i", "--interface", metavar="IFACE", help="Where the program runs.")
    ],
    map: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="[NAME=]FILE", help="Contents to enter, as JSON."),
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option("--remove", metavar="NAME=FILE", help="Keys to remove, a JSON list."),
    ] = None,
    dump_maps: DumpMaps = None,
) -> None:
    """Enter, remove and show elements while the program runs. Without options: show all maps."""
    from xdpbatch import map_file
    from xdpbatch.control import ask

    fills = []
    for name, path in map_file.assignments(map or ()):
        contents = map_file.read(path)
        fills += [(name, contents)] if name else map_file.by_name(contents, path)
    removals = [(n, map_file.read(path)) for n, path in map_file.assignments(remove or ())]
    if not fills and not removals:
        dump_maps = dump_maps or "-"
    maps = ask(interface, fills, removals, dump_maps is not None)
    if dump_maps is not None:
        map_file.write(maps, dump_maps)
