"""Rates over veth: batched against one by one, for DROP, TX and REDIRECT, in turns.

    python -m xdpbatch.bench.live [--rounds 5] [--seconds 1] [--realtime]

Analogous to running `xdp-trafficgen` against `xdp-bench`. The sender is the kernel itself
(BPF_PROG_TEST_RUN with live frames, redirected into a veth), so that it is never the bottleneck of
TX and REDIRECT. Everything happens in private network namespaces, which go with the process.
`--realtime` gives sender and runtime SCHED_FIFO: on a machine that others use, too, rates otherwise
say how much of a CPU the scheduler gave them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import xdpbatch.examples
from xdpbatch import elf
from xdpbatch.asm import program
from xdpbatch.live import Counts, Live, Setup
from xdpbatch.live_report import difference
from xdpbatch.runtime import BATCH, SINGLE, Instance
from xdpbatch.sys import bpf, link, netns
from xdpbatch.sys.kernel import KernelProgram

EXAMPLES = Path(next(iter(xdpbatch.examples.__path__)))
LIVE_FRAMES = 2  # BPF_F_TEST_XDP_LIVE_FRAMES
CHUNK = 500_000  # packets per call of the sender
WARM_S = 0.1
PACKET = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x88\xb5".ljust(60, b"\0")
ACTIONS = ("drop", "tx", "redirect")


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run the same packets."""

    name: str
    single: bool = False
    flush_each: bool = False


WAYS = (
    Way("batch 64"),
    Way("one by one, flush per poll", single=True),
    Way("one by one, flush per packet", single=True, flush_each=True),
)


class Bench:
    """Sender v0 -- v1 runtime w1 -- w0 receiver, each in a namespace of its own."""

    def __init__(self) -> None:
        self.sender, self.middle, self.receiver = (netns.private() for _ in range(3))
        _veth(self.sender, "v0", self.middle, "v1")
        _veth(self.receiver, "w0", self.middle, "w1")

    @contextmanager
    def traffic(self) -> Iterator[None]:
        """Packets into v0 as fast as the kernel makes them."""
        with netns.inside(self.sender):
            index = link.interface("v0").ifindex
        sending = KernelProgram(
            program(f"r1 = {index}\nr2 = 0\ncall bpf_redirect#23\nexit\n", "sender"), {}
        )
        stop = threading.Event()

        def send() -> None:
            with netns.inside(self.sender):
                while not stop.is_set():
                    bpf.prog_test_run(
                        sending.fd,
                        PACKET,
                        repeat=CHUNK,
                        flags=LIVE_FRAMES,
                        batch_size=64,
                        out_size=0,
                    )

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def measure(self, action: str, way: Way, seconds: float) -> tuple[Counts, float]:
        """What was counted in `seconds`, and how long they were."""
        instance = Instance(elf.load(EXAMPLES / f"{action}.o"))
        (one,) = instance.object.programs.values()
        entry = instance.entry(one, "llvm", SINGLE if way.single else BATCH)
        setup = Setup(["v1"], to=["w1"], single=way.single, flush_each=way.flush_each)
        with netns.inside(self.middle):
            if action == "redirect":
                instance.maps["ports"][bytes(4)] = struct.pack("=I", link.interface("w1").ifindex)
            live = Live(setup, entry.address, instance)
        with live, self.traffic():
            time.sleep(WARM_S)
            before, start = live.counts(), time.monotonic()
            time.sleep(seconds)
            after, end = live.counts(), time.monotonic()
        return difference(after, before), end - start


def _veth(one: bpf.Fd, name: str, other: bpf.Fd, peer: str) -> None:
    """A veth pair between two namespaces, up, without IPv6's own traffic."""
    from pyroute2 import IPRoute

    for space in (one, other):
        with netns.inside(space), open("/proc/sys/net/ipv6/conf/default/disable_ipv6", "w") as file:
            file.write("1")
    with netns.inside(one), IPRoute() as netlink:
        end = {"ifname": peer, "net_ns_fd": int(other)}
        netlink.link("add", ifname=name, kind="veth", peer=end)
    for space, end_name in ((one, name), (other, peer)):
        with netns.inside(space), IPRoute() as netlink:
            netlink.link("set", index=netlink.link_lookup(ifname=end_name)[0], state="up")


def main() -> None:
    """Measure and print a table; each row has the median, least and most of all rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--realtime", action="store_true")
    options = parser.parse_args()
    if options.realtime:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    bench = Bench()
    found: dict[tuple[str, Way], list[tuple[float, float, float]]] = {}
    for _ in range(options.rounds):
        for action in ACTIONS:
            for way in WAYS:
                counts, seconds = bench.measure(action, way, options.seconds)
                rate, lost = counts.received / seconds, sum(counts.kernel.values()) / seconds
                cost = counts.busy_ns / max(counts.received, 1)
                found.setdefault((action, way), []).append((rate / 1e6, lost / 1e6, cost))
    print(f"{'action':<10}{'way':<30}{'Mpps (least to most)':<24}{'lost Mpps':>10}{'ns/pkt':>9}")
    for (action, way), rows in found.items():
        rates, losses, costs = zip(*rows, strict=True)
        middle = statistics.median(rates)
        spread = f"{middle:.2f} ({min(rates):.2f} to {max(rates):.2f})"
        lost, cost = statistics.median(losses), statistics.median(costs)
        print(f"{action:<10}{way.name:<30}{spread:<24}{lost:>10.2f}{cost:>9.0f}")


if __name__ == "__main__":
    main()
