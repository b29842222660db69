"""What this machine allows, and the remedy for what it does not. Analogous to `bpftool feature`.

Every probe does the thing itself in its smallest form; nothing is concluded from a version.
"""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Feature:
    """One answer: `ok`, what was found, and if not ok what is lost and how to get it."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def machine() -> Iterator[Feature]:
    """The features of this machine, probed one after the other."""
    for probe in (_native, _x86, _compiler, _vmlinux_btf, _bpf, _af_xdp, _huge_pages):
        yield probe()


def _native() -> Feature:
    from llvmlite import binding

    version = ".".join(map(str, binding.llvm_version_info))
    return Feature("backend llvm", True, f"LLVM {version} for {platform.machine()}")


def _x86() -> Feature:
    here = platform.machine()
    ok = here in ("x86_64", "AMD64")
    return Feature("backend x86", ok, here, "" if ok else "use --backend llvm")


def _compiler() -> Feature:
    from xdpbatch import cc

    found = cc.find()
    if found is None:
        return Feature("compile", False, "no compiler", "pip install xdpbatch[cc], or apt clang")
    return Feature("compile", True, str(found))


def _vmlinux_btf() -> Feature:
    path = "/sys/kernel/btf/vmlinux"
    ok = os.access(path, os.R_OK)
    return Feature("kernel BTF", ok, path, "" if ok else "pass a BTF file to programs that need it")


def _attempt(name: str, what: str, attempt: Callable[[], object]) -> Feature:
    """Try it; an OSError becomes the reason, with the remedy for missing privileges."""
    try:
        attempt()
    except OSError as error:
        denied = isinstance(error, PermissionError)
        remedy = "run as root (CAP_BPF, CAP_NET_ADMIN)" if denied else "needs a newer kernel"
        return Feature(name, False, f"{what}: {error.strerror}", remedy)
    return Feature(name, True, what)


def _bpf() -> Feature:
    from xdpbatch.errors import XdpBatchError
    from xdpbatch.sys import bpf
    from xdpbatch.uapi import MapNumber

    what = f"bpf(2), Linux {platform.release()}"
    try:
        bpf.map_create(MapNumber.ARRAY, 4, 4, 1, name="probe")
    except XdpBatchError as error:
        first = error.diagnostics[0]
        return Feature("backend kernel", False, f"{what}: {first.reason}", first.suggestion)
    return Feature("backend kernel", True, what)


def _af_xdp() -> Feature:
    def attempt() -> None:
        socket.socket(44, socket.SOCK_RAW, 0).close()  # AF_XDP, include/linux/socket.h

    return _attempt("AF_XDP", "socket(AF_XDP)", attempt)


def _huge_pages() -> Feature:
    try:
        with open("/sys/kernel/mm/transparent_hugepage/enabled") as file:
            mode = file.read().split("[")[1].split("]")[0]
    except (OSError, IndexError):
        mode = "not available"
    ok = mode in ("always", "madvise")
    return Feature(
        "huge pages", ok, f"transparent: {mode}", "" if ok else "large maps and Umems use 4 KiB"
    )


def interface(name: str) -> Iterator[Feature]:
    """Which modes an interface allows, as its driver says. Raises LinkError if it is not there."""
    from xdpbatch.sys import abilities, link
    from xdpbatch.sys.abilities import Ability

    found = link.interface(name)
    known = abilities.of(found)
    yield Feature(str(name), found.up, str(found), "" if found.up else f"ip link set {name} up")
    if found.attached:
        yield Feature("free", False, found.attached, f"ip link set {name} xdp off")
    yield Feature("mode skb", True, "every driver")
    if known is None:
        yield Feature("mode native", False, "not known", "Linux 6.3 tells; trying does, too")
        return
    for label, ability, instead in (
        ("mode native", Ability.BASIC | Ability.REDIRECT, "use -m skb"),
        ("zero-copy", Ability.XSK_ZEROCOPY, "use -C copy"),
        ("multi-buffer", Ability.RX_SG, "an MTU whose packets fit into a page"),
    ):
        ok = known & ability == ability
        yield Feature(label, ok, f"driver {found.driver}", "" if ok else instead)
