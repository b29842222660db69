"""One thread of a live run: its memory, its ports, the queues that it serves.

Analogous to one softirq of a driver with its NAPI instances. All ports of a lane share its memory,
so that a packet changes ports without a copy; a zero-copy driver's memory is apart from that of
copy mode, because the kernel binds a UMEM to one of both.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from xdpbatch.data import serve
from xdpbatch.data.code import caller
from xdpbatch.data.driver import Driver
from xdpbatch.data.port import CPU, DEVICE
from xdpbatch.data.stats import Stats
from xdpbatch.data.trace import TraceRing
from xdpbatch.data.umem import Umem
from xdpbatch.maps import CPUS
from xdpbatch.ports.af_xdp import AfXdpPort, Sizes
from xdpbatch.sys.link import Interface
from xdpbatch.sys.xsk import CopyMode, Socket

if TYPE_CHECKING:
    from xdpbatch.live import Live, Setup

SLICE_NS = 50_000_000  # a thread listens to Python that often
DRAIN_S = 1.0  # at most, to send what is in the rings


class Station:
    """One receiving queue: its port and its driver."""

    def __init__(self, interface: Interface, queue: int, port: AfXdpPort, driver: Driver) -> None:
        self.interface, self.queue, self.port, self.driver = interface, queue, port, driver
        self.trace = TraceRing()
        driver.queue.rxq["trace"] = self.trace.address

    @property
    def stats(self) -> Stats:
        """What was counted so far."""
        return self.driver.stats


class Lane:
    """One thread with its memory, ports and queues."""

    def __init__(self, number: int, setup: Setup, live: Live) -> None:
        self.number, self.setup, self._live = number, setup, live
        self.ports: list[AfXdpPort] = []
        self.stations: list[Station] = []
        self.failure: Exception | None = None
        self._at_work = threading.Lock()  # held while compiled code may touch maps
        self._owners: dict[bool, AfXdpPort] = {}
        self._umems: dict[bool, Umem] = {}
        self._open()
        addresses = [port.address for port in self.ports]
        queues = [station.driver.queue.address for station in self.stations]
        files = [station.port.socket.fileno() for station in self.stations]
        self.thread = serve.Thread(queues, addresses, files, live.code, setup.single)
        self.thread.words["spin"] = int(setup.spin)
        self._serve = caller(live.code, serve.serve)
        self._settle = caller(live.code, serve.settle)
        self._running = threading.Thread(target=self._run, name=f"xdpbatch-{number}", daemon=True)
        self._draining = False
        self._began = 0

    @property
    def queues(self) -> list[int]:
        """The queue numbers that this thread serves."""
        live = self._live
        return live.queues[self.number :: live.lane_count]

    def start(self) -> None:
        """Begin to serve."""
        self._began = time.monotonic_ns()
        self._running.start()

    def drain(self) -> None:
        """Serve what is in the rings, then end. To be called once nothing more arrives."""
        self._draining = True
        self.thread.stop()
        if self._running.ident is not None:
            self._running.join()

    @property
    def busy_ns(self) -> int:
        """Time that was not spent waiting for packets."""
        if not self._began:
            return 0
        return time.monotonic_ns() - self._began - int(self.thread.words["slept"][0])

    def close(self) -> None:
        """Close all sockets, those that own registered memory last."""
        for port in reversed(self.ports):
            port.close()

    def _open(self) -> None:
        """All ports first: their number says how much memory is needed."""
        live, setup, size = self._live, self.setup, self.setup.ring_size
        both, sending = Sizes(size, size), Sizes(0, size)
        receiving = len(live.interfaces) * len(self.queues)
        sinks = len(live.interfaces) + len(live.targets)
        frames = receiving * both.frames + sinks * sending.frames + 2 * setup.batch_size
        for zero_copy in {live.zero_copy[i.ifindex] for i in live.interfaces} | {False}:
            self._umems[zero_copy] = Umem(frames, aligned_chunks=zero_copy)
        received = {
            interface.ifindex: [self._port(interface, queue, both) for queue in self.queues]
            for interface in live.interfaces
        }
        targets = {DEVICE + index: ports[0] for index, ports in received.items()}
        for one in live.targets:
            targets[DEVICE + one.ifindex] = self._port(one, self.number, sending)
        for interface in live.interfaces:
            stack = self._stack(interface, sending)
            for port in received[interface.ifindex]:
                self._station(interface, port, stack, targets)

    def _port(self, interface: Interface, queue: int, sizes: Sizes) -> AfXdpPort:
        zero_copy = self._live.zero_copy[interface.ifindex]
        mode = CopyMode.zero_copy if zero_copy else CopyMode.copy
        return self._add(
            zero_copy,
            interface.ifindex,
            queue,
            name=str(interface),
            sizes=sizes,
            copy_mode=mode,
            mtu=interface.mtu,
        )

    def _stack(self, interface: Interface, sizes: Sizes) -> AfXdpPort:
        way = self._live.ingress[interface.ifindex]
        name = f"the way back to {interface.name}"
        socket, mtu = way.socket(), interface.mtu
        copy = CopyMode.copy
        return self._add(
            False, way.ifindex, self.number,
            name=name, sizes=sizes, copy_mode=copy, mtu=mtu, socket=socket,
        )  # fmt: skip

    def _add(
        self,
        zero_copy: bool,
        ifindex: int,
        queue: int,
        *,
        name: str,
        sizes: Sizes,
        copy_mode: CopyMode,
        mtu: int,
        socket: Socket | None = None,
    ) -> AfXdpPort:
        """One more port, which shares the memory registered by the first of its copy mode."""
        port = AfXdpPort(
            self._umems[zero_copy], ifindex, queue,
            name=name, sizes=sizes, copy_mode=copy_mode, mtu=mtu, socket=socket,
            shared=self._owners.get(zero_copy),
        )  # fmt: skip
        self._owners.setdefault(zero_copy, port)
        self.ports.append(port)
        if self.setup.busy_poll and sizes.rx:
            port.socket.busy_poll()
        return port

    def _station(
        self,
        interface: Interface,
        port: AfXdpPort,
        stack: AfXdpPort,
        targets: Mapping[int, AfXdpPort],
    ) -> None:
        # A CPUMAP hands packets to the stack on another CPU; here the stack chooses the CPU.
        cpus = {CPU + number: stack for number in range(CPUS)}
        own = {**targets, **cpus, DEVICE + interface.ifindex: port}
        driver = Driver(port, stack, self._live.code, own, self.setup.batch_size)
        rxq = driver.queue.rxq
        context = self.setup.context
        rxq["queue_index"], rxq["cpu"], rxq["hz"] = port.queue, self.number, context.hz
        rxq["clock"], rxq["random"] = context.clock.ns, context.random_state
        rxq["host"], rxq["secret"] = context.host_address, context.secret
        driver.queue.words["flush_each"] = int(self.setup.flush_each)
        self.stations.append(Station(interface, port.queue, port, driver))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within the block, no packet is run; those that come wait in the rings."""
        self.thread.stop()
        with self._at_work:
            self.thread.go_on()
            yield

    def _run(self) -> None:
        try:
            if self.setup.pin:
                cpus = sorted(os.sched_getaffinity(0))
                os.sched_setaffinity(0, {cpus[self.number % len(cpus)]})
            while not self._draining and self.failure is None:
                self._live.going.wait()
                with self._at_work:
                    self._serve(self.thread.address, self._live.program, self._until(SLICE_NS))
                self.failure = self._gone()
            if self._draining:
                self._finish()
        except Exception as error:  # the main thread raises it
            self.failure = error

    def _gone(self) -> OSError | None:
        """The failure of the first port that has one; asking takes it away."""
        failures = (port.failure for port in self.ports)
        return next((one for one in failures if one), None)

    def _finish(self) -> None:
        self.thread.go_on()
        deadline = time.monotonic() + DRAIN_S
        while self._serve(self.thread.address, self._live.program, self._until(1_000_000)):
            if time.monotonic() > deadline:
                break
        while self._outstanding() and time.monotonic() < deadline:
            self._settle(self.thread.address)
            time.sleep(0.001)

    def _outstanding(self) -> int:
        return sum(port.outstanding for port in self.ports)

    def _until(self, more: int) -> int:
        return time.monotonic_ns() + more
