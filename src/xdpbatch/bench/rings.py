"""What the data plane costs by itself: whole polls with a program that does next to nothing.

Analogous to the drop and xmit modes of the kernel's samples/bpf/xdpsock. `python -m
xdpbatch.bench.rings [SPEC] [aligned]` prints nanoseconds per packet: receive, run, split, act and
the ports' own work, one batch at a time and one packet at a time, over the same rings and frames.
CPU time of this thread; the cases take turns; median, least and greatest of the turns.
"""

from __future__ import annotations

import statistics
import sys
import time

from xdpbatch.data import poll
from xdpbatch.data.buff import ACT, SIZEOF_XDP_BUFF
from xdpbatch.data.driver import Driver
from xdpbatch.data.port import DEVICE
from xdpbatch.data.target import redirect_to
from xdpbatch.data.umem import Umem
from xdpbatch.jit.native import NativeCode, compile_native
from xdpbatch.mem import store32
from xdpbatch.native import Native, native
from xdpbatch.ports.loop import LoopPort
from xdpbatch.ports.synthetic import SyntheticPort
from xdpbatch.uapi import Action

XDP_DROP, XDP_PASS, XDP_TX = map(int, (Action.XDP_DROP, Action.XDP_PASS, Action.XDP_TX))
XDP_REDIRECT = int(Action.XDP_REDIRECT)
OTHER = 2  # ifindex of the port that is redirected to
PACKETS = 1 << 16  # per turn
TURNS = 60


@native
def drop(buff: int) -> int:
    return XDP_DROP


@native
def let_pass(buff: int) -> int:
    return XDP_PASS


@native
def tx(buff: int) -> int:
    return XDP_TX


@native
def redirect(buff: int) -> int:
    redirect_to(buff, 0, 0, OTHER, 0, 0)
    return XDP_REDIRECT


@native
def drop_all(buffs: int, n: int) -> int:
    for i in range(n):
        store32(buffs + i * SIZEOF_XDP_BUFF + ACT, XDP_DROP)
    return 0


@native
def pass_all(buffs: int, n: int) -> int:
    for i in range(n):
        store32(buffs + i * SIZEOF_XDP_BUFF + ACT, XDP_PASS)
    return 0


@native
def tx_all(buffs: int, n: int) -> int:
    for i in range(n):
        store32(buffs + i * SIZEOF_XDP_BUFF + ACT, XDP_TX)
    return 0


@native
def redirect_all(buffs: int, n: int) -> int:
    for i in range(n):
        buff = buffs + i * SIZEOF_XDP_BUFF
        store32(buff + ACT, redirect(buff))
    return 0


PROGRAMS: dict[str, tuple[Native, Native]] = {
    "XDP_DROP": (drop_all, drop),
    "XDP_PASS": (pass_all, let_pass),
    "XDP_TX": (tx_all, tx),
    "XDP_REDIRECT": (redirect_all, redirect),
}


class Case:
    """One program over one kind of traffic, batched or one by one."""

    def __init__(
        self, program: Native, single: bool, code: NativeCode, spec: str, aligned: bool
    ) -> None:
        umem = Umem(256, aligned)
        port = SyntheticPort(umem, spec, ifindex=1)
        other, stack = LoopPort(umem, OTHER), LoopPort(umem, 0)
        self._driver = Driver(port, stack, code, {DEVICE + OTHER: other})
        self._program = code.address(program)
        self._single = single
        self.times: list[float] = []

    def turn(self) -> None:
        """Run some packets and note nanoseconds per packet."""
        start = time.thread_time_ns()
        done = self._driver.run(self._program, PACKETS, self._single)
        self.times.append((time.thread_time_ns() - start) / done)

    def __str__(self) -> str:
        times = self.times[5:]  # the first turns warm up
        return f"{statistics.median(times):6.2f} ({min(times):.2f}-{max(times):.2f})"


def main(spec: str = "udp,mode=ring", chunks: str = "") -> None:
    """Measure all actions and print a table."""
    programs = [program for pair in PROGRAMS.values() for program in pair]
    code = compile_native(*poll.NATIVES, SyntheticPort.wakeup, LoopPort.wakeup, *programs)
    cases = {
        name: [Case(pair[i], i == 1, code, f"{spec},count=0", chunks == "aligned") for i in (0, 1)]
        for name, pair in PROGRAMS.items()
    }
    for _ in range(TURNS):
        for pair in cases.values():
            for case in pair:
                case.turn()
    print(f"{spec} {chunks}; ns per packet: median (least-greatest)")
    print(f"{'':14}{'batch of 64':>24}{'one by one':>24}")
    for name, (batched, single) in cases.items():
        print(f"{name:14}{batched!s:>24}{single!s:>24}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
