"""What a queue counts: analogous to the per-CPU `struct datarec` of xdp-tools' xdp_sample.

Nothing is lost without being counted. For each queue, always:

    rx + copies = dropped + transmitted + redirected + passed + aborted + errors

where copies are what BPF_F_BROADCAST made beyond the first, and an error is a packet whose verdict
could not be carried out, named by action and reason; the kernel counts it in xdp_exception or
xdp_redirect_err with the errno given here.
"""

from __future__ import annotations

from collections.abc import Mapping

from xdpbatch.data.layout import Layout, address_of
from xdpbatch.uapi import Action

# Reasons why a packet could not be sent on, with what xdp-monitor shows for it.
NO_TARGET, TOO_LONG, RING_FULL, NO_FRAME, BAD_MAP, EGRESS_DROP = range(6)
REASONS = {
    "no_target": NO_TARGET,  # EINVAL: no port with that ifindex, CPU or socket
    "too_long": TOO_LONG,  # EMSGSIZE: longer than the target takes
    "ring_full": RING_FULL,  # ENOSPC: the target's tx ring
    "no_frame": NO_FRAME,  # ENOMEM: no free frame for a copy
    "bad_map": BAD_MAP,  # EBADRQC: a map type that cannot be redirected to
    "egress_drop": EGRESS_DROP,  # not passed by the program of a devmap's or cpumap's entry
}
_SENDING = (Action.XDP_PASS, Action.XDP_TX, Action.XDP_REDIRECT)

STATS = Layout(
    "Stats",
    {
        **{f"{action.name.lower()}": "u64" for action in Action},  # verdicts
        "unknown": "u64",  # of XDP_ABORTED: verdicts that are no xdp_action
        "rx_bytes": "u64",
        "batches": "u64",
        **{f"{a.name.lower()}_{reason}": "u64" for a in _SENDING for reason in REASONS},
        "copies": "u64",  # packets that BPF_F_BROADCAST made
        "fill_empty": "u64",  # polls that had no frame to give to the fill ring
        **{f"reserved{i}": "u64" for i in range(4)},
    },
    256,
)
VERDICTS, UNKNOWN, RX_BYTES, BATCHES, ERRORS = 0, 40, 48, 56, 64
COPIES, FILL_EMPTY = 208, 216
SIZEOF_STATS = 256
REASON_COUNT = len(REASONS)


class Stats:
    """The counters of one queue. `address` is its STATS; `words` shows them as numpy does."""

    def __init__(self) -> None:
        self.words = STATS.array(1)
        self.address = address_of(self.words)

    def __getitem__(self, counter: str) -> int:
        return int(self.words[counter][0])

    @property
    def packets(self) -> int:
        """Packets that the program was run on."""
        return sum(self.verdicts.values())

    @property
    def verdicts(self) -> Mapping[str, int]:
        """What the program returned, by action; XDP_ABORTED includes unknown verdicts."""
        return {action.name: self[action.name.lower()] for action in Action}

    @property
    def errors(self) -> Mapping[str, int]:
        """Packets whose verdict could not be carried out, by name ("xdp_tx_ring_full"), not 0."""
        names = [f"{a.name.lower()}_{reason}" for a in _SENDING for reason in REASONS]
        return {name: self[name] for name in names if self[name]}

    @property
    def outcomes(self) -> Mapping[str, int]:
        """What was carried out, by action; with `errors` it adds up to `packets` and copies."""
        wanted = dict(self.verdicts)
        wanted[Action.XDP_REDIRECT.name] += self["copies"]
        return {
            action: count - sum(n for name, n in self.errors.items() if _of(name, action))
            for action, count in wanted.items()
        }


def _of(error: str, action: str) -> bool:
    return error.startswith(f"{action.lower()}_")


if STATS.offset("rx_bytes") != RX_BYTES or STATS.offset("xdp_pass_no_target") != ERRORS:
    raise AssertionError("STATS and its constants differ")
if STATS.offset("copies") != COPIES or STATS.offset("fill_empty") != FILL_EMPTY:
    raise AssertionError("STATS and its constants differ")
