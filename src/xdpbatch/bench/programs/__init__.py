"""Programs that are measured: C sources and the objects made of them. All use examples/xdp.h."""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path(__file__).parent


def names() -> list[str]:
    """The programs, as in `path(name)`."""
    return sorted(source.stem for source in DIRECTORY.glob("*.c"))


def path(name: str) -> Path:
    """The object of a program."""
    return DIRECTORY / f"{name}.o"
