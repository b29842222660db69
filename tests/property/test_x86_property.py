"""Generated programs with branches, stack, packet and map accesses, several exits and functions:
the x86 backend, in every form of the trampoline, does what the interpreter does."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xdpbatch.compare import COMPARED, Interpreted, Single
from xdpbatch.data.layout import address_of
from xdpbatch.jit import x86
from xdpbatch.rewrite import Batched, Results, xlate
from xdpbatch.rewrite.batch import batch
from xdpbatch.rewrite.poc import poc
from xdpbatch.runtime import Instance
from xdpbatch.test_run import Bench, Outcome
from xdpbatch.testing.generate import as_object, packets, texts
from xdpbatch.verify import verify

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the x86 backend needs an x86-64 machine"
)
CLOCK = 10**12
SIZE = 4


def run(code: Batched, instance: Instance, traffic: Sequence[bytes]) -> list[Outcome]:
    """Batches of SIZE and a rest."""
    compiled = x86.compile(code, instance.addresses)
    bench, results = Bench(SIZE, CLOCK), np.zeros(SIZE, np.uint32)
    array = [address_of(results)] if code.results is Results.ARRAY else []
    kind = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * (2 + len(array)))
    out = []
    for first in range(0, len(traffic), SIZE):
        n = bench.fill(traffic[first : first + SIZE])
        kind(compiled.address)(bench.address, *array, n)
        out += [bench.outcome(i, int(results[i]) if array else None) for i in range(n)]
    return out


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(texts(), min_size=1, max_size=2),
    packets(),
    st.sampled_from(Results),
    st.sampled_from([0, 1, 3]),
)
def test_x86_is_the_interpreter(
    programs: list[str], traffic: list[bytes], results: Results, prefetch: int
) -> None:
    obj = as_object(*programs)
    program = next(iter(obj.programs.values()))
    xlated = xlate(verify(program))
    reference = Interpreted(Instance(obj), program, CLOCK)
    wanted = reference.run(traffic)
    for form in (
        batch(xlated, results=results, prefetch=prefetch),
        poc(xlated, fixed=True, results=results, prefetch=prefetch),
    ):
        native = Single(Instance(obj), program, "x86", CLOCK)  # tail calls find their programs
        assert run(form, native.instance, traffic) == wanted, form.layout
        for spec in obj.maps.values():
            if spec.type in COMPARED:
                assert native.contents(spec) == reference.contents(spec)
