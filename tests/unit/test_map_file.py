"""Contents of maps from files and to files, from the command line."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from xdpbatch import elf, examples, map_file
from xdpbatch.cli import build
from xdpbatch.errors import XdpBatchError
from xdpbatch.map_view import MapView
from xdpbatch.maps import CPUS, Map
from xdpbatch.program import MapSpec
from xdpbatch.uapi import MapNumber


def run(name: str, synth: str, *options: str) -> dict[str, Any]:
    """The report of an example that is run with the maps of the file beside it."""
    path = examples.path(name)
    done = CliRunner().invoke(
        build(),
        [
            "run",
            str(path),
            "--synth",
            synth,
            "--map",
            str(path.with_suffix(".json")),
            "-jQ",
            *options,
        ],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_redirect_goes_where_its_maps_say() -> None:
    report = run("redirect", "udp,count=500")
    assert report["actions"]["XDP_REDIRECT"] == 500
    assert report["sent"]["3"]["packets"] == 500


def test_firewall_drops_what_its_maps_say() -> None:
    dropped = ("udp,count=50,src=10.9.8.0/24", "udp,count=50,dport=53")
    for synth in dropped:
        assert run("firewall", synth)["actions"]["XDP_DROP"] == 50
    assert run("firewall", "tcp,count=50,dport=53")["actions"]["XDP_PASS"] == 50


def test_balancer_sends_to_the_server_of_its_maps() -> None:
    assert run("lb", "udp,count=40,dst=192.0.2.1/32")["actions"]["XDP_TX"] == 40


def test_what_is_dumped_can_be_filled_in(tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert "maps" in run("redirect", "udp,count=9", "--dump-maps", "-")
    flows = str(examples.path("flows"))
    options = ["run", flows, "-Q", "--synth"]
    for more in (
        ["udp,count=99,flows=9,size=64", "--dump-maps", str(first)],
        ["udp", "-c", "0", "--map", str(first), "--dump-maps", str(second)],
    ):
        done = CliRunner().invoke(build(), options + more, catch_exceptions=False)
        assert done.exit_code == 0
    entries = json.loads(first.read_text())["flows"]
    assert len(entries) == 9
    assert sum(e["formatted"]["value"]["packets"] for e in entries) == 99
    by_key = [sorted(json.loads(p.read_text())["flows"], key=str) for p in (first, second)]
    assert by_key[0] == by_key[1]


def view(kind: MapNumber = MapNumber.HASH, key_size: int = 4) -> MapView:
    return MapView(Map(MapSpec("m", kind, key_size, 4, 8)))


def test_both_forms_of_an_entry() -> None:
    m = view()
    map_file.fill(m, [{"key": 1, "value": 2}])
    map_file.fill(m, [{"key": ["0x03", "0x00", "0x00", "0x00"], "value": ["0x04"] + ["0x00"] * 3}])
    assert {tuple(e["key"]): e["value"][0] for e in map_file.dump(m, None)} == {
        ("0x01", "0x00", "0x00", "0x00"): "0x02",
        ("0x03", "0x00", "0x00", "0x00"): "0x04",
    }


def test_values_of_each_cpu() -> None:
    m = view(MapNumber.PERCPU_ARRAY)
    map_file.fill(m, [{"key": 2, "values": [{"cpu": i, "value": i} for i in range(CPUS)]}])
    dumped = map_file.dump(m, None)[2]["values"]
    assert [one["value"][0] for one in dumped] == [f"0x{i:02x}" for i in range(CPUS)]


def test_a_queue_is_filled_in_order_and_not_dumped() -> None:
    queue = view(MapNumber.QUEUE, key_size=0)
    map_file.fill(queue, [{"value": 1}, {"value": 2}])
    assert map_file.dump(queue, None) == {"error": "Invalid argument"}
    assert [queue.map.take()[0], queue.map.take()[0]] == [1, 2]


@pytest.mark.parametrize(
    ("contents", "why"),
    [
        (7, "it is not a list of entries"),
        ([7], "entry 0 is not an object with key and value"),
        ([{"key": 1}], "entry 0 is not an object with key and value"),
        ([{"key": 1, "value": 1}, {"key": "x", "value": 1}], "entry 1: key of map m"),
        ([{"key": 1, "values": 3}], "are not objects with cpu and value"),
        ([{"key": 1, "values": [{"cpu": 9, "value": 1}]}], "one value for each of"),
        ([{"key": i, "value": 1} for i in range(9)], "entry 8: update of map m"),
    ],
)
def test_a_bad_file_names_the_entry(contents: object, why: str) -> None:
    with pytest.raises(XdpBatchError) as raised:
        map_file.fill(view(), contents, "x.json")
    assert why in str(raised.value)
    assert "x.json" in str(raised.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["key", "value", "values", "cpu", "x"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_fills_or_is_refused(contents: object) -> None:
    obj = elf.load(examples.path("lb"))
    for name in ("services", "sent"):
        typed = MapView(Map(obj.maps[name]), obj.btf)
        for one in (typed, view()):
            with suppress(XdpBatchError):
                map_file.fill(one, contents)


@pytest.mark.parametrize("text", ["{", "\udc80", "nul"])
def test_what_is_not_json_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(XdpBatchError):
        map_file.read(str(tmp_path / "x"))


def test_names_of_maps_are_checked(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    given = ["--synth", "udp,count=1", "--map", f"nothing={tmp_path}/x.json"]
    done = CliRunner().invoke(build(), ["run", str(examples.path("drop")), *given])
    assert isinstance(done.exception, XdpBatchError)
    assert "has no map nothing" in str(done.exception)
