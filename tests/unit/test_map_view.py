"""Maps through their types: what Python gives and gets."""

from __future__ import annotations

import pytest

import xdpbatch as xb
from xdpbatch import examples
from xdpbatch.errors import MapError
from xdpbatch.map_view import MapView
from xdpbatch.maps import CPUS, Map
from xdpbatch.program import MapSpec
from xdpbatch.uapi import MapNumber


def maps_of(name: str) -> dict[str, MapView]:
    return dict(xb.load(examples.path(name)).maps)


def test_structs_are_dicts_and_integers_ints() -> None:
    lb = maps_of("lb")
    key = {"addr": "192.0.2.1", "port": b"\x01\xbb", "proto": 6}
    lb["services"][key] = 3
    assert lb["services"][key] == 3
    raw = b"\xc0\x00\x02\x01\x01\xbb\x06\x00"
    assert list(lb["services"]) == [raw]
    assert lb["services"][raw] == 3
    lb["services"][raw] = b"\x04\0\0\0"
    assert lb["services"][key] == 4
    del lb["services"][key]
    assert len(lb["services"]) == 0
    lb["gateway"][0] = {"mac": "02:00:00:00:00:fe", "source": "192.0.2.1"}
    assert lb["gateway"][0]["mac"] == b"\x02\0\0\0\0\xfe"
    assert list(lb["gateway"]) == [0]


def test_a_per_cpu_value_is_one_for_each_cpu() -> None:
    counters = maps_of("lb")["sent"]
    counters[5] = {"packets": 7}
    assert counters[5] == [{"packets": 7, "bytes": 0}] * CPUS
    counters[5] = [{"packets": cpu} for cpu in range(CPUS)]
    assert [one["packets"] for one in counters[5]] == list(range(CPUS))


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("nonsense", 1, "key of map services: 'nonsense' is not a number or address of 8 bytes"),
        ({"addr": "1.2.3"}, 1, "'1.2.3' is not a number or address of 4 bytes"),
        ({"adr": 1}, 1, "a dict with members of struct vip: addr, port, proto"),
        (b"short", 1, "5 bytes is not 8 bytes"),
        ({}, 1 << 32, "value of map services: 4294967296 is not a number of 32 bits"),
        ({}, "one", "'one' is not a number"),
        ({}, ["0x100"], "is not a list of bytes"),
    ],
)
def test_what_does_not_fit_names_the_map(key: object, value: object, why: str) -> None:
    with pytest.raises(MapError) as raised:
        maps_of("lb")["services"][key] = value
    assert why in str(raised.value)


def test_without_types_there_are_bytes_and_numbers() -> None:
    view = MapView(Map(MapSpec("plain", MapNumber.HASH, 3, 2, 4)))
    view[b"abc"] = -1
    assert view[b"abc"] == b"\xff\xff"
    assert list(view) == [b"abc"]
    with pytest.raises(MapError, match="it has no type"):
        view["abc"] = 1
    with pytest.raises(MapError, match="3 bytes; it has no type"):
        view[1] = 1


def test_maps_and_programs_are_called_by_name() -> None:
    inner = Map(MapSpec("inner", MapNumber.ARRAY, 4, 4, 1))
    spec = MapSpec("outer", MapNumber.ARRAY_OF_MAPS, 4, 4, 2, inner=inner.spec)
    view = MapView(Map(spec), None, {"inner": inner.id}.__getitem__)
    view[1] = "inner"
    assert view[1] == inner.id.to_bytes(4, "little")
