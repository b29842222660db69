"""What a live run says: rates, objects, summary and queue numbers, from made-up counts."""

from __future__ import annotations

import pytest

from xdpbatch import live_report
from xdpbatch.errors import XdpBatchError
from xdpbatch.live import Counts
from xdpbatch.live_run import parse_queues, ranges

BEFORE = Counts(received=100, bytes=6000, batches=10, busy_ns=1000, outcomes={"XDP_DROP": 100})
AFTER = Counts(
    received=1100,
    bytes=66000,
    batches=30,
    busy_ns=51_000,
    verdicts={"XDP_DROP": 600, "XDP_TX": 500},
    outcomes={"XDP_DROP": 600, "XDP_TX": 490},
    errors={"xdp_tx_ring_full": 10},
    kernel={"rx_ring_full": 7},
)


def test_difference_takes_what_is_new() -> None:
    new = live_report.difference(AFTER, BEFORE)
    assert (new.received, new.bytes, new.batches, new.busy_ns) == (1000, 60_000, 20, 50_000)
    assert new.outcomes == {"XDP_DROP": 500, "XDP_TX": 490}
    assert new.errors == {"xdp_tx_ring_full": 10}


def test_line_has_rates_per_second() -> None:
    words = live_report.line("Summary", live_report.difference(AFTER, BEFORE), 2.0).split()
    pairs = dict(zip(words[2::2], words[1::2], strict=True))
    assert words[0] == "Summary"
    assert pairs == {
        "rx/s": "500",
        "redir/s": "0",
        "err,drop/s": "258",  # 500 dropped, 10 not sent, 7 lost by the kernel, in two seconds
        "xmit/s": "245",
        "pass/s": "0",
        "batch-avg": "50.0",
        "ns/pkt": "50.0",
    }


def test_nothing_received_divides_by_nothing() -> None:
    assert "0.0 batch-avg" in live_report.line("Summary", Counts(), 1.0)
    assert live_report.as_object(Counts(), 1.0)["ns_per_packet"] == 0.0
    assert live_report.summary(Counts(), 1.0) == ["0 packets, 0 bytes in 1.000 s"]


def test_summary_names_each_loss() -> None:
    text = "\n".join(live_report.summary(AFTER, 1.0))
    for part in ("XDP_DROP", "54.55%", "error: xdp_tx_ring_full", "kernel: rx_ring_full"):
        assert part in text


@pytest.mark.parametrize(
    ("text", "queues"), [("all", None), ("3", [3]), ("0-2", [0, 1, 2]), ("0,4-5", [0, 4, 5])]
)
def test_queues(text: str, queues: list[int] | None) -> None:
    assert parse_queues(text) == queues


@pytest.mark.parametrize("text", ["", "x", "3-1", "1,,2", "-1"])
def test_no_queues(text: str) -> None:
    with pytest.raises(XdpBatchError, match=r"names no queues|name"):
        parse_queues(text)


def test_ranges() -> None:
    assert [ranges([0]), ranges([0, 1, 2]), ranges([0, 2])] == ["0", "0-2", "0,2"]
