"""How a live run is reported: rates as xdp-bench lays them out, and the summary.

Analogous to xdp_sample.c of xdp-tools. All functions are pure: two Counts and the seconds between
them become lines, or an object for `-j`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xdpbatch.live import Counts

SCHEMA = 1


def difference(now: Counts, before: Counts) -> Counts:
    """What was counted between two moments."""
    return Counts(
        received=now.received - before.received,
        copies=now.copies - before.copies,
        bytes=now.bytes - before.bytes,
        batches=now.batches - before.batches,
        busy_ns=now.busy_ns - before.busy_ns,
        verdicts=_minus(now.verdicts, before.verdicts),
        outcomes=_minus(now.outcomes, before.outcomes),
        errors=_minus(now.errors, before.errors),
        kernel=_minus(now.kernel, before.kernel),
    )


def line(title: str, counts: Counts, seconds: float) -> str:
    """One line of rates: rx, redirected, errors and drops, transmitted; then what batching does."""
    done = counts.outcomes
    lost = sum(counts.errors.values()) + sum(counts.kernel.values())
    dropped = lost + done.get("XDP_DROP", 0) + done.get("XDP_ABORTED", 0)
    columns = {
        "rx/s": counts.received,
        "redir/s": done.get("XDP_REDIRECT", 0),
        "err,drop/s": dropped,
        "xmit/s": done.get("XDP_TX", 0),
        "pass/s": done.get("XDP_PASS", 0),
    }
    rates = "".join(f"{count / seconds:>13,.0f} {unit}" for unit, count in columns.items())
    batch = counts.received / counts.batches if counts.batches else 0.0
    cost = counts.busy_ns / counts.received if counts.received else 0.0
    return f"{title:<18}{rates}{batch:>8.1f} batch-avg{cost:>9.1f} ns/pkt"


def reasons(counts: Counts, seconds: float) -> list[str]:
    """Each kind of error and loss that occurred, with its rate."""
    kinds = {**counts.outcomes, **counts.errors, **counts.kernel}
    return [f"  {name:<24}{n / seconds:>13,.0f} /s" for name, n in kinds.items() if n]


def as_object(counts: Counts, seconds: float) -> dict[str, Any]:
    """Counts for `-j`: `packets` is the sum of `actions`."""
    return {
        "packets": counts.received,
        "copies": counts.copies,
        "bytes": counts.bytes,
        "batches": counts.batches,
        "actions": dict(counts.verdicts),
        "errors": {name: n for name, n in counts.errors.items() if n},
        "kernel": {name: n for name, n in counts.kernel.items() if n},
        "elapsed_s": round(seconds, 6),
        "ns_per_packet": round(counts.busy_ns / counts.received, 2) if counts.received else 0.0,
    }


def summary(counts: Counts, seconds: float) -> list[str]:
    """The last lines: totals that add up, and what the kernel lost."""
    lines = [f"{counts.received:,} packets, {counts.bytes:,} bytes in {seconds:.3f} s"]
    for name, count in counts.outcomes.items():
        if count:
            share = 100 * count / counts.received
            lines.append(f"{name:<28}{count:>16,} {share:>7.2f}%")
    lines += [f"error: {name:<21}{n:>16,}" for name, n in counts.errors.items() if n]
    lines += [f"kernel: {name:<20}{n:>16,}" for name, n in counts.kernel.items() if n]
    return lines


def _minus(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    return {name: count - before.get(name, 0) for name, count in now.items()}
