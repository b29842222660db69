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

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from xdpbatch.context import Context
from xdpbatch.data import poll, serve
from xdpbatch.data.buff import MAX_LINEAR
from xdpbatch.data.code import Code, caller
from xdpbatch.data.umem import Umem
from xdpbatch.errors import XdpBatchError
from xdpbatch.jit.native import compile_native
from xdpbatch.lane import Lane, Station
from xdpbatch.maps import CPUS
from xdpbatch.ports.af_xdp import RING_SIZE, VLAN_ETH_HLEN, AfXdpPort, Sizes
from xdpbatch.sys import abilities, link
from xdpbatch.sys.abilities import Ability
from xdpbatch.sys.ingress import Ingress
from xdpbatch.sys.link import Interface, LinkError, Mode
from xdpbatch.sys.redirect import Redirect
from xdpbatch.sys.xsk import CopyMode

GRACE_S = 0.02  # after detaching, for packets that the kernel is handling


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
    context: Context = field(default_factory=Context)  # its clock and seed


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


class Live:
    """Interfaces of this network namespace, taken over until `close`.

    `program` is the address of the compiled program: `f(XdpBuff *, n)`, or `f(XdpBuff *)` for
    `single`. `owner` is kept alive with it: the Instance that has its code and maps.
    Raises XskError, LinkError, BpfError; then everything is as it was.
    """

    def __init__(self, setup: Setup, program: int, owner: object = None) -> None:
        self.setup, self.program = setup, program
        self._owners = [owner]
        self.going = threading.Event()  # cleared while threads are to pause
        self.going.set()
        self._pausing = threading.Lock()
        self.code: Code = compile_native(*poll.NATIVES, *serve.NATIVES, AfXdpPort.wakeup)
        self.interfaces = [link.interface(name) for name in setup.interfaces]
        self.targets = [link.interface(name) for name in setup.to if name not in setup.interfaces]
        self._check_mtu()
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

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within the block, no thread runs a packet: maps can be read and written from Python.

        Packets that come meanwhile wait in the rings, as many as these have room for.
        """
        with self._pausing, ExitStack() as stack:
            self.going.clear()
            stack.callback(self.going.set)
            for lane in self.lanes:
                stack.enter_context(lane.paused())
            yield

    @property
    def failure(self) -> Exception | None:
        """Why a thread has given up: an OSError whose `filename` is the interface that is gone."""
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

    def _check_mtu(self) -> None:
        """A packet must fit into one buffer, with the room that tail adjustments may use."""
        for one in self.interfaces:
            if one.mtu + VLAN_ETH_HLEN > MAX_LINEAR:
                raise LinkError.of(
                    "mtu",
                    f"the MTU of {one} is too large",
                    reason=f"packets of up to {MAX_LINEAR} bytes are run, in one buffer",
                    suggestion=f"ip link set {one.name} mtu {MAX_LINEAR - VLAN_ETH_HLEN}",
                )

    def _zero_copy(self, interface: Interface) -> bool:
        """Whether the driver is to use our memory itself; `auto` finds out by trying."""
        if self.setup.copy_mode is not CopyMode.auto:
            return self.setup.copy_mode is CopyMode.zero_copy
        known = abilities.of(interface)
        if known is not None and not known & Ability.XSK_ZEROCOPY:
            return False
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
