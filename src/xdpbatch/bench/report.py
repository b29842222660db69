"""What a measurement came to, as a table, as JSON and as Markdown.

Analogous to `perf stat`'s report and its `-x`: the same facts for people and for programs. A change
in percent is given only where it is larger than the spread (see bench.method).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdpbatch.bench import machine
from xdpbatch.bench.method import Figure, Figures, Grid, boost, columns, rows
from xdpbatch.errors import XdpBatchError

SCHEMA = 1
LOST = "within the spread"


@dataclass(frozen=True)
class Report:
    """A grid that was measured."""

    grid: Grid
    figures: Figures
    rounds: int

    def as_object(self) -> dict[str, Any]:
        """The object of `bench … -j`. `change_percent` is null where the spread is larger."""
        return {
            "schema": SCHEMA,
            "bench": self.grid.name,
            "title": self.grid.title,
            "axis": self.grid.axis,
            "unit": "ns/packet",
            "rounds": self.rounds,
            "pinned_to_cpu": self.grid.cpu,
            "settings": self.grid.settings,
            "notes": self.grid.notes,
            "machine": machine.describe(),
            "cases": [
                {
                    "row": row,
                    "column": column,
                    "cpu": _numbers(figure),
                    "wall": {"median": round(figure.wall, 3)},
                    **self._compared(row, column),
                }
                for (row, column), figure in self.figures.items()
            ],
        }

    def _compared(self, row: str, column: str) -> dict[str, Any]:
        first, against = self.grid.first, self.grid.against.get(column)
        key = (row, against or "") if first is None else (first, column)
        before = self.figures.get(key)
        if before is None or key == (row, column):
            return {}
        change = boost(before, self.figures[row, column])
        low, high = round(change.low, 1), round(change.high, 1)
        return {
            "against": against if first is None else f"{self.grid.axis} {first}",
            "change_percent": round(change.percent, 1) if change.told else None,
            "change_spread": [low, high],
        }


def _numbers(figure: Figure) -> dict[str, float]:
    low, high = figure.middle
    cpu = figure.cpu
    values = {"median": figure.median, "min": cpu[0], "max": cpu[-1], "p10": low, "p90": high}
    return {name: round(value, 3) for name, value in values.items()}


Answer = Mapping[str, Any]  # what as_object() gives; also read from a file


def load(path: Path) -> Answer:
    """A file that `bench … -j` wrote. Raises XdpBatchError for anything else."""
    try:
        answer = json.loads(path.read_text())
        good = answer["schema"] == SCHEMA and all(
            isinstance(case[key], str) for case in answer["cases"] for key in ("row", "column")
        )
    except OSError as error:
        raise XdpBatchError.of("unreadable", f"{path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError):
        good = False
    if not good:
        raise XdpBatchError.of(
            "no-measurement",
            f"{path} is not a measurement",
            suggestion=f"xdpbatch bench … -j > {path.name} writes one (schema {SCHEMA})",
        )
    return dict(answer)


def cells(answer: Answer) -> dict[tuple[str, str], Mapping[str, Any]]:
    """The cases by row and column."""
    return {(case["row"], case["column"]): case for case in answer["cases"]}


def text(answer: Answer) -> str:
    """The report for a terminal."""
    table = _table(answer)
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    lines = [answer["title"]]
    lines += [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    ]
    lines += _changes(answer)
    return "\n".join([*lines, *_foot(answer)])


def markdown(answer: Answer) -> str:
    """The report for docs/results.md."""
    head, *body = _table(answer)
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join(line) + " |" for line in body]
    changes = [f"* {line}" for line in _changes(answer)]
    return "\n".join([*lines, "", *changes, *([""] if changes else []), *_foot(answer)])


def _table(answer: Answer) -> list[list[str]]:
    found = cells(answer)
    keys = list(found)
    across = columns(keys)
    table = [[answer["axis"], *across]]
    for row in rows(keys):
        table.append([row, *(_cell(found.get((row, column))) for column in across)])
    return table


def _cell(case: Mapping[str, Any] | None) -> str:
    if case is None:
        return "–"
    cpu = case["cpu"]
    return f"{cpu['median']:.2f} ({cpu['min']:.2f}–{cpu['max']:.2f})"


def _changes(answer: Answer) -> list[str]:
    """One line per comparison: `batch 64 against one by one: XDP_DROP +31 %, …`."""
    lines: dict[tuple[str, str], list[str]] = {}
    for case in answer["cases"]:
        if "against" in case:
            percent, (low, high) = case["change_percent"], case["change_spread"]
            said = LOST if percent is None else f"{percent:+.0f} % ({low:+.0f} to {high:+.0f})"
            lines.setdefault((case["column"], case["against"]), []).append(f"{case['row']} {said}")
    return [
        f"{column} against {against}, packets per second: {'; '.join(found)}"
        for (column, against), found in lines.items()
    ]


def _foot(answer: Answer) -> list[str]:
    settings = ", ".join(f"{name} {value}" for name, value in answer["settings"].items())
    return [
        f"ns per packet, CPU time: median (least–greatest) of {answer['rounds']} rounds in turns, "
        f"on CPU {answer['pinned_to_cpu']}; {_slowdown(answer)}; changes: median of the rounds "
        "(what 8 of 10 lie within), none where that is wider than the change",
        *([settings] if settings else []),
        *answer["notes"],
        machine.line(answer["machine"]),
    ]


def _slowdown(answer: Answer) -> str:
    """How much longer it took by the clock on the wall: what the machine's other work took."""
    ratios = sorted(
        case["wall"]["median"] / case["cpu"]["median"]
        for case in answer["cases"]
        if case["cpu"]["median"] > 0
    )
    return f"wall time {ratios[len(ratios) // 2]:.2f} times CPU time (median of the cases)"
