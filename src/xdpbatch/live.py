"""Live interfaces: taken over, their queues served by threads, and given back as they were.

Analogous to loading a driver with native XDP for as long as the process lives. Each thread serves
some queue numbers of every interface, so that redirects stay within its memory:

    Lane (thread) --per interface and queue--> AfXdpPort + Queue       the program runs here
                  --per interface-----------> AfXdpPort of an Ingress  XDP_PASS goes here
                  --per `to` interface------> AfXdpPort that only sends

Nothing is lost without being counted: what was received is the sum of outcomes and errors, and what
the kernel could not give to or take from a socket is in `Counts.kernel`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from xdpbatch.data import poll, serve
from xdpbatch.data.code import Code, caller
from xdpbatch.data.driver import Driver
from xdpbatch.data.port import CPU, DEVICE
from xdpbatch.data.stats import Stats
from xdpbatch.data.umem import Umem
from xdpbatch.errors import XdpBatchError
from xdpbatch.jit.native import compile_native
from xdpbatch.maps import CPUS
from xdpbatch.ports.af_xdp import RING_SIZE, AfXdpPort, Sizes
from xdpbatch.sys import link
from xdpbatch.sys.ingress import Ingress
from xdpbatch.sys.link import Interface, LinkError, Mode
from xdpbatch.sys.redirect import Redirect
from xdpbatch.sys.xsk import CopyMode, Socket

SLICE_NS = 50_000_000  # a thread listens to Python that often
GRACE_S = 0.02  # after detaching, for packets that the kernel is handling
DRAIN_S = 1.0  # at most, to send what is in the rings
HZ = 250  # of the clock behind jiffies64


@dataclass(frozen=True, slots=True)
class Setup:
    """How interfaces are taken over. `interfaces` run the program, `to` can be redirected to.

    `queues`: numbers, or None for all. `single`: one packet at a time, `flush_each`: and sent at
    once. `pin`: each thread to one CPU. `spin`: never sleep.
    """

    interfaces: Sequence[str]
    to: Sequence[str] = ()
    queues: Sequence[int] | None = None
    mode: Mode = Mode.native
    copy_mode: CopyMode = CopyMode.auto
    batch_size: int = 64
    ring_size: int = RING_SIZE
    single: bool = False
    flush_each: bool = False
    pin: bool = False
    spin: bool = False
    busy_poll: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Counts:
    """Packets so far. received + copies = the sum of `outcomes` + the sum of `errors`; `copies` are
    what broadcasts made of packets.

    `errors` are verdicts that could not be carried out, by action and reason. `kernel` is what
    happened outside: packets that came but never reached a ring, or left one but not the device.
    """

    received: int = 0
    copies: int = 0
    bytes: int = 0
    batches: int = 0
    busy_ns: int = 0
    verdicts: Mapping[str, int] = field(default_factory=dict)
    outcomes: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    kernel: Mapping[str, int] = field(default_factory=dict)


class Station:
    """One receiving queue: its port and its driver."""

    def __init__(self, interface: Interface, queue: int, port: AfXdpPort, driver: Driver) -> None:
        self.interface, self.queue, self.port, self.driver = interface, queue, port, driver

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
        self.failure: OSError | None = None
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
        rxq["queue_index"], rxq["cpu"], rxq["hz"] = port.queue, self.number, HZ
        rxq["random"] = self.setup.seed or time.monotonic_ns()
        driver.queue.words["flush_each"] = int(self.setup.flush_each)
        self.stations.append(Station(interface, port.queue, port, driver))

    def _run(self) -> None:
        if self.setup.pin:
            cpus = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {cpus[self.number % len(cpus)]})
        while not self._draining and self.failure is None:
            self._serve(self.thread.address, self._live.program, self._until(SLICE_NS))
            self.failure = self._gone()
        if self._draining:
            self._finish()

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


class Live:
    """Interfaces of this network namespace, taken over until `close`.

    `program` is the address of the compiled program: `f(XdpBuff *, n)`, or `f(XdpBuff *)` for
    `single`. `owner` is kept alive with it: the Instance that has its code and maps.
    Raises XskError, LinkError, BpfError; then everything is as it was.
    """

    def __init__(self, setup: Setup, program: int, owner: object = None) -> None:
        self.setup, self.program = setup, program
        self._owners = [owner]
        self.code: Code = compile_native(*poll.NATIVES, *serve.NATIVES, AfXdpPort.wakeup)
        self.interfaces = [link.interface(name) for name in setup.interfaces]
        self.targets = [link.interface(name) for name in setup.to if name not in setup.interfaces]
        self.queues = self._chosen_queues()
        self.lane_count = min(
            len(self.queues), CPUS, *(i.queues for i in (*self.interfaces, *self.targets))
        )
        self.zero_copy = {i.ifindex: self._zero_copy(i) for i in (*self.interfaces, *self.targets)}
        self.ingress: dict[int, Ingress] = {}
        self.redirects: dict[int, Redirect] = {}
        self.lanes: list[Lane] = []
        self._final: Counts | None = None
        self._links = ExitStack()
        self._resources = ExitStack()
        try:
            self._open()
        except BaseException:
            self._links.close()
            self._resources.close()
            raise

    def start(self) -> None:
        """Let the threads serve."""
        for lane in self.lanes:
            lane.start()

    def swap(self, program: int, owner: object = None) -> None:
        """From each thread's next slice on, run another program. No packet is lost: the interfaces
        do not notice. Owners of old programs are kept: threads may still be in their code.
        """
        self._owners.append(owner)
        self.program = program

    @property
    def failure(self) -> OSError | None:
        """Why a thread has given up: the interface is gone. Its `filename` names it."""
        return next((lane.failure for lane in self.lanes if lane.failure), None)

    def stations(self) -> list[Station]:
        """Every receiving queue."""
        return [station for lane in self.lanes for station in lane.stations]

    def counts(self) -> Counts:
        """What was counted so far, of all queues."""
        return self._final or self._counts()

    def stop(self) -> Counts:
        """Detach, serve what is in the rings, and close everything. Returns the final counts."""
        if self._final is None:
            self._links.close()
            time.sleep(GRACE_S)
            for lane in self.lanes:
                lane.drain()
            self._final = self._counts()
            self._resources.close()
        return self._final

    def __enter__(self) -> Live:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _chosen_queues(self) -> list[int]:
        most = min(interface.queues for interface in self.interfaces)
        if self.setup.queues is None:
            return list(range(most))
        for queue in self.setup.queues:
            for one in self.interfaces:
                if not 0 <= queue < one.queues:
                    raise LinkError.of(
                        "no-such-queue",
                        f"{one} has no queue {queue}",
                        suggestion=f"-q 0-{one.queues - 1}, or -q all",
                    )
        return sorted(set(self.setup.queues))

    def _zero_copy(self, interface: Interface) -> bool:
        """Whether the driver is to use our memory itself; `auto` finds out by trying."""
        if self.setup.copy_mode is not CopyMode.auto:
            return self.setup.copy_mode is CopyMode.zero_copy
        umem = Umem(2, aligned_chunks=True)
        try:
            AfXdpPort(
                umem, interface.ifindex, self.queues[0] % interface.queues,
                sizes=Sizes(0, 1), copy_mode=CopyMode.zero_copy,
            ).close()  # fmt: skip
        except XdpBatchError:
            return False
        return True

    def _open(self) -> None:
        """Sockets first, programs last: an interface is taken over when all is ready for it.

        Ready means also that the fill rings are full, or the first packets would be lost.
        """
        refill = caller(self.code, poll.refill)
        for interface in self.interfaces:
            if interface.attached:
                raise link.busy(interface)
            self.ingress[interface.ifindex] = way = Ingress(interface, self.lane_count)
            self._resources.callback(way.close)
        for number in range(self.lane_count):
            lane = Lane(number, self.setup, self)
            self._resources.callback(lane.close)
            self.lanes.append(lane)
        for interface in self.interfaces:
            redirect = Redirect(max(interface.queues, 1))
            self.redirects[interface.ifindex] = redirect
            for station in self.stations():
                if station.interface is interface:
                    refill(station.driver.queue.address)
                    redirect.add(station.queue, station.port.socket)
            self._links.callback(link.attach(redirect.fd, interface, self.setup.mode).close)

    def _counts(self) -> Counts:
        stats = [station.stats for station in self.stations()]
        ports = [port for lane in self.lanes for port in lane.ports]
        kernel = {
            "rx_ring_full": sum(p.statistics.rx_ring_full for p in ports),
            "rx_dropped": sum(p.statistics.rx_dropped for p in ports),
            "rx_other_queues": sum(r.undelivered for r in self.redirects.values()),
            "tx_refused_by_device": sum(p.refused for p in ports),
            "tx_invalid": sum(p.statistics.tx_invalid_descs for p in ports),
            "tx_unsent": sum(p.unsent for p in ports),
        }
        return Counts(
            received=sum(s.packets for s in stats),
            copies=sum(s["copies"] for s in stats),
            bytes=sum(s["rx_bytes"] for s in stats),
            batches=sum(s["batches"] for s in stats),
            busy_ns=sum(lane.busy_ns for lane in self.lanes),
            verdicts=_sum(s.verdicts for s in stats),
            outcomes=_sum(s.outcomes for s in stats),
            errors=_sum(s.errors for s in stats),
            kernel={name: count for name, count in kernel.items() if count},
        )


def _sum(mappings: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for mapping in mappings:
        for name, count in mapping.items():
            total[name] = total.get(name, 0) + count
    return total
