"""The way back: packets handed to the kernel's stack as if an interface had just received them.

Analogous to netif_receive_skb() for a driver. An AF_XDP socket can only send, so there is a helper
pair of veth devices:

    our tx ring -> near end (private namespace) -> far end: mirred -> the interface's ingress

From there packets take the interface's usual way: taps, tc, netfilter, bridge, IP. The far end has
the interface's MAC address, so that the kernel tells packets for this host from others as it would
there. It is mirred because generic XDP leaves alone what mirred has redirected (skb_is_redirected()
in net/core/dev.c): in skb mode no packet comes to us twice. The near end lives in a namespace that
only this process holds, so that both ends go with the process.
"""

from __future__ import annotations

import errno
import itertools
import os
from contextlib import suppress
from typing import Any

from xdpbatch.sys import netns
from xdpbatch.sys.link import Interface, LinkError
from xdpbatch.sys.xsk import Socket

MTU = 65535  # the interface's own applies where packets are sent
_INGRESS = 0xFFFF0000  # TC_H_INGRESS's qdisc, `ffff:`
_ETH_P_ALL = 3
_NO_ADDRESSES = 1  # IN6_ADDR_GEN_MODE_NONE
_NEAR = "near"
_numbers = itertools.count()


class Ingress:
    """The helper pair for one interface, with `queues` to send to. Raises LinkError."""

    def __init__(self, interface: Interface, queues: int) -> None:
        from pyroute2 import NetlinkError

        self.name = f"xb{os.getpid()}.{next(_numbers)}"
        self._home = netns.current()
        try:
            self._namespace = netns.private()
            self.ifindex = self._near_end(interface, queues)
            self._far_end(interface)
        except (NetlinkError, OSError) as error:
            raise LinkError.of(
                "ingress",
                f"cannot make the way back to the kernel's stack for {interface.name}",
                reason=_reason(error),
                suggestion="run as root (CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN, CAP_BPF); "
                "the kernel needs veth, sch_ingress, cls_u32 and act_mirred",
            ) from error

    def socket(self) -> Socket:
        """An AF_XDP socket that can be bound to the near end, `ifindex`."""
        with netns.inside(self._namespace):
            return Socket()

    def close(self) -> None:
        """Remove the pair at once; without the privilege for that, it goes within milliseconds.

        Sockets bound to it must be closed before.
        """
        from pyroute2 import IPRoute, NetlinkError

        with suppress(NetlinkError, OSError), netns.inside(self._home), IPRoute() as netlink:
            for index in netlink.link_lookup(ifname=self.name):
                netlink.link("del", index=index)
        self._namespace.close()
        self._home.close()

    def _near_end(self, interface: Interface, queues: int) -> int:
        from pyroute2 import IPRoute

        shape = {"num_tx_queues": queues, "num_rx_queues": queues, "mtu": MTU}
        with netns.current() as here, netns.inside(self._namespace), IPRoute() as netlink:
            # Router solicitations and the like of the near end would arrive at the interface.
            with open("/proc/sys/net/ipv6/conf/default/disable_ipv6", "w") as file:
                file.write("1")
            peer = {"ifname": self.name, "net_ns_fd": int(here), "address": interface.mac, **shape}
            netlink.link("add", ifname=_NEAR, kind="veth", peer=peer, **shape)
            index = int(netlink.link_lookup(ifname=_NEAR)[0])
            netlink.link("set", index=index, state="up")
            return index

    def _far_end(self, interface: Interface) -> None:
        from pyroute2 import IPRoute

        with IPRoute() as netlink:
            index = int(netlink.link_lookup(ifname=self.name)[0])
            spec = {
                "attrs": [["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", _NO_ADDRESSES]]}]]
            }
            netlink.link("set", index=index, IFLA_AF_SPEC=spec)
            netlink.link("set", index=index, state="up")
            netlink.tc("add", "ingress", index, _INGRESS)
            to_interface: dict[str, Any] = {
                "kind": "mirred",
                "direction": "ingress",
                "action": "redirect",
                "ifindex": interface.ifindex,
            }
            every_packet = {"keys": ["0x0/0x0+0"], "target": 0x10000}
            where = {"parent": _INGRESS, "protocol": _ETH_P_ALL, "prio": 1}
            netlink.tc("add-filter", "u32", index, action=to_interface, **every_packet, **where)


def _reason(error: Exception) -> str:
    """The errno by name and in words; both kinds of exception have it first."""
    number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    return f"-{errno.errorcode.get(number, number)}: {os.strerror(number)}"
