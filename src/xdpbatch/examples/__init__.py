"""XDP programs to start from: C sources and the objects made of them."""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path(__file__).parent


def names() -> list[str]:
    """The examples, as in `path(name)`."""
    return sorted(source.stem for source in DIRECTORY.glob("*.c"))


def path(name: str) -> Path:
    """The object of an example."""
    return DIRECTORY / f"{name}.o"
