"""The kernel shows a program the same ctx fields and metadata that this runtime shows it."""

from __future__ import annotations

import pytest
from test_context import BACKENDS, FIELDS, META, PACKET, runnable

from xdpbatch.context import LOOPBACK, Context

pytestmark = pytest.mark.kernel

LOADED = FIELDS.replace("r2 = *(u32 *)(r1 + 20)", "r2 = 0")  # an egress is refused by a test run


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("context", [Context(), Context(meta=b"\1\2\3\4"), Context(meta=bytes(32))])
def test_as_the_kernel_shows_it(backend: str, context: Context) -> None:
    for text in (LOADED, META):
        ours, kernels = (runnable(text, one, context).run([PACKET]) for one in (backend, "kernel"))
        assert ours.actions.tolist() == kernels.actions.tolist()
        assert ours.packets == kernels.packets
        assert ours.metadata == kernels.metadata


def test_the_loopback_is_where_packets_come_from() -> None:
    assert runnable(LOADED, "kernel", Context()).run([PACKET]).actions.tolist() == [LOOPBACK << 16]
