"""`xdpbatch features`: what this machine and this version can do."""

from __future__ import annotations

import json

from xdpbatch.cli.options import Interfaces, Json, Pretty


def command(interface: Interfaces = None, as_json: Json = False, pretty: Pretty = False) -> None:
    """Show what this machine, or an interface, allows, and the remedy for what it does not."""
    from xdpbatch import features
    from xdpbatch.helpers import helpers
    from xdpbatch.maps import map_types

    found = list(features.machine())
    for name in interface or ():
        found += features.interface(name)
    helper_names = {number: h.name for number, h in sorted(helpers().items())}
    map_names = {number: m.name for number, m in sorted(map_types().items())}
    if as_json or pretty:
        report = {
            "schema": 1,
            "machine": [
                {"name": f.name, "ok": f.ok, "detail": f.detail, "remedy": f.remedy} for f in found
            ],
            "helpers": helper_names,
            "map_types": map_names,
        }
        print(json.dumps(report, indent=2 if pretty else None))
        return
    for feature in found:
        answer = "yes" if feature.ok else "no "
        remedy = f"   ({feature.remedy})" if feature.remedy else ""
        print(f"{feature.name:<16} {answer}  {feature.detail}{remedy}")
    print(f"\nmap types ({len(map_names)}): " + ", ".join(map_names.values()))
    print(f"\nhelpers ({len(helper_names)}): " + ", ".join(helper_names.values()))
