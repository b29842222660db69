"""Fixtures of the live tests: namespaces that are removed with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from network import Host, Wire, remove_left_behind


@pytest.fixture(scope="session", autouse=True)
def _clean() -> None:
    """Remove what an earlier run that was killed has left."""
    remove_left_behind()


@pytest.fixture
def hosts() -> Iterator[Callable[[], Host]]:
    """Makes namespaces."""
    made: list[Host] = []

    def make() -> Host:
        made.append(Host())
        return made[-1]

    yield make
    for host in made:
        host.close()


@pytest.fixture
def wire(hosts: Callable[[], Host]) -> Wire:
    """Two namespaces with a pair of one queue between them."""
    return Wire(hosts(), hosts())
