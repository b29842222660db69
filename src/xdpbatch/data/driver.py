"""The driver: a queue with its ports and code put together, and its poll loop run in slices.

Analogous to a driver's open routine and to the softirq that calls its NAPI poll again and again.
Python sees a slice of many batches, never a packet or a batch, and does between slices what is
rare: reading on, writing out, obeying ctrl-C.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

from xdpbatch.data import poll
from xdpbatch.data.code import Code, caller
from xdpbatch.data.port import PortTable
from xdpbatch.data.queue import Queue
from xdpbatch.data.staging import Staging
from xdpbatch.data.stats import Stats
from xdpbatch.data.umem import Umem

_SLICE_S = 0.02  # aim: what ctrl-C may have to wait for
_LONGEST = 1 << 20  # packets


class Endpoint(Protocol):
    """What can be sent to: any of `ports`."""

    address: int
    umem: Umem

    def install(self, code: Code) -> None: ...


class Source(Endpoint, Protocol):
    """What can be received from: any of `ports`."""

    ifindex: int

    def stamp(self) -> None: ...

    def refill(self) -> bool: ...


class Recorder(Protocol):
    """The Python side of a recorder: `drain` takes what has been recorded."""

    address: int

    def install(self, code: Code) -> None: ...

    def drain(self) -> None: ...


class Driver:
    """Runs programs over the packets that one port receives."""

    def __init__(
        self,
        port: Source,
        stack: Endpoint,
        code: Code,
        targets: Mapping[int, Endpoint] | None = None,
        batch_size: int = 64,
        recorder: Recorder | None = None,
    ) -> None:
        """XDP_PASS goes to `stack`; `targets` are ports by key (`data.port`: DEVICE + ifindex, …).

        `code` is compiled from `poll.NATIVES`, `wakeup` of each kind of port and `recorder` of the
        recorder. Everything that is handed in is kept alive by the driver.
        """
        self.table = PortTable()
        self.queue = Queue(port.address, port.umem.address, stack.address, self.table, batch_size)
        self.queue.rxq["ifindex"] = port.ifindex
        self._port, self._recorder, self._code = port, recorder, code
        self._endpoints: list[Endpoint] = [port, stack]
        for endpoint in self._endpoints:
            endpoint.install(code)
        for key, target in (targets or {}).items():
            self.add_target(key, target)
        if recorder:
            recorder.install(code)
            port.stamp()
            self.queue.record(recorder.address)
        self._run = caller(code, poll.run)
        self._run_single = caller(code, poll.run_single)
        self._budget = batch_size
        self.staging: Staging | None = None  # of a program whose trampoline reads Rxq.stage

    @property
    def stats(self) -> Stats:
        """What was counted so far."""
        return self.queue.stats

    def add_target(self, key: int, target: Endpoint) -> None:
        """Let redirects with a key of the port table find a port."""
        target.install(self._code)
        self._endpoints.append(target)
        self.table.add(key, target.address)

    def run(self, program: int, count: int | None = None, single: bool = False) -> int:
        """Until the source ends, the queue is stopped or `count` packets are done; how many were.

        `program` is the address of the program's code: `f(XdpBuff *, n)`, or `f(XdpBuff *)` for
        `single`. The source's errors leave all counts exact, and what was recorded is with the
        recorder. Let SIGINT's handler call `queue.stop()`: a KeyboardInterrupt would be lost in a
        program that is a Python callback.
        """
        done = 0
        while (count is None or done < count) and not self.queue.stopped:
            n = self.slice(program, None if count is None else count - done, single)
            done += n
            if n == 0 and not self._port.refill():
                break
        return done

    def slice(self, program: int, most: int | None = None, single: bool = False) -> int:
        """One call of the compiled loop: about 20 ms, at most `most` packets; 0: none waits."""
        budget = self._budget if most is None else min(self._budget, most)
        run = self._run_single if single else self._run
        if self.staging:
            width, trial = self.staging.next()
            self.queue.rxq["stage"] = width
            budget = budget if trial is None else min(budget, trial)
        start, cpu = time.perf_counter(), time.thread_time_ns()
        n = run(self.queue.address, program, budget)
        took = time.perf_counter() - start
        if self.staging:
            self.staging.tell(n, time.thread_time_ns() - cpu)
        if took < _SLICE_S and n == self._budget:
            self._budget = min(2 * self._budget, _LONGEST)
        elif took > 2 * _SLICE_S:
            self._budget = max(self._budget // 2, self.queue.batch_size)
        if self._recorder:
            self._recorder.drain()
        return n
