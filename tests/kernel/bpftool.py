"""bpftool as a judge of what libbpf and the kernel make of an object."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PACKET = bytes(64)


@pytest.fixture
def pins() -> Iterator[Path]:
    """A folder of the BPF file system, which bpftool mounts if it is not."""
    if shutil.which("bpftool") is None:
        pytest.skip("bpftool is not installed")
    path = Path("/sys/fs/bpf") / f"xdpbatch-{uuid.uuid4().hex}"
    yield path
    shutil.rmtree(path, ignore_errors=True)


def bpftool(*arguments: str | Path) -> str:
    """Its standard output. It runs on one CPU, so that per-CPU maps are written in one copy."""
    cpu = min(os.sched_getaffinity(0))
    done = subprocess.run(
        ["taskset", "-c", str(cpu), "bpftool", *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def load(path: Path, pins: Path) -> None:
    """Pin all programs of an object, and its maps in `maps`."""
    bpftool("prog", "loadall", path, pins, "pinmaps", pins / "maps")


def run(pins: Path, name: str, directory: Path) -> int:
    """What a pinned program returns for one packet."""
    (directory / "packet").write_bytes(PACKET)
    answer = bpftool("-j", "prog", "run", "pinned", pins / name, "data_in", directory / "packet")
    verdict: int = json.loads(answer)["retval"]
    return verdict


def dump(pins: Path, name: str) -> Any:
    """The contents of a pinned map."""
    return json.loads(bpftool("-j", "map", "dump", "pinned", pins / "maps" / name))
