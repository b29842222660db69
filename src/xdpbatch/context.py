"""What a program finds beside the packet: the fields of its context, the time, and chance.

Analogous to `ctx_in` of BPF_PROG_TEST_RUN (a struct xdp_md), and to the clocks and the random
state of the CPU that runs the program. With a fixed clock or the packets' own times, and with a
seed, a run can be repeated.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from enum import Enum, auto

from xdpbatch.data import chance
from xdpbatch.data.metadata import MAX_METADATA
from xdpbatch.errors import XdpBatchError
from xdpbatch.host.tables import Tables
from xdpbatch.isa import CALL, HELPER_CALL
from xdpbatch.program import Object
from xdpbatch.target import Target

LOOPBACK = 1  # ifindex
FIXED = 1_000_000_000  # ns: where a clock stands that was not told
HZ = 250  # ticks a second where the kernel's configuration is not known
_SECRET = chance.word()
_JIFFIES64 = 118  # the helper that counts them


class Source(Enum):
    """Whose time it is: the machine's, none but one instant, or when the packet was captured."""

    REAL = auto()
    FIXED = auto()
    CAPTURE = auto()


@dataclass(frozen=True, slots=True)
class Clock:
    """What all clock helpers say; `ns` is the instant of a FIXED one."""

    source: Source = Source.REAL
    ns: int = 0

    @classmethod
    def parse(cls, text: str, has_times: bool = True) -> Clock:
        """Of `real`, `capture`, `fixed` or `fixed=NS`; `capture` only if packets have times."""
        if text == "capture" and not has_times:
            raise XdpBatchError.of(
                "usage",
                "no packet here has a time for the clock to show",
                suggestion="--clock fixed=NS; capture is for -r IN.pcap",
            )
        found = re.fullmatch(r"real|capture|fixed(?:=(\d{1,18}))?", text)
        if found is None or (found[1] and int(found[1]) == 0):
            raise XdpBatchError.of(
                "usage",
                f"{text} is no clock",
                suggestion="real, capture, fixed or fixed=NS (nanoseconds, not 0)",
            )
        if text.startswith("fixed"):
            return cls(Source.FIXED, int(found[1] or FIXED))
        return cls(Source[text.upper()])

    def __str__(self) -> str:
        name = self.source.name.lower()
        return f"{name}={self.ns}" if self.source is Source.FIXED else name


@dataclass(frozen=True, slots=True)
class Context:
    """ctx fields; `meta` are up to 252 bytes, a multiple of 4; `seed` 0 is another one each time;
    `hz` ticks of jiffies a second; `host` is what is known of the host. The egress ifindex is for
    programs of a devmap only.
    """

    ifindex: int = LOOPBACK
    rx_queue: int = 0
    egress_ifindex: int = 0
    meta: bytes = b""
    clock: Clock = Clock()
    seed: int = 0
    hz: int = HZ
    host: Tables | None = None

    def __post_init__(self) -> None:
        if len(self.meta) % 4 or len(self.meta) > MAX_METADATA:
            raise XdpBatchError.of(
                "bad-metadata",
                f"{len(self.meta)} bytes cannot be metadata",
                reason=f"at most {MAX_METADATA}, in multiples of 4 (xdp_metalen_invalid)",
            )

    @property
    def secret(self) -> int:
        """The key of SYN cookies: the same for all queues."""
        return self.seed or _SECRET

    @property
    def host_address(self) -> int:
        """What Rxq.host is to be; the Context must outlive its use."""
        return self.host.address if self.host else 0

    @property
    def random_state(self) -> int:
        """The first state of get_prandom_u32."""
        return self.seed or time.monotonic_ns()


def hz_for(obj: Object, target: Target) -> int:
    """CONFIG_HZ of the target's configuration if a program counts jiffies and it can be read."""
    insns = (insn for program in obj.programs.values() for insn in program.insns)
    if not any(i.op == CALL and i.src == HELPER_CALL and i.imm == _JIFFIES64 for i in insns):
        return HZ
    return int(target.options.get("CONFIG_HZ", HZ)) if target.config_from else HZ


def metadata(text: str) -> bytes:
    """The bytes of hexadecimal digits, in memory order."""
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise XdpBatchError.of(
            "usage", f"{text} is not hexadecimal", suggestion="--meta 01000000"
        ) from None
