"""Which host programs may ask about: the running kernel's, one from a file, or none."""

from __future__ import annotations

from xdpbatch.errors import UnsupportedError
from xdpbatch.host import Host, file, netlink
from xdpbatch.host.tables import Tables
from xdpbatch.isa import CALL, HELPER_CALL
from xdpbatch.program import Object

LIVE, NONE = "live", "none"
# fib_lookup, sk_lookup_tcp, sk_lookup_udp, skc_lookup_tcp, check_mtu
ASKING = frozenset({69, 84, 85, 99, 163})


def host_for(obj: Object, wanted: str = "") -> Tables | None:
    """The tables of the host that `wanted` names: `live`, `none`, or a file; None if nobody asks.

    Without a name it is the live one, or nothing where netlink does not answer. A live one is a
    snapshot. Raises XdpBatchError for a file that describes no host, UnsupportedError if
    `live` is not to be had.
    """
    if wanted not in ("", LIVE, NONE):
        return Tables(file.read(wanted))
    if not asks(obj):
        return None
    if wanted == NONE:
        return Tables(Host(origin="nothing is known"))
    try:
        return Tables(netlink.snapshot())
    except UnsupportedError as error:
        if wanted == LIVE:
            raise
        return Tables(Host(origin=f"nothing is known: {error.diagnostics[0].reason}"))


def asks(obj: Object) -> bool:
    """Whether a program calls a helper that answers from what is known of the host."""
    return any(
        insn.op == CALL and insn.src == HELPER_CALL and insn.imm in ASKING
        for program in obj.programs.values()
        for insn in program.insns
    )
