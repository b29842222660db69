"""`xdpbatch features`: what this machine and this version can do."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from xdpbatch.cli.options import Json, Pretty


def command(
    dump_host: Annotated[
        bool, typer.Option("--dump-host", help="Write what --host FILE reads, from this kernel.")
    ] = False,
    as_json: Json = False,
    pretty: Pretty = False,
) -> None:
    """Show what this machine allows, what programs may use, and the remedy for what is missing."""
    from xdpbatch import compatibility, features

    if dump_host:
        from xdpbatch.host import file, netlink

        print(json.dumps(file.write(netlink.snapshot()), indent=2 if pretty else None))
        return
    found = list(features.machine())
    if as_json or pretty:
        machine = [asdict(feature) for feature in found]
        report = {"schema": 1, "machine": machine, **compatibility.as_object()}
        print(json.dumps(report, indent=2 if pretty else None))
        return
    for feature in found:
        answer = "yes" if feature.ok else "no "
        remedy = f"   ({feature.remedy})" if feature.remedy else ""
        print(f"{feature.name:<16} {answer}  {feature.detail}{remedy}")
    for kind, items in compatibility.everything().items():
        print(f"\n{kind}: {sum(item.supported for item in items)} of {len(items)}")
        for item in items:
            answer = "yes" if item.supported else "no "
            print(f"  {item.name:<32} {answer}  {item.note}".rstrip())
