"""Every measurement: `python -m xdpbatch.bench [--document FILE.md] [--output DIR] [NAME …]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from xdpbatch.bench import document
from xdpbatch.bench.method import ROUNDS
from xdpbatch.errors import XdpBatchError


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m xdpbatch.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(document.EXPERIMENTS))
    parser.add_argument("--document", type=Path, help="write tables and pictures into it too")
    parser.add_argument("--output", type=Path, default=Path("build/bench"), help="for JSON")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    unknown = set(given.names) - document.EXPERIMENTS.keys()
    if unknown:
        parser.error(f"no such experiment: {', '.join(sorted(unknown))}")
    names = given.names or list(document.EXPERIMENTS)
    document.run(names, given.output, given.document, given.rounds)


if __name__ == "__main__":
    try:
        main()
    except XdpBatchError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.status) from None
