"""A live run: what `xdpbatch run -i` does, from the object's path to the last count.

Analogous to one invocation of xdp-bench: attach, show rates, detach, whatever ends it. SIGINT and
SIGTERM end it with a summary, SIGHUP has the object read again.
"""

from __future__ import annotations

import ctypes
import grp
import json
import os
import platform
import pwd
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from xdpbatch import elf, live_report
from xdpbatch.btf import Btf
from xdpbatch.control import Control
from xdpbatch.errors import UnsupportedError, XdpBatchError
from xdpbatch.events import Events, Sink
from xdpbatch.job import Job, dumped, filled, with_host
from xdpbatch.live import Counts, Live, Setup
from xdpbatch.program import Program
from xdpbatch.rewrite.form import ADAPTIVE
from xdpbatch.runtime import BATCH, NATIVE, SINGLE, Entry, Instance, the_program
from xdpbatch.sys.link import LinkError
from xdpbatch.sys.xsk import Socket
from xdpbatch.uapi import MapNumber

PR_SET_NO_NEW_PRIVS = 38
ENDLESS = 1e12  # seconds
LOOK_S = 0.2  # how often it is looked after threads that have given up
_REFERRING = (MapNumber.PROG_ARRAY, MapNumber.ARRAY_OF_MAPS, MapNumber.HASH_OF_MAPS)


@dataclass(frozen=True, slots=True)
class LiveJob:
    """One live run. `duration` None: until a signal comes; `interval` 0: no rates."""

    job: Job  # the program and its maps; packets come from interfaces
    setup: Setup
    duration: float | None = None
    interval: float = 1.0
    extended: bool = False
    as_json: bool = False
    quiet: bool = False
    user: str | None = None


class Loaded:
    """The program that runs, and the object it is from."""

    def __init__(self, job: Job) -> None:
        _check(job)
        self._job = job
        self._load(None)
        self.views = filled(job, self.instance)

    def reload(self) -> None:
        """Read the object again. Maps whose definition is the same keep their contents."""
        self._load(self.instance)
        self.views = self.instance.views(self._job.backend)

    @property
    def btf(self) -> Btf | None:
        """The types of what maps hold."""
        return self.instance.object.btf

    def dumped(self) -> Mapping[str, Any] | None:
        """The contents of all maps, if they are wanted."""
        return dumped(self._job, self.instance.object, self.views)

    def _load(self, before: Instance | None) -> None:
        job = self._job
        obj = elf.load(job.path, target=job.target)
        program = the_program(obj, job.name, job.section)
        instance = Instance(obj, kernel=job.verify == "kernel")
        for name, old in before.maps.items() if before else ():
            spec = obj.maps.get(name)
            if spec == old.spec and spec.contents is None and spec.type not in _REFERRING:
                instance.maps[name] = old
        self.entry: Entry = instance.entry(program, job.backend, job.form)
        self.instance, self.program = instance, program

    @property
    def stage(self) -> str:
        """How packets are staged, or why not."""
        return self._job.form.staging(self.instance.stages(self.program).xlated)


def _check(job: Job) -> None:
    """Refuse what is for captures only. Raises UnsupportedError, XdpBatchError."""
    if job.backend not in NATIVE:
        raise UnsupportedError.of(
            "backend",
            f"backend {job.backend} does not run on live interfaces",
            suggestion=f"--backend {NATIVE[0]}",
        )
    if job.form.stage == ADAPTIVE:
        raise UnsupportedError.of(
            "stage-auto-live",
            "live threads do not measure whether staging pays",
            suggestion="--stage off, or a number of packets: 32",
        )
    ours = replace(BATCH, prefetch=job.form.prefetch, stage=job.form.stage)
    if job.form not in (SINGLE, ours) or job.retpoline:
        raise UnsupportedError.of(
            "layout",
            "the slides' forms are for captures and synthetic traffic",
            suggestion="--layout batch",
        )
    for option, value, instead in (("-c", job.count, "-d"), ("-w", job.write, "xdpdump")):
        if value is not None:
            raise XdpBatchError.of(
                "usage", f"{option} is not for live interfaces", suggestion=f"use {instead}"
            )


class Signals:
    """Asks to end or to reload, as flags; entered, signals set them and end a `wait`."""

    def __init__(self) -> None:
        self.end = self.reload = False
        self._came = threading.Event()

    def wait(self, seconds: float) -> None:
        """Wait for a signal."""
        self._came.wait(seconds)
        self._came.clear()

    def __enter__(self) -> Signals:
        ending = dict.fromkeys((signal.SIGINT, signal.SIGTERM), self._end)
        handlers = {**ending, signal.SIGHUP: self._hang_up}
        self._previous = {n: signal.signal(n, handler) for n, handler in handlers.items()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _end(self, *_: object) -> None:
        self.end = True
        self._came.set()

    def _hang_up(self, *_: object) -> None:
        self.reload = True
        self._came.set()


def run(job: LiveJob) -> Mapping[str, Any] | None:
    """Take over, serve, give back; rates and summary go to stdout. Returns the maps' contents if
    they are wanted. Raises XdpBatchError for what prevents the start, and after the summary if an
    interface vanished.
    """
    Socket().close()  # who may not open one is told so before a program is compiled
    loaded = Loaded(job.job)
    known = with_host(job.job, loaded.instance.object).context.host
    context = replace(job.setup.context, host=known)
    job = replace(job, setup=replace(job.setup, context=context))
    with Signals() as signals, closing(Sink(job.job.events)) as sink:
        live = Live(job.setup, loaded.entry.address, loaded.instance)
        try:
            if job.user:
                drop_privileges(job.user)
            say(job, in_force(job, loaded.program, live) + f", stage {loaded.stage}")
            began = time.monotonic()
            live.start()
            with Control(live, loaded):
                watch(job, live, loaded, signals, sink, began)
        finally:
            counts = live.stop()
        hear(live, loaded, sink)
    finish(job, loaded.program, counts, time.monotonic() - began, loaded.stage)
    if isinstance(live.failure, OSError):
        raise vanished(live.failure)
    if live.failure is not None:
        raise live.failure
    return loaded.dumped()


def watch(
    job: LiveJob, live: Live, loaded: Loaded, signals: Signals, sink: Sink, began: float
) -> None:
    """Show rates until it is time to end."""
    before, then = Counts(), began
    due = began + (job.interval or ENDLESS)
    end = began + (ENDLESS if job.duration is None else job.duration)
    while not signals.end and live.failure is None and time.monotonic() < end:
        signals.wait(min(due, end, time.monotonic() + LOOK_S) - time.monotonic())
        if signals.reload:
            signals.reload = False
            reload(live, loaded)
        hear(live, loaded, sink)
        if job.interval and (time.monotonic() >= due or signals.end):
            now, at = live.counts(), time.monotonic()
            rates(job, live, live_report.difference(now, before), at - then)
            before, then, due = now, at, max(due + job.interval, at)


def hear(live: Live, loaded: Loaded, sink: Sink) -> None:
    """What programs printed, as trace_pipe shows it; their records too, if asked for."""
    if sink.wants_records:
        traces = [station.trace for station in live.stations()]
        sink.write(Events(loaded.instance.maps, traces).take())
        return
    for station in live.stations():
        for text in station.trace.lines():
            print(f"{station.interface.name}/{station.queue}: {text.rstrip()}", file=sys.stderr)


def reload(live: Live, loaded: Loaded) -> None:
    """Swap the program; if the new one is refused, the old one goes on."""
    try:
        loaded.reload()
    except XdpBatchError as error:
        print(f"{error}\nnot reloaded: {loaded.program.name} goes on", file=sys.stderr)
        return
    live.swap(loaded.entry.address, loaded.instance)
    print(f"reloaded: {loaded.program.name}", file=sys.stderr)


def rates(job: LiveJob, live: Live, counts: Counts, seconds: float) -> None:
    """One interval's lines, or its object."""
    if job.as_json:
        print(json.dumps({"schema": live_report.SCHEMA, "type": "rates",
                          **live_report.as_object(counts, seconds)}), flush=True)  # fmt: skip
        return
    print(live_report.line("Summary", counts, seconds), flush=True)
    if job.extended:
        for station in live.stations():
            total = station.stats.packets
            print(f"  {station.interface.name} queue {station.queue}: {total:,} packets in all")
        print("\n".join(live_report.reasons(counts, seconds)), flush=True)


def finish(job: LiveJob, program: Program, counts: Counts, seconds: float, stage: str) -> None:
    """The summary, or the last object."""
    if job.as_json:
        print(json.dumps({
            "schema": live_report.SCHEMA,
            "type": "summary",
            "program": program.name,
            "section": program.section,
            "backend": job.job.backend,
            "layout": job.job.form.layout.value,
            "batch_size": job.job.in_force,
            "stage": stage,
            "mode": f"live {', '.join(job.setup.interfaces)}",
            **live_report.as_object(counts, seconds),
            "kernel_release": platform.release(),
            "machine": platform.machine(),
        }), flush=True)  # fmt: skip
        return
    print("\n".join(live_report.summary(counts, seconds)), flush=True)


def in_force(job: LiveJob, program: Program, live: Live) -> str:
    """What is in force, for the first line."""
    copying = {live.zero_copy[i.ifindex] for i in live.interfaces}
    copy = "/".join("zero-copy" if one else "copy" for one in sorted(copying))
    batch = "one by one" if job.setup.single else f"batch {job.setup.batch_size}"
    return (
        f"{program.name} (section {program.section}) of {job.job.path} on "
        f"{', '.join(map(str, live.interfaces))}: queues {ranges(live.queues)}, "
        f"{job.setup.mode} mode, {copy}, backend {job.job.backend}, {batch}, "
        f"rings of {job.setup.ring_size}, {live.lane_count} threads"
        + (f", host {job.setup.context.host}" if job.setup.context.host else "")
    )


def say(job: LiveJob, text: str) -> None:
    """A message: to stderr if stdout is for a program."""
    if not job.quiet:
        print(text, file=sys.stderr if job.as_json else sys.stdout, flush=True)


def parse_queues(text: str) -> list[int] | None:
    """`all` (None), `3`, `0-3` or `0,2,4-5`. Raises XdpBatchError."""
    if text == "all":
        return None
    found: list[int] = []
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            found += range(int(first), int(last or first) + 1)
    except ValueError:
        found = []
    if not found:
        raise XdpBatchError.of(
            "usage", f"{text!r} names no queues", suggestion="-q all, -q 0, -q 0-3, -q 0,2"
        )
    return found


def ranges(numbers: Sequence[int]) -> str:
    """0-3 for 0, 1, 2, 3."""
    whole = list(range(numbers[0], numbers[-1] + 1)) == list(numbers) and len(numbers) > 1
    return f"{numbers[0]}-{numbers[-1]}" if whole else ",".join(map(str, numbers))


def drop_privileges(name: str) -> None:
    """Become a user for good, with its groups, and gain no privileges again."""
    try:
        user = pwd.getpwnam(name)
        groups = [g.gr_gid for g in grp.getgrall() if name in g.gr_mem]
        os.setgroups([user.pw_gid, *groups])
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    except (KeyError, PermissionError) as error:
        raise XdpBatchError.of(
            "user", f"cannot become user {name}", reason=str(error), suggestion="run as root"
        ) from None
    ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def vanished(failure: OSError) -> LinkError:
    """The error for an interface that went away."""
    return LinkError.of(
        "interface-vanished",
        f"{failure.filename} vanished",
        reason=failure.strerror or "",
        suggestion="the counts above are complete up to then",
    )
