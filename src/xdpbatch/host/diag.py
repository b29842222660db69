"""The sockets of this network namespace through sock_diag(7): analogous to `ss -tuan`."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from xdpbatch.host import AF_INET, AF_INET6, Socket

ALL_STATES = 0xFFFFFFFF
TCP, UDP = 6, 17


def sockets() -> Iterator[Socket]:
    """Every TCP and UDP socket. Raises OSError, pyroute2's NetlinkError."""
    from pyroute2 import DiagSocket
    from pyroute2.netlink import NLM_F_MATCH, NLM_F_REQUEST, NLM_F_ROOT
    from pyroute2.netlink.diag import SOCK_DIAG_BY_FAMILY, inet_diag_req

    with DiagSocket() as netlink:
        netlink.bind()
        for family in (AF_INET, AF_INET6):
            for protocol in (TCP, UDP):
                request = inet_diag_req()
                request["sdiag_family"], request["sdiag_protocol"] = family, protocol
                request["idiag_states"] = ALL_STATES
                flags = NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH
                for one in netlink.nlm_request(request, SOCK_DIAG_BY_FAMILY, flags):
                    mark = bytes.fromhex((one.get_attr("INET_DIAG_MARK") or "").replace(":", ""))
                    port = one["idiag_dport"]
                    yield Socket(
                        protocol,
                        ip_address(one["idiag_src"]),
                        one["idiag_sport"],
                        ip_address(one["idiag_dst"]) if port else None,
                        port,
                        one["idiag_state"],
                        one["idiag_if"],
                        int.from_bytes(mark, "little"),
                        bool(one.get_attr("INET_DIAG_SKV6ONLY")),
                    )
