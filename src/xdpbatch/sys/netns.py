"""Network namespaces: entering one for a moment, and private ones that die with the process.

Analogous to `ip netns`, without names: see setns(2), unshare(2). The namespace is the calling
thread's only, so that what else the process does is not disturbed.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from xdpbatch.sys.bpf import Fd

CLONE_NEWNET = 0x40000000
_HERE = "/proc/thread-self/ns/net"


def current() -> Fd:
    """The calling thread's namespace."""
    return Fd(os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC))


def private() -> Fd:
    """A new namespace that nobody else can name; with the last descriptor it goes, and all that
    is in it. OSError EPERM without CAP_SYS_ADMIN.
    """
    with current() as before:
        _check(ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET))
        try:
            return current()
        finally:
            _enter(before)


@contextmanager
def inside(namespace: int) -> Iterator[None]:
    """Within the block, the calling thread is in the namespace of a descriptor."""
    with current() as before:
        _enter(namespace)
        try:
            yield
        finally:
            _enter(before)


def _enter(namespace: int) -> None:
    _check(ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET))


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
