"""A session: packets from one port through one program, until the port has come to its end.

Analogous to attaching a program to an interface and reading its counters afterwards. It puts the
data plane's parts together (see data.poll): Umem, source port, the ports that TX, REDIRECT and
PASS go to, queue and driver.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from xdpbatch.context import Context, Source
from xdpbatch.data import poll
from xdpbatch.data.driver import Driver
from xdpbatch.data.port import DEVICE
from xdpbatch.data.staging import Staging
from xdpbatch.data.umem import Umem
from xdpbatch.events import Listener
from xdpbatch.jit.native import compile_native
from xdpbatch.pcap.write import CaptureWriter
from xdpbatch.ports import RING_SIZE, Port, timed
from xdpbatch.ports.loop import LoopPort

DEFAULT = Context()

MakePort = Callable[[Umem, int, int], Port]  # umem, ifindex, ring size


@dataclass(frozen=True, slots=True)
class Result:
    """What a session came to. packets = the sum of `actions`; `errors` are verdicts (by name)
    that could not be carried out, `skipped` what the source held but could not be run.
    """

    packets: int
    bytes: int
    actions: Mapping[str, int]
    elapsed_s: float
    source_s: float = 0.0  # of elapsed_s: reading on; with `tell_source` all that the source took
    skipped: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    sent: Mapping[int, tuple[int, int]] = field(default_factory=dict)  # ifindex: packets, bytes

    @property
    def poll_ns(self) -> float:
        """Nanoseconds per packet to receive, run and act, without the source's own part."""
        return (self.elapsed_s - self.source_s) * 1e9 / self.packets if self.packets else 0.0

    @property
    def ns_per_packet(self) -> float:
        """Nanoseconds of the whole poll per packet; 0 if there was none."""
        return self.elapsed_s * 1e9 / self.packets if self.packets else 0.0


class Session:
    """One source port, with its queue. `targets` are ifindexes that packets can be redirected to;
    each gets a port that counts what arrives.
    """

    def __init__(
        self,
        make_source: MakePort,
        *,
        batch_size: int = 64,
        targets: Sequence[int] = (),
        context: Context = DEFAULT,
        writer: CaptureWriter | None = None,
        tell_source: bool = False,
        adaptive: bool = False,
    ) -> None:
        ifindex = context.ifindex
        ring = max(RING_SIZE, 1 << (batch_size - 1).bit_length())
        others = [index for index in targets if index != ifindex]
        self.umem = Umem(frames=2 * ring * (2 + len(others)))
        self.source = make_source(self.umem, ifindex, ring)
        stack = LoopPort(self.umem, ifindex=0, ring_size=ring)
        self.ports: dict[int, Port] = {ifindex: self.source}
        self.ports |= {index: LoopPort(self.umem, index, ring) for index in others}
        natives = {port.wakeup for port in (stack, *self.ports.values())}
        if writer:
            natives.add(writer.recorder)
        natives |= {timed.timed}
        code = compile_native(*poll.NATIVES, *sorted(natives, key=lambda n: n.symbol))
        self.driver = Driver(
            self.source,
            stack,
            code,
            {DEVICE + index: port for index, port in self.ports.items()},
            batch_size,
            writer,
        )
        if adaptive:
            self.driver.staging = Staging()
        if tell_source:
            timed.install(self.source, code)
        self._set(context)
        self._elapsed = self._refilling = 0.0

    def _set(self, context: Context) -> None:
        """Show programs what they are to find beside the packet."""
        self._context = context
        queue = self.driver.queue
        rxq = queue.rxq
        rxq["queue_index"], rxq["egress_ifindex"] = context.rx_queue, context.egress_ifindex
        rxq["host"], rxq["secret"] = context.host_address, context.secret
        rxq["hz"], rxq["clock"], rxq["random"] = context.hz, context.clock.ns, context.random_state
        if context.meta:
            queue.prepend(context.meta)
        if context.clock.source is Source.CAPTURE:
            self.source.stamp()
            queue.tell_times(*self.source.stamps)

    def run(
        self,
        program: int,
        *,
        single: bool = False,
        count: int | None = None,
        progress: Callable[[int], None] | None = None,
        listener: Listener | None = None,
    ) -> Result:
        """Run the program at an address (`f(XdpBuff *, n)`; `f(XdpBuff *)` for `single`) over the
        source's packets, at most `count`. `progress` is told the packets done after each slice,
        `listener` hears the events.

        SIGINT and the source's errors end it early: `result` has what was done.
        """
        done = 0
        if listener and listener.trace:
            self.driver.queue.rxq["trace"] = listener.trace.address
        with self._stopped_by_sigint(), self._timed():
            while (count is None or done < count) and not self.driver.queue.stopped:
                limits = [None if count is None else count - done]
                limits.append(listener.budget if listener else None)
                most = min((limit for limit in limits if limit is not None), default=None)
                n = self.driver.slice(program, most, single)
                done += n
                if listener:
                    listener.hear(n)
                if n == 0 and not self._refill():
                    break
                if progress:
                    progress(done)
        return self.result()

    def _refill(self) -> bool:
        start = time.perf_counter()
        try:
            return self.source.refill()
        finally:
            self._refilling += time.perf_counter() - start

    @property
    def stopped(self) -> bool:
        """Whether it was stopped before its end."""
        return self.driver.queue.stopped

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._elapsed += time.perf_counter() - start

    @contextmanager
    def _stopped_by_sigint(self) -> Iterator[None]:
        """Ctrl-C stops the queue after its batch: an exception could be lost in a callback."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, lambda *_: self.driver.queue.stop())
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def result(self) -> Result:
        """The counts as they are now."""
        stats = self.driver.stats
        skipped: Any = getattr(self.source, "skipped", {})
        return Result(
            packets=stats.packets,
            bytes=stats["rx_bytes"],
            actions=stats.verdicts,
            elapsed_s=self._elapsed,
            source_s=timed.spent(self.source) + self._refilling,
            skipped=dict(skipped),
            errors=stats.errors,
            sent={i: (port.tx_packets, port.tx_bytes) for i, port in self.ports.items()},
        )
