"""A job: what `xdpbatch run` is asked to do, from the object's path to the counts.

Analogous to one invocation of xdp-bench. It loads, compiles, opens the source, runs a Session and
keeps what was done also when it ends early.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from xdpbatch import elf, map_file
from xdpbatch.bench.method import Figure, Sample, boost
from xdpbatch.context import Context, Source, hz_for
from xdpbatch.data import chance
from xdpbatch.errors import UnsupportedError, XdpBatchError
from xdpbatch.events import Listener, Sink
from xdpbatch.host.choice import host_for
from xdpbatch.jit import operations
from xdpbatch.jit.retpoline import retpoline
from xdpbatch.map_view import MapView
from xdpbatch.pcap.write import CaptureWriter
from xdpbatch.program import Object, Program
from xdpbatch.rewrite import Layout
from xdpbatch.rewrite.form import ADAPTIVE, Form
from xdpbatch.rewrite.guard import Guard, fired, guarded
from xdpbatch.rewrite.poc import COUNT
from xdpbatch.runtime import BATCH, NATIVE, SINGLE, Instance, the_program
from xdpbatch.session import MakePort, Result, Session
from xdpbatch.target import Target
from xdpbatch.uapi import Action

ROUNDS = 11  # of one by one against batched, in turns


@dataclass(frozen=True, slots=True)
class Job:
    """One run. `read` and `synth` exclude each other; `single` is one by one, `retpoline` calls the
    program through a retpoline thunk then. `tell_source`: the result says what the source took.
    """

    path: Path
    name: str | None = None
    section: str | None = None
    read: str | None = None
    synth: str | None = None
    write: str | None = None
    backend: str = "llvm"
    batch_size: int = 64
    single: bool = False
    targets: int = 0
    count: int | None = None
    context: Context = field(default_factory=Context)
    trampoline: Form = BATCH
    retpoline: bool = False
    tell_source: bool = False
    target: Target = field(default_factory=Target)
    host: str = ""  # what programs may ask about: see host.choice
    fills: Sequence[tuple[str, str]] = ()  # map ("": several) and file of contents before
    verify: str = "strict"  # "guard": with guards; "kernel": the running one must accept it too
    dump: bool = False  # keep the contents of all maps after it
    events: str = ""  # where they are written: see events.Sink

    @property
    def form(self) -> Form:
        """The form that runs: one by one there is no trampoline, but judges have only batches."""
        return SINGLE if self.single and self.backend in NATIVE else self.trampoline

    @property
    def in_force(self) -> int:
        """The batch size that runs."""
        if self.single or self.form.layout is Layout.SINGLE:
            return 1
        return COUNT if self.form.layout is Layout.POC else self.batch_size


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a job. `error` ended it early, as did ctrl-C if `interrupted`."""

    job: Job
    program: Program
    result: Result
    error: XdpBatchError | None = None
    interrupted: bool = False
    fits: Mapping[str, str] = field(default_factory=dict)  # what the object was fitted to
    maps: Mapping[str, Any] | None = None  # contents afterwards, if they are wanted
    events: Mapping[str, Any] = field(default_factory=dict)  # how many were written and lost
    stage: str = "off"  # how packets were staged, or why not
    guards: Mapping[Guard, int] = field(default_factory=dict)  # how often each fired


def run(job: Job, progress: bool = False) -> Done:
    """Do it. Raises XdpBatchError for what prevents the start."""
    _require_ours(job)
    obj = elf.load(job.path, target=job.target)
    program = the_program(obj, job.name, job.section)
    guards: tuple[Guard, ...] = ()
    if job.verify == "guard":
        obj, guards = guarded(obj, program.name)
        program = obj.programs[program.name]
    job = with_host(job, obj)
    with chance.seeded(job.context.seed):
        instance = Instance(obj, kernel=job.verify == "kernel")
    if job.form.layout is Layout.POC and not job.form.fixed:
        return _run_slides(job, instance, program)
    entry = instance.entry(program, job.backend, job.form)
    views = filled(job, instance)
    thunk = retpoline(entry.address) if job.retpoline else entry
    error: XdpBatchError | None = None
    with ExitStack() as stack:
        writer = None
        if job.write:
            _refuse_overwriting(job.write, job.read)
            writer = CaptureWriter(job.write, max(job.batch_size, job.in_force))
        session = _session(job, obj, writer)
        stack.callback(session.source.close)
        sink = Sink(job.events)
        stack.callback(sink.close)
        listener = Listener(obj, instance.maps, sink, job.in_force)
        tell = stack.enter_context(_bar(job.count)) if progress else None
        try:
            session.run(
                thunk.address,
                single=_single(job),
                count=job.count,
                progress=tell,
                listener=listener,
            )
        except XdpBatchError as caught:
            error = caught
        if writer:
            try:
                writer.close()
            except XdpBatchError as caught:
                error = error or caught
        check = getattr(entry, "check", None)
        if check:
            check()
        maps = dumped(job, obj, views)
        return Done(
            job,
            program,
            session.result(),
            error,
            session.stopped,
            fits_of(obj),
            maps,
            listener.summary(),
            _staging(job, instance, program, session),
            fired(instance.maps, guards),
        )


def _staging(job: Job, instance: Instance, program: Program, session: Session) -> str:
    """How packets were staged: `32, 2 passes`; `auto, 2 passes: chose 16 (...)`; `off: why`."""
    if job.backend not in NATIVE or not job.form.stage:
        return "off"
    said = job.form.staging(instance.stages(program).xlated)
    choice = session.driver.staging
    if choice is None or said.startswith("off"):
        return said
    measured = ", ".join(f"{width or 'off'} {ns:.1f}" for width, ns in choice.measured.items())
    return f"{said}: chose {choice.chosen or 'off'} (ns per packet of the poll: {measured})"


def with_host(job: Job, obj: Object) -> Job:
    """The job with what is known of the host, as far as the object's programs ask."""
    if job.backend == "kernel":
        return job
    return replace(job, context=replace(job.context, host=host_for(obj, job.host)))


def _require_ours(job: Job) -> None:
    """The kernel's time, chance and host are its own."""
    context = job.context
    if job.backend == "kernel" and job.host:
        raise UnsupportedError.of(
            "host-of-the-kernel",
            "the kernel's backend asks the kernel about its host",
            suggestion="use --backend llvm, x86 or interp, or no --host",
        )
    if job.backend == "kernel" and (context.clock.source is not Source.REAL or context.seed):
        raise UnsupportedError.of(
            "clock-of-the-kernel",
            "the kernel's backend has the kernel's clocks and random numbers",
            suggestion="use --backend llvm, x86 or interp, or neither --clock nor --seed",
        )


def fits_of(obj: Object) -> Mapping[str, str]:
    """What an object was fitted to, and where that came from; only what it asked for."""
    found = {"types": obj.types_from, "configuration": obj.config_from}
    return {what: origin for what, origin in found.items() if origin}


def require_own_maps(backend: str, wanted: bool) -> None:
    """UnsupportedError if maps are to be filled or read that only the kernel has."""
    if wanted and backend == "kernel":
        raise UnsupportedError.of(
            "maps-of-the-kernel",
            "the kernel's backend has maps of its own, which are not filled or read here",
            suggestion="use --backend llvm, x86 or interp",
        )


def filled(job: Job, instance: Instance) -> Mapping[str, MapView]:
    """The maps, after what is to be in them was entered."""
    require_own_maps(job.backend, bool(job.fills or job.dump) or job.events not in ("", "trace"))
    if job.fills or job.dump:
        operations.enable()
    views = instance.views(job.backend)
    map_file.fill_all(views, job.fills, str(job.path))
    return views


def dumped(job: Job, obj: Object, views: Mapping[str, MapView]) -> Mapping[str, Any] | None:
    if not job.dump:
        return None
    return map_file.dump_all(views, obj.btf)


def _refuse_overwriting(write: str, read: str | None) -> None:
    """Opening the output empties it, so it must not be the input."""
    if read and Path(read).exists() and Path(write).exists() and Path(read).samefile(write):
        raise XdpBatchError.of(
            "usage", f"{write} is read and written", suggestion="write to another file"
        )


def _run_slides(job: Job, instance: Instance, program: Program) -> Done:
    """The slides' form runs 64 packets or none: full batches, then the error for what is left."""
    from xdpbatch.api import Runnable
    from xdpbatch.packets import Capture, Synthetic

    if job.write:
        raise XdpBatchError.of(
            "usage",
            "the slides' form writes no capture",
            suggestion="--poc-fixed, or --layout batch",
        )
    runnable = Runnable(instance, program, job.backend, COUNT, job.form, job.context)
    views = filled(job, instance)
    source = Capture(job.read) if job.read is not None else Synthetic(job.synth or "")
    verdicts: Counter[str] = Counter({action.name: 0 for action in Action})
    packets, size, elapsed = iter(islice(source, job.count)), 0, 0.0
    error: XdpBatchError | None = None
    try:
        while chunk := list(islice(packets, COUNT)):
            start = time.perf_counter()
            results = runnable.run(chunk)
            elapsed += time.perf_counter() - start
            size += sum(map(len, chunk))
            known = (Action(act) if act in list(Action) else Action(0) for act in results.actions)
            verdicts.update(action.name for action in known)
    except XdpBatchError as caught:
        error = caught
    with closing(Sink(job.events)) as sink:
        sink.write(list(runnable.events()))
    result = Result(verdicts.total(), size, verdicts, elapsed, skipped=source.skipped)
    maps = dumped(job, instance.object, views)
    return Done(job, program, result, error, False, fits_of(instance.object), maps)


def measure_baseline(job: Job) -> str:
    """One line: batched against one by one over the same packets, in turns, with fresh maps.

    Only native code is measured, without writing a capture; the times are of the whole poll
    (receive, run, act) and leave out what reading the capture or making the traffic takes.
    """
    job = replace(job, write=None)
    if job.backend not in NATIVE or job.read == "-":
        why = "standard input is read once" if job.read == "-" else "the backend is a judge"
        return f"batched against one by one: not measured ({why})"
    samples: dict[bool, list[Sample]] = {True: [], False: []}
    for _ in range(ROUNDS):
        for single in (True, False):
            ns = run(replace(job, single=single, tell_source=True)).result.poll_ns
            samples[single].append(Sample(ns, ns))
    one_by_one, batched = (Figure(tuple(samples[single])) for single in (True, False))
    change = boost(one_by_one, batched)
    spread = ", ".join(
        f"{name} {figure.median:.1f} ({figure.middle[0]:.1f} to {figure.middle[1]:.1f})"
        for name, figure in (("one by one", one_by_one), (f"batch {job.batch_size}", batched))
    )
    said = f"ns per packet to receive, run and act, median of {ROUNDS} in turns: {spread}"
    if not change.told:
        return f"batching bought less than the spread of this run shows; {said}"
    return f"batching bought {change.percent:+.0f} % packets per second; {said}"


def source_of(job: Job) -> MakePort:
    """How to make the port that the job's packets come from."""
    if job.read is not None:
        from xdpbatch.ports.capture import CapturePort

        origin = job.read
        return lambda umem, ifindex, ring: CapturePort(umem, origin, ifindex, ring)
    from xdpbatch.ports.synthetic import SyntheticPort

    spec = job.synth or ""
    return lambda umem, ifindex, ring: SyntheticPort(umem, spec, ifindex, ring)


def no_source() -> XdpBatchError:
    """The error for a command that was not told where packets come from."""
    return XdpBatchError.of(
        "usage",
        "say where packets come from",
        suggestion="one of -r IN.pcap (`-` for stdin) and --synth udp,size=64,flows=1000",
    )


def _single(job: Job) -> bool:
    return job.form.layout is Layout.SINGLE


def _session(job: Job, obj: Object, writer: CaptureWriter | None) -> Session:
    return Session(
        source_of(job),
        batch_size=job.batch_size if _single(job) else job.in_force,
        targets=range(1, job.targets + 1),
        context=replace(job.context, hz=hz_for(obj, job.target)),
        writer=writer,
        tell_source=job.tell_source,
        adaptive=job.form.stage == ADAPTIVE,
    )


class _bar:  # noqa: N801
    """A progress bar on stderr; entering gives what is told the packets done."""

    def __init__(self, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("{task.completed:>14,.0f} packets"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task("run", total=total)

    def __enter__(self) -> Callable[[int], None]:
        self._progress.start()
        return lambda done: self._progress.update(self._task, completed=done)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
