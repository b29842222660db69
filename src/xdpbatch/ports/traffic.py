"""What synthetic traffic is made of: the SPEC of `--synth`, read into a Traffic.

Analogous to pktgen's configuration (net/core/pktgen.c). A SPEC is words and key=value pairs with
commas between them, for example `udp,tcp=0.2,size=64,flows=100000,zipf=1.1,v6=0.2,dport=53`:

    udp tcp icmp        protocols of the mix; `=weight` gives the share (1 each by default)
    size=64             bytes of a packet without FCS, or a range 64-1500 to choose from per flow;
                        a packet whose headers are longer is as long as its headers
    flows=1             distinct flows; every packet belongs to one
    count=1000000       packets; 0 never ends
    seed=1              the same SPEC gives the same packets
    zipf=0              popularity of flow k is 1/k**zipf; 0: all alike
    v6=0                share of flows over IPv6
    vlan=100 tagged=1   802.1Q id (or a range) and the share of flows that carry it
    src= dst=           IPv4 prefixes (10.0.0.0/8, 192.0.2.0/24); src6= dst6= likewise
    sport= dport=       ports or ranges (1024-65535, 80)
    mode=copy|ring      copy: each packet is written into its frame. ring: each frame was written
                        once, and only descriptors move: measures rings and program, not memory,
                        over no more packets than there are frames, with what earlier runs of the
                        program left in them
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from xdpbatch.errors import XdpBatchError

PROTOCOLS = {"udp": 17, "tcp": 6, "icmp": 1}
MAX_FLOWS = 1 << 22
_LONGEST = 3520  # data.buff.MAX_LINEAR

Prefix4 = ipaddress.IPv4Network
Prefix6 = ipaddress.IPv6Network
Range = tuple[int, int]
_SRC, _DST = Prefix4("10.0.0.0/8"), Prefix4("192.0.2.0/24")
_SRC6, _DST6 = Prefix6("2001:db8:1::/48"), Prefix6("2001:db8:2::/64")


@dataclass(frozen=True, slots=True)
class Traffic:
    """A SPEC, read. Ranges include both ends."""

    spec: str
    mix: tuple[tuple[str, float], ...] = (("udp", 1.0),)
    size: Range = (64, 64)
    flows: int = 1
    count: int = 1_000_000
    seed: int = 1
    zipf: float = 0.0
    v6: float = 0.0
    vlan: Range | None = None
    tagged: float = 1.0
    src: Prefix4 = _SRC
    dst: Prefix4 = _DST
    src6: Prefix6 = _SRC6
    dst6: Prefix6 = _DST6
    sport: Range = (1024, 65535)
    dport: Range = (80, 80)
    mode: str = "copy"


def parse(spec: str) -> Traffic:
    """Read a SPEC. Raises XdpBatchError that names the word it does not understand."""
    mix: dict[str, float] = {}
    found: dict[str, Any] = {}
    for word in filter(None, (part.strip() for part in spec.split(","))):
        key, _, text = word.partition("=")
        if key in PROTOCOLS:
            mix[key] = _value(spec, word, _share_of_mix, text or "1")
        elif key in _READERS and text:
            found[key] = _value(spec, word, _READERS[key], text)
        else:
            raise refused(spec, f"`{word}` is not understood", _known())
    traffic = replace(Traffic(spec), **found)
    if mix:
        traffic = replace(traffic, mix=tuple(mix.items()))
    if not sum(weight for _, weight in traffic.mix):
        raise refused(spec, "all protocols have weight 0", "give one of them a weight above 0")
    return traffic


def refused(spec: str, why: str, suggestion: str) -> XdpBatchError:
    """The error for a SPEC that cannot be served."""
    return XdpBatchError.of(
        "synthetic-traffic", why, where=f"--synth {spec}", suggestion=suggestion
    )


def _value(spec: str, word: str, reader: Callable[[str], Any], text: str) -> Any:
    try:
        return reader(text)
    except ValueError as error:
        raise refused(spec, f"`{word}`: {error}", _known()) from None


def _known() -> str:
    return f"words are {', '.join(PROTOCOLS)}; keys are {', '.join(_READERS)}"


def _integer(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or not low <= int(text[:20]) <= high:
            raise ValueError(f"a whole number from {low} to {high} is wanted")
        return int(text)

    return read


def _range(low: int, high: int) -> Callable[[str], Range]:
    def read(text: str) -> Range:
        first, dash, last = text.partition("-")
        number = _integer(low, high)
        found = number(first), number(last if dash else first)
        if found[0] > found[1]:
            raise ValueError("the range is empty")
        return found

    return read


def _real(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = high + 1
        if not low <= number <= high:
            raise ValueError(f"a number from {low:g} to {high:g} is wanted")
        return number

    return read


def _mode(text: str) -> str:
    if text not in ("copy", "ring"):
        raise ValueError("a mode is copy or ring")
    return text


_share_of_mix = _real(0, 1e6)
_READERS: dict[str, Callable[[str], Any]] = {
    "size": _range(14, _LONGEST),
    "flows": _integer(1, MAX_FLOWS),
    "count": _integer(0, (1 << 62) - 1),
    "seed": _integer(0, (1 << 62) - 1),
    "zipf": _real(0, 10),
    "v6": _real(0, 1),
    "vlan": _range(0, 4095),
    "tagged": _real(0, 1),
    "src": Prefix4,
    "dst": Prefix4,
    "src6": Prefix6,
    "dst6": Prefix6,
    "sport": _range(0, 65535),
    "dport": _range(0, 65535),
    "mode": _mode,
}
