"""The driver: runs a queue's compiled poll loop in slices, and does between them what is rare.

Analogous to the softirq that calls a NAPI poll again and again: Python sees a slice of many
batches, never a packet or a batch, and a signal waits for one slice at most.
"""

from __future__ import annotations

import time
from typing import Protocol

from xdpbatch.data import poll
from xdpbatch.data.code import Code, caller
from xdpbatch.data.queue import Queue

_SLICE_S = 0.02  # aim: what ctrl-C may have to wait for
_LONGEST = 1 << 20  # packets


class Source(Protocol):
    """A port that can run dry: `refill` provides for more packets, or says that it has ended."""

    def refill(self) -> bool: ...


class Sink(Protocol):
    """A recorder's Python side: `drain` takes what has been recorded."""

    def drain(self) -> None: ...


class Driver:
    """Runs programs over one queue whose port is `source`."""

    def __init__(
        self, queue: Queue, source: Source, code: Code, recorder: Sink | None = None
    ) -> None:
        self.queue = queue
        self._source = source
        self._recorder = recorder
        self._run = caller(code, poll.run)
        self._run_single = caller(code, poll.run_single)
        self._budget = queue.batch_size

    def run(self, program: int, count: int | None = None, single: bool = False) -> int:
        """Until the source ends, the queue is stopped or `count` packets are done; how many were.

        `program` is the address of the program's code: `f(XdpBuff *, n)`, or `f(XdpBuff *)` for
        `single`. KeyboardInterrupt and the source's errors leave all counts exact, and what was
        recorded is with the recorder.
        """
        done = 0
        while (count is None or done < count) and not self.queue.stopped:
            n = self.slice(program, None if count is None else count - done, single)
            done += n
            if n == 0 and not self._source.refill():
                break
        return done

    def slice(self, program: int, most: int | None = None, single: bool = False) -> int:
        """One call of the compiled loop: about 20 ms, at most `most` packets; 0: none waits."""
        budget = self._budget if most is None else min(self._budget, most)
        run = self._run_single if single else self._run
        start = time.perf_counter()
        n = run(self.queue.address, program, budget)
        took = time.perf_counter() - start
        if took < _SLICE_S and n == self._budget:
            self._budget = min(2 * self._budget, _LONGEST)
        elif took > 2 * _SLICE_S:
            self._budget = max(self._budget // 2, self.queue.batch_size)
        if self._recorder:
            self._recorder.drain()
        return n
