"""The measuring harness: it measures what it says, refuses what it cannot tell, and repeats.

No time is asserted: the machine may be as busy as it likes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from test_cli import refused, run

from xdpbatch.asm import program
from xdpbatch.bench import (
    boost,
    costs,
    designs,
    document,
    prefetch,
    programs,
    sort,
    stores,
    sweep,
    ways,
)
from xdpbatch.bench.compare import compare
from xdpbatch.bench.frames import Alone, Frames
from xdpbatch.bench.method import Figure, Grid, Sample, enough, measure
from xdpbatch.bench.method import boost as change
from xdpbatch.bench.report import LOST, Answer, Report, load, markdown, text
from xdpbatch.bench.subject import ACTIONS, EXAMPLES, FIVE, Subject, known, over
from xdpbatch.errors import XdpBatchError
from xdpbatch.interp import Interpreter
from xdpbatch.program import Object
from xdpbatch.runtime import Instance
from xdpbatch.uapi import Action

WAYS = [ways.batched(), ways.one_by_one(), ways.batched(7, "x86")]
EVERY = {**FIVE, **EXAMPLES, **ACTIONS}


class Fixed:
    """A case that takes the given times, in turn."""

    def __init__(self, *times: float) -> None:
        self._times, self.turns = times, 0

    def turn(self) -> Sample:
        self.turns += 1
        cpu = self._times[(self.turns - 1) % len(self._times)]
        return Sample(cpu, 2 * cpu)


def figure(*times: float) -> Figure:
    return Figure(tuple(Sample(time, time) for time in times))


def fixed_grid(**columns: Sequence[float]) -> Grid:
    grid = Grid("test", "a test", "row", {"after": "before"})
    for column, times in columns.items():
        grid.add("one", column, Fixed(*times))
    return grid


def answer_of(grid: Grid, rounds: int = 5) -> Answer:
    return Report(grid, measure(grid, rounds, warm_up=0), rounds).as_object()


def test_cases_take_turns_and_warm_up_is_not_counted() -> None:
    order: list[str] = []

    class Noted(Fixed):
        def turn(self) -> Sample:
            order.append(str(self._times[0]))
            return super().turn()

    grid = Grid("test", "a test", "row")
    first, second = Noted(1.0, 1.0, 5.0, 6.0), Noted(2.0)
    grid.add("one", "a", first)
    grid.add("one", "b", second)
    figures = measure(grid, rounds=2, warm_up=2)
    assert order == ["1.0", "2.0"] * 4
    assert figures["one", "a"].cpu == [5.0, 6.0]
    assert figures["one", "a"].median == 5.5
    assert figures["one", "a"].wall == 11.0


def test_a_change_is_of_rounds_not_of_medians() -> None:
    """The machine became twice as slow in the middle: every round still says the same."""
    told = change(figure(2, 2, 2, 4, 4, 4), figure(1, 1, 1, 2, 2, 2))
    assert told.told
    assert (told.percent, told.low, told.high) == (100, 100, 100)


def test_a_change_within_its_spread_is_not_told() -> None:
    lost = change(figure(1, 2, 1, 2, 1), figure(2, 1, 2, 1, 1))
    assert not lost.told
    answer = answer_of(fixed_grid(before=[1, 2, 1, 2, 1], after=[2, 1, 2, 1, 1]))
    assert answer["cases"][1]["change_percent"] is None
    assert LOST in text(answer)
    assert re.search(r"[-+]\d+ % packets", text(answer)) is None


def test_rows_can_be_compared_with_the_first() -> None:
    grid = Grid("test", "a test", "k", first="0")
    for row, time in ((0, 2.0), (4, 1.0)):
        grid.add(row, "cold", Fixed(time))
    assert "cold against k 0, packets per second: 4 +100 %" in text(answer_of(grid))


def test_notes_come_when_everything_is_done() -> None:
    grid = fixed_grid(before=[1])
    grid.finish = lambda: ["closed"]
    measure(grid, rounds=1)
    assert grid.notes == ["closed"]


def test_enough_repeats() -> None:
    calls: list[int] = []
    assert enough(calls.append, aim=0) == 1
    assert calls == [1]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_alone_does_what_the_interpreter_does(name: str, way: ways.Way) -> None:
    """The same verdicts for the packets that are measured, in the first run and in the last."""
    subject = EVERY[name]
    obj, program = subject.load()
    frames = Frames(subject.packets(64))
    expected: dict[int, int] = {}
    machine = Interpreter(program, subject.instance(obj).maps)
    address = frames.buffs.ctypes.data
    for i in range(frames.count):
        verdict = machine.run(address + i * frames.buffs.itemsize)
        expected[verdict] = expected.get(verdict, 0) + 1
        frames.rxq["redirect_count"] = 0
    frames.restore()
    instance = subject.instance(obj)
    entry, _ = way.entry(instance, program)
    assert frames.verdicts(entry.address, way.size) == expected
    case = Alone(frames, entry.address, way.size)
    case.turn()
    assert frames.verdicts(entry.address, way.size) == expected


def test_traffic_reaches_the_programs_depths() -> None:
    """Ours do not turn back at the first test: most packets get the verdict that costs most."""
    wanted = {
        "parse and hash map": Action.XDP_DROP,
        "5-tuple parse": Action.XDP_PASS,
        "lb": Action.XDP_TX,
        "redirect": Action.XDP_REDIRECT,
        "firewall": Action.XDP_PASS,
    }
    for name, verdict in wanted.items():
        subject = EVERY[name]
        obj, program = subject.load()
        frames = Frames(subject.packets(256))
        instance = subject.instance(obj)
        entry, _ = ways.batched().entry(instance, program)
        assert frames.verdicts(entry.address, 64).get(int(verdict), 0) > 200, name


def test_only_programs_that_need_it_have_their_packets_put_back() -> None:
    for name, needs in {"lb": True, "MAC-swap TX": False, "drop": False}.items():
        subject = EVERY[name]
        obj, program = subject.load()
        frames = Frames(subject.packets(16))
        instance = subject.instance(obj)
        entry, _ = ways.batched().entry(instance, program)
        assert frames.must_restore(entry.address, 64) is needs, name


def test_the_wide_swap_swaps() -> None:
    one = program(stores.WIDE_SWAP)
    frames = Frames([bytes(range(12)) + b"\x08\0" + bytes(50)])
    entry = Instance(Object("wide", {one.name: one}, {})).entry(one, "llvm")
    assert frames.verdicts(entry.address, 64) == {Action.XDP_TX: 1}
    after = frames.umem.area[0, 256 : 256 + 14].tobytes()
    assert after == bytes([*range(6, 12), *range(6)]) + b"\x08\0"


def test_no_packets_is_an_error() -> None:
    with pytest.raises(XdpBatchError, match="no packet"):
        Frames([])


GRIDS = {
    "boost": lambda: boost.grid(),
    "boost alone": lambda: boost.grid(alone=True),
    "programs": lambda: costs.grid({"lb": EXAMPLES["lb"]}, kernel=False),
    "batch sizes": lambda: sweep.by_batch_size(FIVE["drop"], [1, 64]),
    "flows": lambda: sweep.by_flows(FIVE["drop"], [1, 10], batch_size=8),
    "entries": lambda: sweep.by_entries(FIVE["parse and hash map"], [10, 100]),
    "packets": lambda: sweep.by_packets(FIVE["drop"], [1, 10]),
    "prefetch": lambda: prefetch.grid(FIVE["5-tuple parse"], [0, 4], 512),
    "sort": lambda: sort.grid(),
    "results": lambda: designs.grid(),
    "stores": lambda: stores.grid(),
}


@pytest.mark.parametrize("name", GRIDS)
def test_every_grid_is_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xdpbatch.bench.method.TURN_NS", 1000)
    grid = GRIDS[name]()
    answer = answer_of(grid, rounds=1)
    assert len(answer["cases"]) == len(grid.cases) > 0
    assert all(case["cpu"]["median"] > 0 for case in answer["cases"])
    columns = {column for _, column in grid.cases}
    compared = columns & grid.against.keys() if grid.first is None else columns
    assert {case["column"] for case in answer["cases"] if "against" in case} == compared


def test_sweeps_vary_what_they_say() -> None:
    assert sweep.with_flows(FIVE["drop"], 7).spec == "udp,flows=7"
    assert sweep.with_flows(replace(FIVE["drop"], spec="flows=3,tcp"), 7).spec == "tcp,flows=7"


def test_a_capture_is_the_traffic(tmp_path: Path) -> None:
    from xdpbatch.pcap.write import pcap

    path = tmp_path / "in.pcap"
    path.write_bytes(pcap([bytes([i]) * 60 for i in range(5)]))
    subject = over(FIVE["drop"], None, str(path), None)
    assert subject.packets(3) == [bytes([i]) * 60 for i in range(3)]
    obj, program = subject.load()
    case = ways.batched().whole(subject.instance(obj), program, subject)
    assert case.turn().cpu > 0
    assert case.turn().cpu > 0  # from its start again


def test_our_own_object_brings_its_maps(tmp_path: Path) -> None:
    assert known(programs.path("hash")) is FIVE["parse and hash map"]
    assert known(tmp_path / "theirs.o") == Subject(tmp_path / "theirs.o")


def test_json_is_what_compare_reads(tmp_path: Path) -> None:
    old = answer_of(fixed_grid(before=[10, 10, 10, 10, 10], after=[5]))
    new = answer_of(fixed_grid(before=[8, 8, 8, 8, 8], after=[5.1, 4.9, 5.0]))
    path = tmp_path / "old.json"
    path.write_text(json.dumps(old))
    assert load(path) == json.loads(json.dumps(old))
    lines = compare(load(path), new)
    assert any("one, before" in line and "+25.0 %" in line for line in lines)
    assert any("one, after" in line and LOST in line for line in lines)
    with pytest.raises(XdpBatchError, match="cannot be compared"):
        compare(old, {**new, "bench": "other"})


@pytest.mark.parametrize(
    "damage", ["", "[]", "{}", '{"schema": 99}', '{"schema": 1, "cases": [1]}']
)
def test_what_is_no_measurement_is_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(damage)
    assert "no-measurement" in refused("bench", "compare", str(path), str(path))


@pytest.mark.parametrize("suffix", ["svg", "png"])
@pytest.mark.parametrize("row", ["XDP_DROP", "64"])
def test_plots(suffix: str, row: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib (extra plot)")
    from xdpbatch.bench.plot import plot

    grid = Grid("test", "a title to be seen", "batch size")
    grid.add(row, "one by one", Fixed(1.5))
    plot(answer_of(grid), tmp_path / f"out.{suffix}")
    drawn = (tmp_path / f"out.{suffix}").read_bytes()
    assert drawn.startswith(b"\x89PNG" if suffix == "png" else b"<?xml")
    with pytest.raises(XdpBatchError, match=r"no \.png"):
        plot(answer_of(grid), tmp_path / "out.gif")


def test_the_document_has_a_place_for_every_experiment(tmp_path: Path) -> None:
    found = (Path(__file__).parents[2] / "docs/results.md").read_text()
    for name in [*document.EXPERIMENTS, "targets"]:
        assert "NEW" in document.replaced(found, name, "NEW")
    with pytest.raises(XdpBatchError, match="not one place"):
        document.replaced("", "boost", "")


def test_markdown_is_a_table() -> None:
    lines = markdown(answer_of(fixed_grid(before=[2], after=[1]))).splitlines()
    assert lines[0] == "| row | before | after |"
    assert lines[2] == "| one | 2.00 (2.00–2.00) | 1.00 (1.00–1.00) |"
    assert "+100 %" in lines[4]


def test_commands() -> None:
    hash_object = str(programs.path("hash"))
    done = run("bench", "sweep", hash_object, "-b", "1,8", "--rounds", "1", "-j", "-Q")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [case["row"] for case in answer["cases"]] == ["1"] * 4 + ["8"] * 4
    assert answer["schema"] == 1
    assert answer["machine"]["kernel"]
    assert "no list of numbers" in refused("bench", "sweep", "--flows", "1,x")
    assert "vary one thing" in refused("bench", "sweep")
    assert "no machine code" in refused("bench", "boost", "--backend", "interp")
    assert "unreadable" in refused("bench", "compare", "/nowhere", "/nowhere")
