"""A measurement as a picture: bars for things by name, lines where the rows are numbers.

Analogous to the plots of perf's and DPDK's reports. Error bars are what 8 of 10 rounds lie within;
hatching and markers tell the columns apart in black and white. Needs matplotlib (extra `plot`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xdpbatch.bench.method import columns, rows
from xdpbatch.bench.report import Answer, cells
from xdpbatch.errors import UnsupportedError, XdpBatchError

HATCHES = ("", "///", "...", "xxx", "\\\\\\", "ooo", "+++", "---", "***")
MARKERS = "osD^vxP*+"
STYLES = ("-", "--", ":", "-.")
GREYS = ("0.25", "0.75", "0.5", "0.9", "0.4", "0.65", "0.85", "0.3", "0.6")


def plot(answer: Answer, path: Path) -> None:
    """Draw a measurement into a .png or .svg. Raises UnsupportedError without matplotlib."""
    if path.suffix not in (".png", ".svg"):
        raise XdpBatchError.of("usage", f"{path} is no .png or .svg", suggestion="--plot out.svg")
    try:
        import matplotlib
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        raise UnsupportedError.of(
            "no-matplotlib", "plots need matplotlib", suggestion="pip install 'xdpbatch[plot]'"
        ) from None
    matplotlib.rcParams["svg.hashsalt"] = "xdpbatch"  # the same figures, the same file
    matplotlib.rcParams["svg.fonttype"] = "none"  # text as text
    canvas = Canvas(figsize=(9, 5), layout="constrained")
    axes = canvas.add_subplot()
    found = cells(answer)
    names = rows(list(found))
    draw = _lines if all(name.isdecimal() for name in names) else _bars
    draw(axes, found, names, columns(list(found)))
    axes.set_title(answer["title"])
    axes.set_xlabel(answer["axis"])
    axes.set_ylabel("ns per packet (CPU time; median, 8 of 10 rounds)")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", linewidth=0.3)
    axes.legend(fontsize="small")
    try:
        canvas.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    except OSError as error:
        raise XdpBatchError.of("unwritable", f"{path}: {error.strerror}") from None


Cells = Mapping[tuple[str, str], Mapping[str, Any]]


def _bars(axes: Any, found: Cells, names: Sequence[str], across: Sequence[str]) -> None:
    width = 0.8 / len(across)
    for number, column in enumerate(across):
        there = [
            (i, found[row, column]["cpu"]) for i, row in enumerate(names) if (row, column) in found
        ]
        axes.bar(
            [i - 0.4 + width * (number + 0.5) for i, _ in there],
            [cpu["median"] for _, cpu in there],
            width,
            yerr=_errors([cpu for _, cpu in there]),
            label=column,
            color=GREYS[number % len(GREYS)],
            hatch=HATCHES[number % len(HATCHES)],
            edgecolor="black",
            linewidth=0.5,
            error_kw={"linewidth": 0.7, "capsize": 1.5},
        )
    axes.set_xticks(range(len(names)), names)


def _lines(axes: Any, found: Cells, names: Sequence[str], across: Sequence[str]) -> None:
    for number, column in enumerate(across):
        there = [(int(row), found[row, column]["cpu"]) for row in names if (row, column) in found]
        axes.errorbar(
            [x for x, _ in there],
            [cpu["median"] for _, cpu in there],
            yerr=_errors([cpu for _, cpu in there]),
            label=column,
            color="black",
            marker=MARKERS[number % len(MARKERS)],
            linestyle=STYLES[number % len(STYLES)],
            markersize=5,
            linewidth=1,
            elinewidth=0.6,
            capsize=2,
        )
    values = [int(name) for name in names]
    if min(values) > 0 and max(values) / min(values) >= 16:
        axes.set_xscale("log", base=2)
    axes.set_xticks(values, names)
    axes.minorticks_off()


def _errors(cpu: Sequence[Mapping[str, float]]) -> list[list[float]]:
    return [[c["median"] - c["p10"] for c in cpu], [c["p90"] - c["median"] for c in cpu]]
