"""Interfaces: what they are, and a program attached to one for as long as this process lives.

Analogous to `ip link show` with `ethtool -i -l`, and to bpf_program__attach_xdp(): a BPF link is
bound to a file descriptor, so that the kernel itself detaches the program when the process ends,
however it ends. Source: rtnetlink(7), include/uapi/linux/ethtool.h, net/core/dev.c.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from xdpbatch.errors import Diagnostic, XdpBatchError
from xdpbatch.sys import bpf

BPF_XDP = 37  # enum bpf_attach_type
SKB_MODE, DRV_MODE = 1 << 1, 1 << 2  # XDP_FLAGS_*, include/uapi/linux/if_link.h
SIOCETHTOOL, GDRVINFO, GCHANNELS = 0x8946, 0x3, 0x3C
IFF_UP = 1
ERANGE_MTU = (errno.ERANGE, errno.EINVAL, errno.E2BIG, errno.EMSGSIZE)
_ATTACHED = {"xdp": "native", "xdpgeneric": "skb", "xdpoffload": "offloaded"}  # of pyroute2


class Mode(StrEnum):
    """Where the program runs: in the driver, or in the kernel's generic code on an sk_buff."""

    native = "native"
    skb = "skb"


_FLAG = {Mode.native: DRV_MODE, Mode.skb: SKB_MODE}


class LinkError(XdpBatchError):
    """An interface is not there, or cannot be used as asked."""


@dataclass(frozen=True, slots=True)
class Interface:
    """What an interface is. `attached` names the mode and id of an XDP program that is on it."""

    name: str
    ifindex: int
    mtu: int
    mac: str
    up: bool
    driver: str
    queues: int
    attached: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.driver}, {self.queues} queues, MTU {self.mtu})"


def interface(name: str) -> Interface:
    """The interface of that name in this network namespace. Raises LinkError."""
    from pyroute2 import IPRoute, NetlinkError

    try:
        with IPRoute() as netlink:
            found = list(netlink.link("get", ifname=name))
    except NetlinkError as error:
        raise _missing(name, str(error.args[-1])) from None
    if not found:
        raise _missing(name, "")
    link = found[0]
    return Interface(
        name=name,
        ifindex=link["index"],
        mtu=link.get_attr("IFLA_MTU"),
        mac=link.get_attr("IFLA_ADDRESS") or "",
        up=bool(link["flags"] & IFF_UP),
        driver=_driver(name) or "unknown driver",
        queues=_channels(name) or link.get_attr("IFLA_NUM_RX_QUEUES") or 1,
        attached=_attached(link),
    )


def attach(program: int, to: Interface, mode: Mode) -> bpf.Fd:
    """Attach an XDP program's descriptor until the result is closed. Raises LinkError."""
    if to.attached:
        raise busy(to)
    try:
        return bpf.link_create(program, to.ifindex, BPF_XDP, _FLAG[mode])
    except bpf.BpfError as error:
        raise _refused(to, mode, error) from error


def _missing(name: str, why: str) -> LinkError:
    names = ", ".join(one for _, one in socket.if_nameindex())
    return LinkError.of(
        "no-such-interface",
        f"there is no interface {name}",
        reason=why or "not in this network namespace",
        suggestion=f"here are {names}",
    )


def _attached(link: Any) -> str:
    """What IFLA_XDP says: nothing, or mode and program id."""
    nested: Any = link.get_attr("IFLA_XDP")
    mode: str | None = nested.get_attr("IFLA_XDP_ATTACHED") if nested else None
    if not mode:
        return ""
    ids = [nested.get_attr(f"IFLA_XDP_{kind}PROG_ID") for kind in ("", "DRV_", "SKB_", "HW_")]
    number = next((one for one in ids if one), "?")
    return f"program {number} in {_ATTACHED.get(mode, mode)} mode"


def _ethtool(name: str, request: bytearray) -> bool:
    """The ethtool ioctl; the answer is in `request`. False if the driver does not know it."""
    raw = (ctypes.c_char * len(request)).from_buffer(request)
    ifreq = struct.pack("=16sQ16x", name.encode()[:15], ctypes.addressof(raw))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, SIOCETHTOOL, ifreq)
        except OSError:
            return False
    return True


def _driver(name: str) -> str:
    request = bytearray(struct.pack("=I", GDRVINFO) + bytes(192))
    if not _ethtool(name, request):
        return ""
    return bytes(request[4:36]).split(b"\0")[0].decode()


def _channels(name: str) -> int:
    """Receive queues in use: rx and combined channels."""
    request = bytearray(struct.pack("=I", GCHANNELS) + bytes(32))
    if not _ethtool(name, request):
        return 0
    _, _, _, _, rx, _, _, combined = struct.unpack_from("=8I", request, 4)
    return int(rx + combined)


def busy(to: Interface) -> LinkError:
    """The error for an interface that runs another program."""
    return LinkError.of(
        "interface-busy",
        f"{to.name} already runs {to.attached}",
        reason="it is left alone",
        suggestion=f"see `bpftool net`; to detach it: ip link set {to.name} xdp off",
    )


def _refused(to: Interface, mode: Mode, error: bpf.BpfError) -> LinkError:
    number = error.errno
    remedy = {
        errno.EPERM: "run as root, or with CAP_NET_ADMIN and CAP_BPF",
        errno.EBUSY: f"another program came first: bpftool net show dev {to.name}",
        errno.EEXIST: "a program is attached in the other mode, or to a device above: detach it",
        errno.EOPNOTSUPP: f"the driver {to.driver} has no native XDP: use -m skb",
        errno.ENODEV: "the interface vanished",
        errno.ENOMEM: f"too few queues or buffers for XDP: ethtool -L {to.name}, or use -m skb",
    }.get(number, "")
    if number in ERANGE_MTU and to.mtu > 1500:
        remedy = f"the MTU {to.mtu} may be too large for native XDP: "
        remedy += f"ip link set {to.name} mtu 1500 (of a veth, its peer's), or use -m skb"
    reason = f"driver {to.driver}: {error.diagnostics[0].reason}"
    return LinkError(
        Diagnostic("attach", f"cannot attach to {to} in {mode} mode", "", None, reason, remedy)
    )
