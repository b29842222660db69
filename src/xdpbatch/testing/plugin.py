"""The pytest plugin: XDP objects as fixtures, and tests that need the kernel skipped by name.

    def test_firewall(xdp):
        fw = xdp("fw.o", "xdp_fw")                  # verified and compiled; its maps are fresh
        fw.maps["blocked"][b"\\x0a\\0\\0\\1"] = b"\\1\\0\\0\\0"
        assert list(fw.run([packet]).actions) == [Action.XDP_DROP]

`pytest --xdp-backend llvm --xdp-backend kernel` runs each test that uses `xdp` once for each.

A test marked `kernel` (root and bpf(2)) or `afxdp` (AF_XDP sockets in network namespaces) is
skipped where the machine lacks that, and the skip says what is missing. Where the environment
promises the feature, XDPBATCH_REQUIRE=kernel,afxdp, the same test fails instead.
Analogous to the `requires` tags of the kernel's selftests.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import pytest

from xdpbatch.uapi import MapNumber

if TYPE_CHECKING:
    from xdpbatch.api import Runnable

CLONE_NEWNET = 0x40000000
AF_XDP = 44


@cache
def missing_kernel() -> str:
    """Why bpf(2) cannot be used here; empty if it can."""
    from xdpbatch.sys import bpf

    try:
        bpf.map_create(MapNumber.ARRAY, key_size=4, value_size=4, max_entries=1)
    except bpf.BpfError as error:
        return f"bpf(2): {error.diagnostics[0].reason}"
    return ""


@cache
def missing_afxdp() -> str:
    """Why AF_XDP sockets in network namespaces cannot be used here; empty if they can."""
    import socket

    if os.geteuid():
        return "root"
    try:
        socket.socket(AF_XDP, socket.SOCK_RAW, 0).close()
    except OSError as error:
        return f"AF_XDP sockets: {error.strerror}"
    return _missing_namespaces()


def _missing_namespaces() -> str:
    """Try in a child process: a namespace cannot be left again."""
    child = os.fork()
    if child == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        os._exit(ctypes.get_errno() if libc.unshare(CLONE_NEWNET) else 0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return f"network namespaces: {os.strerror(status)}" if status else ""


FEATURES: dict[str, Callable[[], str]] = {"kernel": missing_kernel, "afxdp": missing_afxdp}


def promised() -> frozenset[str]:
    """The features that XDPBATCH_REQUIRE promises."""
    return frozenset(filter(None, os.environ.get("XDPBATCH_REQUIRE", "").split(",")))


class XdpLoader:
    """Loads objects for one test; every call gives a program with maps of its own."""

    def __init__(self, backend: str) -> None:
        self.backend = backend

    def __call__(
        self, path: str | os.PathLike[str], name: str | None = None, *, batch_size: int = 64
    ) -> Runnable:
        """The program `name` (default: the only one) of an object, ready to run packets.

        Raises ObjectError, VerifierError, UnsupportedError.
        """
        from xdpbatch.api import load

        return load(path).program(name).compile(batch_size, self.backend)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("xdpbatch").addoption(
        "--xdp-backend",
        action="append",
        choices=("llvm", "x86", "interp", "kernel"),
        help="Run the tests that use the `xdp` fixture on this backend (repeatable; default llvm).",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "xdp_backend" in metafunc.fixturenames:
        backends = metafunc.config.getoption("xdp_backend") or ["llvm"]
        metafunc.parametrize("xdp_backend", backends, scope="session")


@pytest.fixture
def xdp(xdp_backend: str) -> XdpLoader:
    """`xdp(path, name)`: a program of an object, verified and compiled."""
    if xdp_backend == "kernel" and missing_kernel():
        _lacking("kernel", missing_kernel())
    return XdpLoader(xdp_backend)


def pytest_configure(config: pytest.Config) -> None:
    for name in FEATURES:
        config.addinivalue_line("markers", f"{name}: needs this feature of the running kernel")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name, missing in FEATURES.items():
        if item.get_closest_marker(name) is None:
            continue
        reason = missing()
        if reason:
            _lacking(name, reason)


def _lacking(name: str, reason: str) -> None:
    """Skip, or fail where the feature is promised."""
    if name in promised():
        pytest.fail(f"XDPBATCH_REQUIRE promises {name}, but it is missing: {reason}")
    pytest.skip(f"{name} is missing: {reason}")
