"""`bench afxdp`: question 5 of the slides, what AF_XDP gains.

Analogous to xdpsock over a veth pair (samples/bpf/xdpsock). Every case has a pair and a network
namespace of its own; the other end is flooded by BPF_PROG_TEST_RUN with live frames, as
xdp-trafficgen does. Time is that of the receiving thread on its CPU, its system calls included.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import enumerate as threads
from typing import Any

from xdpbatch.asm import program as assemble
from xdpbatch.bench.method import Grid, Sample
from xdpbatch.bench.subject import ACTIONS, Subject
from xdpbatch.errors import UnsupportedError
from xdpbatch.isa import encode
from xdpbatch.live import Live, Setup
from xdpbatch.packets import Synthetic
from xdpbatch.runtime import BATCH, SINGLE
from xdpbatch.sys import bpf, netns
from xdpbatch.sys.kernel import XDP_MD
from xdpbatch.sys.xsk import CopyMode

LIVE_FRAMES = 1 << 1  # BPF_F_TEST_XDP_LIVE_FRAMES
FLOOD = 1 << 16  # packets per turn
BURST = 64
QUIET_S = 0.02  # without a packet: the flood is over
SEND = "r0 = 3\nexit"  # XDP_TX: out of the interface that the packet seems to come from
BATCHED, SINGLE_WAY, EACH = "batch 64", "one by one", "one by one, sent at once"
WAYS: dict[str, dict[str, Any]] = {
    EACH: {"single": True, "flush_each": True},
    SINGLE_WAY: {"single": True},
    BATCHED: {"batch_size": 64},
}


class Veth:
    """Two namespaces with a pair between them: `here` receives on `v1`, `there` sends on `v0`.

    `here` has a second pair, `w0` with ifindex 2, for redirects; its other end is `there` too.
    """

    def __init__(self) -> None:
        from pyroute2 import IPRoute

        try:
            self.here, self.there = netns.private(), netns.private()
        except OSError as error:
            raise UnsupportedError.of(
                "afxdp", "no network namespaces", reason=str(error), suggestion="run as root"
            ) from None
        with netns.inside(self.here), IPRoute() as route:
            for near, far in (("w0", "w1"), ("v1", "v0")):
                peer = {"ifname": far, "net_ns_fd": int(self.there)}
                route.link("add", ifname=near, kind="veth", peer=peer)
        self.sender = self._up(self.there, ("v0", "w1"))[0]
        self._up(self.here, ("v1", "w0"))

    def _up(self, namespace: int, names: Sequence[str]) -> list[int]:
        """Set interfaces up, without IPv6's own packets; their ifindexes."""
        from pyroute2 import IPRoute

        with netns.inside(namespace), IPRoute() as route:
            found = []
            for name in names:
                Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1\n")
                (index,) = route.link_lookup(ifname=name)
                route.link("set", index=index, state="up")
                found.append(index)
            return found

    def close(self) -> None:
        """Remove both namespaces."""
        self.here.close()
        self.there.close()


@dataclass
class Flooded:
    """One way to run one program on an interface that is flooded."""

    veth: Veth
    live: Live
    clock: int  # of the receiving thread
    sender: bpf.Fd
    packets: list[bytes]
    turns: int = 0

    def turn(self) -> Sample:
        """One flood."""
        before = self.live.counts().received
        wall, cpu = time.perf_counter_ns(), time.clock_gettime_ns(self.clock)
        self._send(self.packets[self.turns % len(self.packets)])
        self.turns += 1
        self._settle()
        cpu = time.clock_gettime_ns(self.clock) - cpu
        wall = time.perf_counter_ns() - wall
        done = self.live.counts().received - before
        if not done:
            raise UnsupportedError.of("afxdp", "no packet of a flood arrived on a veth pair")
        return Sample(cpu / done, wall / done)

    def summary(self) -> str:
        """Packets per batch, which is packets per wakeup of a target; and what was lost."""
        counts = self.live.counts()
        lost = ", ".join(f"{count} {name}" for name, count in counts.kernel.items())
        return (
            f"{counts.received / max(counts.batches, 1):.1f} packets per poll"
            f"{f', beyond capacity {lost}' if lost else ''}"
        )

    def _send(self, packet: bytes) -> None:
        ctx = XDP_MD.pack(0, len(packet), 0, self.veth.sender, 0, 0)
        with netns.inside(self.veth.there):
            bpf.prog_test_run(
                self.sender,
                packet,
                ctx=ctx,
                repeat=FLOOD,
                out_size=0,
                flags=LIVE_FRAMES,
                batch_size=BURST,
            )

    def _settle(self) -> None:
        last, since = -1, time.monotonic()
        while time.monotonic() - since < QUIET_S:
            time.sleep(QUIET_S / 4)
            now = self.live.counts().received
            if now != last:
                last, since = now, time.monotonic()


def open_case(stack: ExitStack, subject: Subject, options: dict[str, Any]) -> Flooded:
    """A pair with the program on it; everything is closed with the stack."""
    veth = Veth()
    stack.callback(veth.close)
    obj, program = subject.load()
    instance = subject.instance(obj)
    form = SINGLE if options.get("single") else BATCH
    entry = instance.entry(program, "llvm", form)
    setup = Setup(
        interfaces=["v1"], to=["w0"], copy_mode=CopyMode.copy, ring_size=4096, pin=True, **options
    )
    running = {thread.ident for thread in threads()}
    with netns.inside(veth.here):
        live = Live(setup, entry.address, instance)
        stack.callback(live.stop)
        live.start()
    (lane,) = (thread for thread in threads() if thread.ident not in running)
    clock = time.pthread_getcpuclockid(lane.ident or 0)
    code = encode(list(assemble(SEND).insns))
    sender = bpf.prog_load(code, "GPL", name="flood", attach_type=37)
    return Flooded(veth, live, clock, sender, _packets())


def _packets() -> list[bytes]:
    """One of each flow; a flood repeats one of them, the next flood the next."""
    every = Synthetic("udp,flows=64,count=64")
    return [bytes(packet) for packet in every]


def grid() -> Grid:
    """Rows are actions; copy mode, because a veth has no other."""
    against = {BATCHED: SINGLE_WAY, SINGLE_WAY: EACH}
    found = Grid(
        "afxdp", "AF_XDP on a veth pair, copy mode: the receiving thread", "action", against
    )
    found.settings = {"packets per flood": FLOOD, "ring": 4096}
    found.notes.append("zero-copy is not measured: a veth has none")
    stack = ExitStack()
    cases: dict[tuple[str, str], Flooded] = {}
    try:
        for action, subject in ACTIONS.items():
            if action != "XDP_PASS":
                for way, options in WAYS.items():
                    cases[action, way] = open_case(stack, subject, options)
                    found.add(action, way, cases[action, way])
    except BaseException:
        stack.close()
        raise

    def finish() -> list[str]:
        notes = [f"{action}, {way}: {case.summary()}" for (action, way), case in cases.items()]
        stack.close()
        return notes

    found.finish = finish
    return found
