"""All measurements in one go, and docs/results.md with its tables and pictures made anew.

Analogous to the Makefile target of a paper. Each experiment has a name; its table stands in the
document between `<!-- NAME -->` and `<!-- /NAME -->`, its picture in img/NAME.png beside it, its
JSON in a directory of its own.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from xdpbatch.bench import (
    afxdp,
    boost,
    costs,
    designs,
    machine,
    prefetch,
    report,
    sort,
    stores,
    sweep,
    targets,
)
from xdpbatch.bench.method import ROUNDS, Grid, measure
from xdpbatch.bench.subject import EXAMPLES, FIVE
from xdpbatch.errors import XdpBatchError

Make = Callable[[], Grid]
HASH, LB = FIVE["parse and hash map"], EXAMPLES["lb"]

EXPERIMENTS: dict[str, Make] = {
    "boost": boost.grid,
    "boost-alone": lambda: boost.grid(alone=True),
    "five": lambda: costs.grid(FIVE),
    "examples": lambda: costs.grid(EXAMPLES),
    "batch-size": lambda: sweep.by_batch_size(HASH),
    "flows": lambda: sweep.by_flows(HASH, [1, 10, 100, 1000, 10_000, 100_000]),
    "table-entries": lambda: sweep.by_entries(HASH, [1000, 4096, 16_384, 65_536]),
    "packets": lambda: sweep.by_packets(HASH, [64, 256, 1024, 4096, 16_384, 65_536]),
    "prefetch": lambda: prefetch.grid(HASH, [0, 1, 2, 4, 8, 16], 65_536),
    "sort": sort.grid,
    "results": designs.grid,
    "stores": stores.grid,
    "afxdp": afxdp.grid,
}
SLOW = {"afxdp": 7}  # rounds of what takes long


def run(names: list[str], output: Path, document: Path | None, rounds: int = ROUNDS) -> None:
    """Measure; JSON goes to the directory `output`. `document` None: nothing else is written."""
    warning = machine.warning()
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    output.mkdir(parents=True, exist_ok=True)
    found: dict[str, report.Answer] = {}
    for name in names:
        try:
            answer = measured(name, min(rounds, SLOW.get(name, rounds)))
        except XdpBatchError as error:
            print(f"{name}: not measured\n{error}\n", file=sys.stderr)
            continue
        found[name] = answer
        (output / f"{name}.json").write_text(json.dumps(answer, indent=1) + "\n")
        print(report.text(answer), end="\n\n", flush=True)
        if document is not None:
            write(name, answer, document)
    if document is not None and {"five", "boost"} <= found.keys():
        table = targets.markdown(found["five"], found["boost"])
        document.write_text(replaced(document.read_text(), "targets", table))


def measured(name: str, rounds: int) -> report.Answer:
    """One experiment."""
    grid = EXPERIMENTS[name]()
    return report.Report(grid, measure(grid, rounds), rounds).as_object()


def write(name: str, answer: report.Answer, document: Path) -> None:
    """Put table and picture of an experiment into the document. Raises XdpBatchError."""
    from xdpbatch.bench.plot import plot

    picture = document.parent / "img" / f"{name}.png"
    picture.parent.mkdir(exist_ok=True)
    plot(answer, picture)
    table = f"{report.markdown(answer)}\n\n![{answer['title']}](img/{name}.png)"
    document.write_text(replaced(document.read_text(), name, table))


def replaced(text: str, name: str, block: str) -> str:
    """The text with what stands between a name's two marks replaced."""
    first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
    pattern = re.compile(f"{re.escape(first)}.*?{re.escape(last)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise XdpBatchError.of("no-place", f"the document has not one place for {name}: {first}")
    return pattern.sub(lambda _: f"{first}\n{block}\n{last}", text)
