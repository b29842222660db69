"""The pytest plugin: tests that need a kernel feature are skipped with its name, or must run.

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

import pytest

from xdpbatch.uapi import MapNumber

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


def pytest_configure(config: pytest.Config) -> None:
    for name in FEATURES:
        config.addinivalue_line("markers", f"{name}: needs this feature of the running kernel")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name, missing in FEATURES.items():
        if item.get_closest_marker(name) is None:
            continue
        reason = missing()
        if reason and name in promised():
            pytest.fail(f"XDPBATCH_REQUIRE promises {name}, but it is missing: {reason}")
        if reason:
            pytest.skip(f"{name} is missing: {reason}")
