"""Differential fuzzing: whatever the kernel refuses for memory safety is refused here.

Damaged programs go to both verifiers. XDPBATCH_FUZZ=COUNT tries so many, from the seed
XDPBATCH_FUZZ_SEED; without it a fixed few.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from xdpbatch.errors import ObjectError, VerifierError
from xdpbatch.program import Object
from xdpbatch.sys.kernel import KernelObject
from xdpbatch.testing import damage, generate
from xdpbatch.verify import verify

pytestmark = pytest.mark.kernel

COUNT = int(os.environ.get("XDPBATCH_FUZZ", "200"))
SEED = int(os.environ.get("XDPBATCH_FUZZ_SEED", "1"))


def ours(obj: Object) -> str:
    """The code of the refusal, "" if it is accepted."""
    try:
        verify(obj.programs["prog"])
    except VerifierError as error:
        return error.diagnostics[0].code
    return ""


def theirs(obj: Object) -> str:
    """What the kernel says of it, "" if it is accepted."""
    try:
        KernelObject(obj).program("prog")
    except VerifierError as error:
        return error.diagnostics[0].message
    return ""


def test_nothing_is_accepted_that_the_kernel_refuses() -> None:
    outcomes: Counter[str] = Counter()
    unsafe: list[str] = []
    stricter: Counter[str] = Counter()

    @seed(SEED)
    @settings(
        max_examples=COUNT,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def compare(data: st.DataObject) -> None:
        try:
            if data.draw(st.booleans()):
                obj = generate.as_object(data.draw(damage.texts()))
            else:
                obj = generate.as_object(data.draw(generate.texts(least=4)))
                one = obj.programs["prog"]
                one = replace(one, insns=data.draw(damage.fields(one.insns)))
                obj = replace(obj, programs={"prog": one})
        except ObjectError:
            return
        here, there = ours(obj), theirs(obj)
        outcomes[
            f"{'refused' if here else 'accepted'}, kernel {'refuses' if there else 'accepts'}"
        ] += 1
        if there and not here:
            unsafe.append(f"{there}\n{obj.programs['prog'].insns}")
        if here and not there:
            stricter[here] += 1

    compare()
    print(f"seed {SEED}:", dict(outcomes), "stricter:", dict(stricter))
    assert not unsafe, "\n\n".join(unsafe[:3])
    assert outcomes["accepted, kernel accepts"], "nothing was compared"
