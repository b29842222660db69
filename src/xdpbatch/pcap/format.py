"""Numbers of the capture formats: pcap (draft-ietf-opsawg-pcap) and pcapng (-pcapng).

Analogous to a uapi header. Link types are those of www.tcpdump.org/linktypes.html.
"""

from __future__ import annotations

PCAP_MICROSECONDS, PCAP_NANOSECONDS, PCAP_MODIFIED = 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34
PCAP_HEADER, PCAP_RECORD = 24, 16  # bytes

SECTION_HEADER, INTERFACE, PACKET, SIMPLE_PACKET, ENHANCED_PACKET = 0x0A0D0D0A, 1, 2, 3, 6
PACKET_BLOCKS = (PACKET, SIMPLE_PACKET, ENHANCED_PACKET)
BYTE_ORDER_MAGIC = 0x1A2B3C4D
IF_NAME, IF_TSRESOL, IF_TSOFFSET = 2, 9, 14  # options of an interface
EPB_PACKETID, EPB_QUEUE, EPB_VERDICT = 5, 6, 7  # options of a packet
VERDICT_XDP = 2  # first byte of epb_verdict: an eBPF XDP program's, in 64 bits

MAX_PACKET = 262144  # bytes: libpcap's MAXIMUM_SNAPLEN; more is a damaged file
MAX_BLOCK = 2 * MAX_PACKET  # bytes of a block that must be seen as a whole

ETHERNET = 1
_LINK_TYPES = {
    0: "NULL",
    1: "ETHERNET",
    3: "AX25",
    6: "IEEE802_5",
    8: "SLIP",
    9: "PPP",
    50: "PPP_HDLC",
    51: "PPP_ETHER",
    101: "RAW",
    104: "C_HDLC",
    105: "IEEE802_11",
    107: "FRELAY",
    108: "LOOP",
    113: "LINUX_SLL",
    117: "PFLOG",
    119: "IEEE802_11_PRISM",
    127: "IEEE802_11_RADIOTAP",
    192: "PPI",
    195: "IEEE802_15_4_WITHFCS",
    220: "USB_LINUX_MMAPPED",
    228: "IPV4",
    229: "IPV6",
    239: "NFLOG",
    253: "NETLINK",
    276: "LINUX_SLL2",
    283: "IEEE802_15_4_TAP",
    284: "DSA_TAG_DSA",
    285: "DSA_TAG_EDSA",
}


def link_type_name(number: int) -> str:
    """`link type 101 (RAW)`, or without a name if it is none of the common ones."""
    name = _LINK_TYPES.get(number)
    return f"link type {number} ({name})" if name else f"link type {number}"


def round4(n: int) -> int:
    """The next multiple of four."""
    return (n + 3) & ~3
