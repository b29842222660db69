"""A recorder: whoever wants to see every packet after the program, in packet order.

Analogous to a tracing program at the exit of an XDP program (fexit, as xdpdump uses). Its code is
called once per batch, before the packets are sorted and their frames are given away.
"""

from __future__ import annotations

from xdpbatch.data.layout import Layout
from xdpbatch.data.queue import RECORDER
from xdpbatch.mem import call2, load64
from xdpbatch.native import native

RECORDER_STATE = Layout(
    "Recorder",
    {
        "code": "u64",  # `record(queue, n)`
        "buffer": "u64",
        "used": "u64",  # bytes
        "limit": "u64",  # `used` beyond which there might be no room for one more batch
        "packets": "u64",  # recorded so far
        **{f"own{i}": "u64" for i in range(3)},
    },
    64,
)
CODE, BUFFER, USED, LIMIT, PACKETS, RECORDER_OWN = range(0, 48, 8)


@native
def record(queue: int, n: int) -> int:
    """Show the recorder, if there is one, the first `n` XdpBuffs of the batch."""
    recorder = load64(queue + RECORDER)
    if recorder != 0:
        call2(load64(recorder + CODE), queue, n)
    return 0


@native
def full(queue: int) -> int:
    """1 if the recorder must be emptied before the next batch."""
    recorder = load64(queue + RECORDER)
    if recorder == 0:
        return 0
    return int(load64(recorder + USED) > load64(recorder + LIMIT))
