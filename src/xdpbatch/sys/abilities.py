"""What a driver says it can do for XDP, without trying: the kernel's `netdev` netlink family.

Analogous to `xdp-loader features`. Source: include/uapi/linux/netdev.h, enum netdev_xdp_act.
"""

from __future__ import annotations

from enum import IntFlag

from xdpbatch.sys.link import Interface


class Ability(IntFlag):
    """enum netdev_xdp_act."""

    BASIC, REDIRECT, NDO_XMIT, XSK_ZEROCOPY, HW_OFFLOAD, RX_SG, NDO_XMIT_SG = (
        1 << bit for bit in range(7)
    )


def of(interface: Interface) -> Ability | None:
    """What the driver of an interface can do; None before Linux 6.3, which does not tell."""
    from pyroute2.netlink import NLM_F_REQUEST, NetlinkError, genlmsg
    from pyroute2.netlink.generic import GenericNetlinkSocket

    class Device(genlmsg):  # type: ignore[misc]
        prefix = "NETDEV_A_DEV_"
        nla_map = (
            ("NETDEV_A_DEV_UNSPEC", "none"),
            ("NETDEV_A_DEV_IFINDEX", "uint32"),
            ("NETDEV_A_DEV_PAD", "none"),
            ("NETDEV_A_DEV_XDP_FEATURES", "uint64"),
            ("NETDEV_A_DEV_XDP_ZC_MAX_SEGS", "uint32"),
        )

    request = Device()
    request["cmd"], request["version"] = 1, 1  # NETDEV_CMD_DEV_GET
    request["attrs"] = [("NETDEV_A_DEV_IFINDEX", interface.ifindex)]
    try:
        with GenericNetlinkSocket() as netlink:
            netlink.bind("netdev", Device)
            flags = {"msg_type": netlink.prid, "msg_flags": NLM_F_REQUEST}
            answer = next(iter(netlink.nlm_request(request, **flags)))
    except (NetlinkError, OSError):
        return None
    return Ability(answer.get_attr("NETDEV_A_DEV_XDP_FEATURES") or 0)
