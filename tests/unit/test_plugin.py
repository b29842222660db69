"""The pytest plugin, in test runs of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xdpbatch import examples

pytest_plugins = ["pytester"]
DROP = Path(examples.__file__).parent / "drop.o"


def test_a_program_in_a_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        f"""
        def test_drop(xdp, xdp_backend):
            drop = xdp({str(DROP)!r})
            assert list(drop.run([bytes(64)] * 3).actions) == [1, 1, 1]
            assert drop.backend == xdp_backend
        """
    )
    result = pytester.runpytest_subprocess("-v", "--xdp-backend", "llvm", "--xdp-backend", "interp")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*test_drop?llvm?*PASSED*", "*test_drop?interp?*PASSED*"])
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


MARKED = """
    import pytest
    from xdpbatch.testing import plugin

    plugin.FEATURES["kernel"] = lambda: "bpf(2): no such luck"

    @pytest.mark.kernel
    def test_needs_the_kernel():
        pass

    def test_plain():
        pass
"""


def test_a_missing_feature_is_named(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDPBATCH_REQUIRE", raising=False)
    pytester.makepyfile(MARKED)
    result = pytester.runpytest_subprocess("-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*kernel is missing: bpf(2): no such luck*"])


def test_a_promised_feature_must_be_there(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDPBATCH_REQUIRE", "kernel,afxdp")
    pytester.makepyfile(MARKED)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*XDPBATCH_REQUIRE promises kernel*no such luck*"])


def test_not_root_has_no_kernel() -> None:
    """In a child process that gives up root, the reason is named."""
    from xdpbatch.testing import plugin

    if os.geteuid():
        assert plugin.missing_kernel()
        return
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        plugin.missing_kernel.cache_clear()
        os.write(write, plugin.missing_kernel().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 200).decode().startswith("bpf(2): -EPERM")
