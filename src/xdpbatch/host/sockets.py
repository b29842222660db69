"""Sockets as native code finds them.

Analogous to inet_lookup() and udp4_lib_lookup() (net/ipv4), as far as a table of sockets can say.
"""

from __future__ import annotations

from xdpbatch.data.layout import Layout
from xdpbatch.host import AF_INET, AF_INET6, Socket, family_of

# struct bpf_sock (include/uapi/linux/bpf.h) as a program reads it, then what lookups need
SOCKET = Layout(
    "HostSocket",
    {
        "bound_dev_if": "u32",
        "family": "u32",
        "type": "u32",
        "protocol": "u32",
        "mark": "u32",
        "priority": "u32",
        "src_ip4": "u32",
        **{f"src_ip6{i}": "u32" for i in range(4)},
        "src_port": "u32",  # host order
        "dst_port": "u16",  # network order
        "pad": "u16",
        "dst_ip4": "u32",
        **{f"dst_ip6{i}": "u32" for i in range(4)},
        "state": "u32",
        "rx_queue_mapping": "u32",
        "only6": "u32",
        "wild": "u32",  # not bound to an address
        **{f"pad{i}": "u32" for i in range(2)},
    },
    96,
)
SK_DEVICE, SK_FAMILY, SK_PROTOCOL, SK_SRC_IP4, SK_SRC_IP6, SK_SRC_PORT = 0, 4, 12, 24, 28, 44
SK_DST_PORT, SK_DST_IP4, SK_DST_IP6, SK_STATE, SK_ONLY6, SK_WILD = 48, 52, 56, 72, 80, 84
SIZEOF_BPF_SOCK, SIZEOF_SOCKET = 80, 96
STREAM, DATAGRAM = 1, 2
TCP, UDP = 6, 17
NO_QUEUE = 0xFFFFFFFF


def socket_record(one: Socket) -> dict[str, int]:
    """The fields of a SOCKET."""
    family = family_of(one.local)
    record = {
        "bound_dev_if": one.ifindex,
        "family": family,
        "type": STREAM if one.protocol == TCP else DATAGRAM,
        "protocol": one.protocol,
        "mark": one.mark,
        "src_port": one.local_port,
        "dst_port": int.from_bytes(one.remote_port.to_bytes(2, "big"), "little"),
        "state": one.state,
        "rx_queue_mapping": NO_QUEUE,
        "only6": int(one.only6),
        "wild": int(one.local.is_unspecified),
    }
    for side, address in (("src", one.local), ("dst", one.remote)):
        packed = address.packed if address is not None else bytes(16 if family == AF_INET6 else 4)
        words = [int.from_bytes(packed[i : i + 4], "little") for i in range(0, len(packed), 4)]
        if family == AF_INET:
            record[f"{side}_ip4"] = words[0]
        else:
            record |= {f"{side}_ip6{i}": word for i, word in enumerate(words)}
    return record
