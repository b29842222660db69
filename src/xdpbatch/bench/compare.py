"""`bench compare old.json new.json`: what became faster or slower, and what is only noise.

Analogous to `benchstat`. Cases are matched by row and column; a change is given only where it is
larger than the spread of both.
"""

from __future__ import annotations

from collections.abc import Mapping

from xdpbatch.bench.report import LOST, Answer, cells
from xdpbatch.errors import XdpBatchError

SAME = ("cpu", "cpus", "kernel", "llvm", "mitigations")


def compare(old: Answer, new: Answer) -> list[str]:
    """One line per case of both. Raises XdpBatchError if they measured different things."""
    if old["bench"] != new["bench"] or old["axis"] != new["axis"]:
        raise XdpBatchError.of(
            "different-measurements",
            f"bench {old['bench']} by {old['axis']} cannot be compared with bench {new['bench']} "
            f"by {new['axis']}",
        )
    before, after = cells(old), cells(new)
    both = [key for key in before if key in after]
    lines = [_differing(old, new, what) for what in ("machine", "settings")]
    width = max((len(_name(key)) for key in both), default=0)
    for key in both:
        percent = _change(before[key]["cpu"], after[key]["cpu"])
        said = LOST if percent is None else f"{percent:+.1f} % packets per second"
        lines.append(
            f"{_name(key):<{width}}  {before[key]['cpu']['median']:8.2f} -> "
            f"{after[key]['cpu']['median']:8.2f} ns  {said}"
        )
    for name, keys in (
        ("old", before.keys() - after.keys()),
        ("new", after.keys() - before.keys()),
    ):
        lines += [f"{_name(key)}: only in the {name} one" for key in sorted(keys)]
    return [line for line in lines if line]


def _change(before: Mapping[str, float], after: Mapping[str, float]) -> float | None:
    """Percent more packets per second; None if the medians differ by less than either spreads.

    The rounds of two runs are not pairs: unlike within one, a change of the machine is in it.
    """
    spread = max(one["p90"] - one["p10"] for one in (before, after))
    if abs(before["median"] - after["median"]) <= spread or after["median"] <= 0:
        return None
    return 100 * (before["median"] / after["median"] - 1)


def _name(key: tuple[str, str]) -> str:
    return f"{key[0]}, {key[1]}"


def _differing(old: Answer, new: Answer, what: str) -> str:
    """A warning if machine or settings are not the same."""
    names = SAME if what == "machine" else sorted({*old[what], *new[what]})
    found = [name for name in names if old[what].get(name) != new[what].get(name)]
    return f"warning: the {what} is not the same: {', '.join(found)}" if found else ""
