"""Global functions are verified by their types, with the kernel's verdicts, and run everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from compiled import compile_text, compiler

from xdpbatch import cc
from xdpbatch.compare import compare
from xdpbatch.errors import VerifierError
from xdpbatch.program import Object
from xdpbatch.sys.kernel import KernelObject
from xdpbatch.testing import deep
from xdpbatch.verify import verify

__all__ = ["compiler"]

SOURCE = (Path(__file__).parent / "global_functions.c").read_text()


@pytest.fixture
def functions(compiler: cc.Compiler, tmp_path: Path) -> Object:
    return compile_text(compiler, tmp_path, SOURCE)


def ours(obj: Object, name: str) -> bool:
    try:
        verify(obj.programs[name])
    except VerifierError:
        return False
    return True


def theirs(obj: Object, name: str) -> bool:
    try:
        KernelObject(obj).program(name)
    except VerifierError:
        return False
    return True


@pytest.mark.kernel
def test_the_kernel_decides_alike(functions: Object) -> None:
    assert {n: theirs(functions, n) for n in functions.programs} == {
        n: ours(functions, n) for n in functions.programs
    }


def test_what_is_bad_is_refused(functions: Object) -> None:
    assert len(functions.programs) > 12
    for name in functions.programs:
        assert ours(functions, name) != name.startswith("bad_"), name


def test_every_backend_runs_them_alike(functions: Object) -> None:
    against = ("interp", "single", "x86")
    for name in ("stack", "map_value_or_null", "packet", "two_deep", "never_null"):
        packets = deep.packets(64)
        report = compare(functions, packets, name=name, against=against, batch_sizes=(16,))
        assert report.difference is None, report.difference
