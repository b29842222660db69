"""Serving live queues: the poll loop of one thread, which sleeps when no packet comes.

Analogous to a NAPI thread (napi_threaded_poll): it polls each of its queues in turn, and waits in
poll(2) where a driver would switch its interrupt on again. One call lasts until a given time, holds
no GIL, and makes a system call only to send, to sleep, and to wake what asked for it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from xdpbatch.data.code import Code
from xdpbatch.data.layout import Layout, address_of, aligned
from xdpbatch.data.poll import poll, poll_single, refill
from xdpbatch.data.port import COMPLETION, TX, XDP_WAKEUP_TX
from xdpbatch.data.port import WAKEUP as PORT_WAKEUP
from xdpbatch.data.queue import MAX_BATCH
from xdpbatch.data.ring import CONSUMER, PRODUCER, SIZE
from xdpbatch.data.send import reap
from xdpbatch.mem import (
    call2,
    call6,
    clock_ns,
    load32,
    load64,
    load_acquire32,
    store64,
    store_release32,
)
from xdpbatch.native import native

THREAD = Layout(
    "Thread",
    {
        "queues": "u64",  # address of u64[queue_count]: QUEUEs
        "queue_count": "u64",
        "ports": "u64",  # address of u64[port_count]: PORTs that packets are sent to
        "port_count": "u64",
        "pollfds": "u64",  # address of struct pollfd[pollfd_count]
        "pollfd_count": "u64",
        "sleep": "u64",  # poll(2) of the C library
        "poll": "u64",  # `poll` or `poll_single` of data.poll
        "slept": "u64",  # nanoseconds
        "sleeps": "u64",
        "stop": "u32",
        "spin": "u32",  # 1: never sleep
    },
    88,
)
QUEUES, QUEUE_COUNT, PORTS, PORT_COUNT, POLLFDS, POLLFD_COUNT = range(0, 48, 8)
SLEEP, POLL, SLEPT, SLEEPS, STOP, SPIN = 48, 56, 64, 72, 80, 84

for _field in ("pollfd_count", "sleep", "poll", "slept", "sleeps", "stop", "spin"):
    if THREAD.offset(_field) != globals()[_field.upper()]:
        raise AssertionError(f"THREAD.{_field} is not at {globals()[_field.upper()]}")

MONOTONIC = 1
POLLIN = 1
_MS = 1_000_000
_LOOKS = 32  # rounds between two looks at the clock and at what could not be sent at once
_M32 = 0xFFFFFFFF


@native
def left(port: int) -> int:
    """Packets that were submitted to a port and that its other end has not taken."""
    producer = load32(load64(port + TX + PRODUCER))
    return (producer - load_acquire32(load64(port + TX + CONSUMER))) & _M32


@native
def settle(thread: int) -> int:
    """Have every port send what it still holds and take sent frames back; packets that stay."""
    total = 0
    ports = load64(thread + PORTS)
    for i in range(load64(thread + PORT_COUNT)):
        port = load64(ports + 8 * i)
        if left(port) != 0:
            call2(load64(port + PORT_WAKEUP), port, XDP_WAKEUP_TX)
            total += left(port)
        if load32(port + COMPLETION + SIZE) != 0:
            reap(port)
    return total


@native
def sleep(thread: int, now: int, until: int) -> int:
    """Wait for a packet, until a time at most; for a moment if packets wait to be sent.

    poll(2) of a socket would send its packets too, without saying what was lost: so a thread with
    packets to send does not show it its sockets.
    """
    waiting = settle(thread)
    count = load64(thread + POLLFD_COUNT) if waiting == 0 else 0
    ms = (until - now) // _MS + 1 if waiting == 0 else 1
    if load32(thread + SPIN) != 0:
        return 0
    call6(load64(thread + SLEEP), load64(thread + POLLFDS), count, ms, 0, 0, 0)
    store64(thread + SLEEPS, load64(thread + SLEEPS) + 1)
    return store64(thread + SLEPT, load64(thread + SLEPT) + clock_ns(MONOTONIC) - now)


@native
def serve(thread: int, prog: int, until: int) -> int:
    """Poll all queues in batches until CLOCK_MONOTONIC is `until` ns or `stop` is set.

    Returns how many packets were done; the last poll before `until` found none, or was full.
    """
    done = 0
    rounds = 0
    queues, count = load64(thread + QUEUES), load64(thread + QUEUE_COUNT)
    code = load64(thread + POLL)
    while load_acquire32(thread + STOP) == 0:
        n = 0
        for i in range(count):
            n += call6(code, load64(queues + 8 * i), prog, MAX_BATCH, 0, 0, 0)
        done += n
        rounds += 1
        if n == 0 or rounds % _LOOKS == 0:
            now = clock_ns(MONOTONIC)
            if now >= until:
                break
            if n == 0:
                sleep(thread, now, until)
            else:
                settle(thread)
    return done


NATIVES = (serve, settle, poll, poll_single, refill)


class Thread:
    """The memory of one serving thread; `address` is its THREAD.

    `queues` and `ports` are addresses, `files` descriptors for poll(2); `code` has NATIVES.
    """

    def __init__(
        self,
        queues: Sequence[int],
        ports: Sequence[int],
        files: Sequence[int],
        code: Code,
        single: bool = False,
    ) -> None:
        self.words = THREAD.array(1)
        self.address = address_of(self.words)
        self._lists = [np.array(one, dtype="<u8") for one in (queues, ports)]
        self._pollfds = aligned(8 * max(len(files), 1)).view("<u4").reshape(-1, 2)
        for row, file in zip(self._pollfds, files, strict=False):
            row[:] = file, POLLIN
        for field, value in {
            "queues": address_of(self._lists[0]),
            "queue_count": len(queues),
            "ports": address_of(self._lists[1]),
            "port_count": len(ports),
            "pollfds": address_of(self._pollfds),
            "pollfd_count": len(files),
            "sleep": ctypes.cast(ctypes.CDLL(None).poll, ctypes.c_void_p).value or 0,
            "poll": code.address(poll_single if single else poll),
        }.items():
            self.words[field] = value

    def stop(self) -> None:
        """Let `serve` return after the round it is at; callable from any thread."""
        store_release32(self.address + STOP, 1)

    def go_on(self) -> None:
        """Undo `stop`."""
        store_release32(self.address + STOP, 0)
