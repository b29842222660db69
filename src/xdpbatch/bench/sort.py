"""`bench sort`: question 4 of the slides, "sort actions?".

Analogous to the two ways to end a driver's receive routine: take the actions in packet order, or
put the packets of each action together first (data.action.split) and act on each in one go.
"""

from __future__ import annotations

from dataclasses import replace

from xdpbatch.bench import programs, ways
from xdpbatch.bench.method import Grid, Sample, enough, timed
from xdpbatch.bench.subject import Subject
from xdpbatch.data.action import XDP_ABORTED, XDP_DROP, act_on_one, count, tally, verdict
from xdpbatch.data.buff import HANDLE, SIZEOF_XDP_BUFF
from xdpbatch.data.code import caller
from xdpbatch.data.poll import receive
from xdpbatch.data.queue import BATCH, UMEM, UNSORTED
from xdpbatch.data.send import flush
from xdpbatch.data.umem import give
from xdpbatch.jit.native import compile_native
from xdpbatch.mem import call2, load64
from xdpbatch.native import native
from xdpbatch.session import Session

SHARES = (0, 5, 10, 25, 50, 75, 90, 100)  # per cent of XDP_TX


@native
def poll_unsorted(queue: int, prog: int, budget: int) -> int:
    """`data.poll.poll`, but actions are taken in packet order."""
    n = receive(queue, budget)
    if n == 0:
        return 0
    call2(prog, load64(queue + BATCH), n)
    buffs, umem = load64(queue + UNSORTED), load64(queue + UMEM)
    buff = load64(queue + BATCH)
    for i in range(n):
        act = verdict(queue, buff + i * SIZEOF_XDP_BUFF)
        if act in (XDP_DROP, XDP_ABORTED):
            give(umem, load64(buff + i * SIZEOF_XDP_BUFF + HANDLE))
        else:
            act_on_one(queue, buffs + 8 * i, act)
    flush(queue)
    count(queue, tally(queue, n))
    return n


@native
def run_unsorted(queue: int, prog: int, budget: int) -> int:
    """Poll until `budget` packets are done or none waits."""
    done = 0
    while done < budget:
        n = poll_unsorted(queue, prog, budget - done)
        if n == 0:
            break
        done += n
    return done


class Unsorted:
    """The whole poll without `split`."""

    def __init__(self, session: Session, prog: int, owner: object) -> None:
        self._session, self._prog, self._owner = session, prog, owner
        self._code = compile_native(run_unsorted)
        self._run = caller(self._code, run_unsorted)
        self._count = 1024 * enough(lambda n: self._poll(1024 * n))

    def turn(self) -> Sample:
        """Some milliseconds."""
        return timed(lambda: self._poll(self._count))

    def _poll(self, packets: int) -> int:
        return int(self._run(self._session.driver.queue.address, self._prog, packets))


def grid(batch_size: int = 64) -> Grid:
    """Rows are how many percent of the packets are sent; the others are dropped."""
    found = Grid(
        "sort",
        "sorted against unsorted actions: the whole poll",
        "percent XDP_TX, the rest XDP_DROP",
        {"sorted": "unsorted"},
    )
    mix = Subject(programs.path("mix"))
    found.settings = {"batch": batch_size, "traffic": "udp and tcp, flows=4096, drawn at random"}
    obj, program = mix.load()
    instance = mix.instance(obj)
    way = ways.batched(batch_size)
    entry, _ = way.entry(instance, program)
    for share in SHARES:
        one = replace(mix, spec=f"udp={100 - share},tcp={share},flows=4096")
        found.add(share, "sorted", way.whole(instance, program, one))
        session = Session(one.port(), batch_size=batch_size)
        found.add(share, "unsorted", Unsorted(session, entry.address, (entry, instance)))
        single = ways.one_by_one()
        found.add(share, "one by one", single.whole(instance, program, one))
    return found
