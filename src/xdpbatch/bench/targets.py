"""What the project set out to reach, beside what was measured: reached or not, without excuses.

Analogous to the acceptance table of a data sheet. Nanoseconds per packet in batches of 64.
"""

from __future__ import annotations

from xdpbatch.bench.boost import SLIDES
from xdpbatch.bench.report import LOST, Answer, cells

ALONE = {
    "drop": 0.6,
    "read and drop": 0.9,
    "MAC-swap TX": 1.2,
    "5-tuple parse": 2.5,
    "parse and hash map": 7.0,
}  # the program and its call
POLL = {"XDP_DROP": 6.0, "XDP_TX": 12.0, "XDP_REDIRECT": 12.0}  # over the synthetic ring


def markdown(five: Answer, boost: Answer) -> str:
    """The table: of `bench programs` (the five) and `bench boost`."""
    lines = ["| | to reach | measured: median (least) | |", "|---|---|---|---|"]
    alone, poll = cells(five), cells(boost)
    for name, most in ALONE.items():
        lines.append(_line(f"{name}, program and call", most, alone[name, "batch 64"]["cpu"]))
    for name, most in POLL.items():
        lines.append(_line(f"{name}, whole poll", most, poll[name, "batch 64"]["cpu"]))
    for name, percent in SLIDES.items():
        found = poll[name, "batch 64, retpoline"]["change_percent"]
        said = LOST if found is None else f"{found:+.0f} %"
        reached = found is not None and found >= percent
        lines.append(f"| {name}, boost with retpoline | +{percent} % | {said} | {_said(reached)} |")
    return "\n".join(lines)


def _line(name: str, most: float, cpu: dict[str, float]) -> str:
    measured = f"{cpu['median']:.2f} ({cpu['min']:.2f}) ns"
    reached = _said(cpu["median"] <= most)
    return f"| {name} | ≤ {most:g} ns | {measured} | {reached} |"


def _said(reached: bool) -> str:
    return "reached" if reached else "**not reached**"
