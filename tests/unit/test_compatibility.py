"""docs/compatibility.md is current, and the lists of what is missing are right."""

from __future__ import annotations

from pathlib import Path

from xdpbatch import compatibility
from xdpbatch.helpers import helpers
from xdpbatch.maps import map_types
from xdpbatch.uapi import HELPER_NAMES

DOCUMENT = Path(__file__).parents[2] / "docs" / "compatibility.md"


def test_the_document_is_current() -> None:
    assert DOCUMENT.read_text() == compatibility.document(), "run `make docs`"


def test_every_helper_of_xdp_is_listed_once() -> None:
    names = [item.name for item in compatibility.helper_items()]
    assert len(names) == len(set(names))
    assert set(names) >= compatibility.XDP_HELPERS
    assert set(HELPER_NAMES) >= compatibility.XDP_HELPERS


def test_what_is_supported_is_in_a_registry() -> None:
    supported = {item.name for item in compatibility.helper_items() if item.supported}
    assert supported == {helper.name for helper in helpers().values()}
    assert sum(item.supported for item in compatibility.map_items()) == len(map_types())


def test_reasons_are_for_what_exists_and_is_missing() -> None:
    assert set(compatibility._WHY_NOT_HELPER) <= compatibility.XDP_HELPERS
    for items in compatibility.everything().values():
        assert all(item.supported or item.note for item in items)
