"""How a run is reported: a table for people, one object for programs, saying what was in force."""

from __future__ import annotations

import json
import platform
from typing import Any

from xdpbatch.context import Source
from xdpbatch.job import Done, Job

SCHEMA = 1


def report(done: Done, *, as_json: bool, pretty: bool) -> str:
    """The text for stdout."""
    if as_json:
        return json.dumps(as_object(done), indent=2 if pretty else None)
    return "\n".join(table(done))


def as_object(done: Done) -> dict[str, Any]:
    """The object of `run -j`: `packets` is the sum of `actions`; with `skipped` it is the input."""
    result = done.result
    return {
        "schema": SCHEMA,
        "program": done.program.name,
        "section": done.program.section,
        "backend": done.job.backend,
        "layout": str(done.job.form),
        "batch_size": done.job.in_force,
        "stage": done.stage,
        "mode": mode(done.job),
        "retpoline": done.job.retpoline,
        "verify": done.job.verify,
        "guards": [
            {"code": guard.code, "where": str(guard), "fired": count}
            for guard, count in done.guards.items()
        ],
        "fits": dict(done.fits),
        "host": str(done.job.context.host) if done.job.context.host else None,
        "clock": str(done.job.context.clock),
        "seed": done.job.context.seed or None,
        "packets": result.packets,
        "bytes": result.bytes,
        "actions": dict(result.actions),
        "elapsed_s": round(result.elapsed_s, 6),
        "ns_per_packet": round(result.ns_per_packet, 2),
        "skipped": dict(result.skipped),
        "errors": dict(result.errors),
        "sent": {str(i): {"packets": p, "bytes": b} for i, (p, b) in result.sent.items() if p},
        "interrupted": done.interrupted,
        "error": str(done.error) if done.error else None,
        "kernel": platform.release(),
        "machine": platform.machine(),
        "events": dict(done.events),
        **({"maps": done.maps} if done.maps is not None else {}),
    }


def table(done: Done) -> list[str]:
    """The lines for a terminal."""
    job, result = done.job, done.result
    lines = [
        f"{done.program.name} (section {done.program.section}) of {job.path}: "
        f"backend {job.backend}, layout {job.form}, batch {job.in_force}, {mode(job)}"
        + (", retpoline" if job.retpoline else "")
        + (", accepted by the kernel too" if job.verify == "kernel" else "")
        + _repeatable(job),
        *(f"{what}: {origin}" for what, origin in done.fits.items()),
        *([f"host: {job.context.host}"] if job.context.host else []),
        *([f"staged: {done.stage}"] if done.stage != "off" else []),
        f"{'action':<14} {'packets':>14} {'share':>8}",
    ]
    for action, count in result.actions.items():
        if count:
            share = 100 * count / result.packets
            lines.append(f"{action:<14} {count:>14,} {share:>7.2f}%")
    for index, (packets, size) in result.sent.items():
        if packets:
            lines.append(f"sent to port {index:<2}{packets:>14,}          {size:,} bytes")
    lines += [f"error: {count:,} {name}" for name, count in result.errors.items()]
    lines += [f"guard: fired {count:,} times: {guard}" for guard, count in done.guards.items()]
    lines += [f"skipped: {count:,} {reason}" for reason, count in result.skipped.items()]
    lost = done.events.get("lost", {})
    lines += [f"lost: {count:,} events of {name}" for name, count in lost.items()]
    seconds = result.elapsed_s or 1e-9
    lines.append(
        f"{result.packets:,} packets, {result.bytes:,} bytes in {result.elapsed_s:.3f} s: "
        f"{result.packets / seconds / 1e6:.2f} Mpps, {result.ns_per_packet:.1f} ns/packet"
    )
    if done.interrupted:
        lines.append("interrupted: these are the packets up to then")
    return lines


def mode(job: Job) -> str:
    """Where packets come from, in words."""
    return f"capture {job.read}" if job.read is not None else f"synthetic {job.synth}"


def _repeatable(job: Job) -> str:
    """Whose time and chance it was, if they were not the machine's."""
    context = job.context
    clock = "" if context.clock.source is Source.REAL else f", clock {context.clock}"
    return clock + (f", seed {context.seed}" if context.seed else "")
