"""What must hold for an access to memory other than the stack. Analogous to check_mem_access of
kernel/bpf/verifier.c and xdp_is_valid_access of net/core/filter.c.

Each check raises Refusal with the register's contents and a way out, or returns.
"""

from __future__ import annotations

from xdpbatch.facts import Region
from xdpbatch.isa import Insn
from xdpbatch.program import Attach
from xdpbatch.uapi import BPF_F_RDONLY_PROG, BPF_F_WRONLY_PROG, MapNumber
from xdpbatch.verify.explain import Refusal, reg
from xdpbatch.verify.state import WORDS, Kind, Pointer, Scalar, Value

MAX_VAR_OFF = 1 << 29
MAX_PACKET_OFF = 0xFFFF

CTX_DATA, CTX_DATA_END, CTX_DATA_META, CTX_EGRESS, CTX_SIZE = 0, 4, 8, 20, 24

REGIONS = {
    Kind.CTX: Region.CTX,
    Kind.PACKET: Region.PACKET,
    Kind.PACKET_META: Region.PACKET_META,
    Kind.MAP_VALUE: Region.MAP_VALUE,
    Kind.MAP_KEY: Region.MEM,
    Kind.MEM: Region.MEM,
    Kind.XDP_SOCK: Region.MAP_VALUE,
    Kind.SOCK: Region.MEM,
    Kind.SOCK_COMMON: Region.MEM,
}
SOCK_SIZE = 80  # struct bpf_sock
SOCK_FULL = range(8, 24)  # type to priority: not in a sock_common
SOCK_WORDS = (4, 8, 12, 44, 48, 49, 72, 76)  # family, type, protocol, ports, state, queue
SOCK_ADDRESSES = (range(24, 44), range(52, 72))
READ_ONLY = (MapNumber.DEVMAP, MapNumber.DEVMAP_HASH)  # for programs: dev_map_init_map
VERB = {False: "load", True: "store"}


def pointer(number: int, value: Value | None, write: bool) -> Pointer:
    """The base register of an access, which must be a pointer that may be followed."""
    verb = VERB[write]
    if isinstance(value, Pointer):
        if value.null:
            raise Refusal(
                "null-deref",
                f"{verb} through a pointer that may be null",
                reg(number, value),
                f"compare r{number} with 0 before this {verb}",
            )
        if value.kind in REGIONS or value.kind == Kind.STACK:
            return value
        raise Refusal(
            "bad-pointer", f"{verb} through a pointer to {WORDS[value.kind]}", reg(number, value)
        )
    if value is None:
        raise uninitialised(number)
    hint = "pointers into the packet end with any helper that moves it: load ctx->data again"
    raise Refusal("bad-pointer", f"{verb} through a number", reg(number, value), hint)


def uninitialised(number: int) -> Refusal:
    """r`number` is read but nothing was written to it."""
    hint = "helper and function calls leave r1-r5 undefined" if 1 <= number <= 5 else ""
    return Refusal(
        "uninit-register", f"r{number} is read before it is written", reg(number, None), hint
    )


def reserved(insn: Insn, *fields: int) -> None:
    """Fields that an instruction does not use must be 0."""
    if any(fields):
        raise Refusal(
            "reserved-field",
            "an unused field of the instruction is not 0",
            f"dst {insn.dst}, src {insn.src}, off {insn.off}, imm {insn.imm}",
        )


def memory(number: int, base: Pointer, off: int, size: int, write: bool) -> None:
    """`size` bytes at base + off, in packet, map value or record."""
    if base.kind in (Kind.PACKET, Kind.PACKET_META):
        packet(number, base, off, size, write)
    elif base.kind == Kind.MAP_VALUE:
        assert base.map is not None
        flag = BPF_F_RDONLY_PROG if write else BPF_F_WRONLY_PROG
        if base.map.flags & flag or (write and base.map.type in READ_ONLY):
            word = "read" if write else "write"
            raise Refusal(
                "map-access",
                f"{VERB[write]} of a map that programs may only {word}",
                reg(number, base),
                f"map {base.map.name} is such by its flags or its type",
            )
        bounded(number, base, off, size, write, base.map.value_size, "map-value-bounds")
    elif base.kind == Kind.MEM:
        bounded(number, base, off, size, write, base.size, "memory-bounds")
    elif base.kind == Kind.XDP_SOCK:
        if write or (base.off + off, size) != (0, 4):
            raise Refusal(
                "map-access",
                f"{VERB[write]} of something else than queue_id of an AF_XDP socket",
                reg(number, base),
            )
    elif base.kind in (Kind.SOCK, Kind.SOCK_COMMON):
        if write or not socket_field(base.off + off, size, base.kind == Kind.SOCK_COMMON):
            raise Refusal(
                "socket-access",
                f"{VERB[write]} of {size} bytes at {base.off + off} of a socket",
                reg(number, base),
                "the fields of struct bpf_sock may be read, each for itself",
            )
    elif base.kind == Kind.MAP_KEY:
        if write:
            raise Refusal("map-access", "store into a map's key", reg(number, base))
        assert base.map is not None
        bounded(number, base, off, size, write, base.map.key_size, "map-key-bounds")


def socket_field(at: int, size: int, common: bool) -> bool:
    """Whether a field of struct bpf_sock may be read so: bpf_sock_is_valid_access()."""
    if not 0 <= at < SOCK_SIZE or at % size or size > 4 or (common and at in SOCK_FULL):
        return False
    narrow = at in SOCK_WORDS or any(at in addresses for addresses in SOCK_ADDRESSES)
    return narrow or (size == 4 and at not in (50, 51))


def packet(number: int, base: Pointer, off: int, size: int, write: bool) -> None:
    """[off, off + size) lies in what comparisons with data_end (or data) proved."""
    verb, word = VERB[write], WORDS[base.kind]
    if base.num.smin < 0:
        raise Refusal(
            "packet-bounds",
            f"{verb} at a packet offset that may be negative",
            reg(number, base),
            "make the index unsigned or check index >= 0",
        )
    start = base.off + off
    if start < 0 or start + size > base.range:
        limit = "data" if base.kind == Kind.PACKET_META else "data_end"
        proven = f"only [0, {base.range}) is" if base.range > 0 else "nothing from there on is"
        far = f", up to {base.num.umax} bytes away," if base.num.umax > MAX_PACKET_OFF else ""
        end = f"{word} + {start + size}".replace("packet", "data")
        raise Refusal(
            "packet-bounds",
            f"{verb} may {'write' if write else 'read'} past the end of the packet",
            f"{reg(number, base)}{far} and {proven} proven to lie before {limit}",
            f"compare {'the end of it' if base.num.mask else end} with {limit} before this {verb}",
        )


def bounded(
    number: int, base: Pointer, off: int, size: int, write: bool, limit: int, code: str
) -> None:
    """[off, off + size) lies in an object of `limit` bytes for every variable offset."""
    num, start = base.num, base.off + off
    low, high = start + num.smin, start + num.umax + size
    if low < 0 or num.umax >= MAX_VAR_OFF or high > limit:
        what = f"{size} bytes at [{low}, {high})" if num.mask else f"[{low}, {high})"
        hint = "bound the index with a comparison or a mask" if num.mask else ""
        raise Refusal(
            code,
            f"{VERB[write]} outside of the object's {limit} bytes",
            f"{reg(number, base)}, the access touches {what}",
            hint,
        )


def context(
    number: int, base: Pointer, off: int, size: int, write: bool, attach: Attach
) -> Kind | None:
    """A load of a field of struct xdp_md: the kind of pointer it gives, None for a number."""
    if base.off or base.num.mask or base.num.value:
        raise Refusal(
            "invalid-ctx-access",
            "access through a ctx pointer that was moved",
            reg(number, base),
            "keep ctx in a register of its own",
        )
    if write:
        raise Refusal(
            "invalid-ctx-access", "store into the ctx", "no field of struct xdp_md can be written"
        )
    if size != 4 or off % 4 or not 0 <= off < CTX_SIZE:
        raise Refusal(
            "invalid-ctx-access",
            f"load of {size} bytes at offset {off} of the ctx",
            "fields of struct xdp_md are 4 bytes each at 0, 4, ... 20",
            "load whole 4-byte fields",
        )
    if off == CTX_EGRESS and attach != Attach.DEVMAP:
        raise Refusal(
            "invalid-ctx-access",
            "load of ctx->egress_ifindex",
            "only programs of section xdp/devmap have it",
        )
    return {
        CTX_DATA: Kind.PACKET,
        CTX_DATA_END: Kind.PACKET_END,
        CTX_DATA_META: Kind.PACKET_META,
    }.get(off)


def atomic_target(number: int, base: Pointer, off: int, size: int) -> None:
    """Atomics work on stack, map values and records only, and are aligned."""
    if base.kind in (Kind.CTX, Kind.PACKET, Kind.PACKET_META):
        raise Refusal(
            "bad-atomic",
            f"atomic operation on {WORDS[base.kind]}",
            reg(number, base),
            "use a plain load and store",
        )
    if (base.off + off + base.num.value | base.num.mask) & (size - 1):
        raise Refusal(
            "bad-atomic",
            f"misaligned {size}-byte atomic operation",
            f"{reg(number, base)}, the instruction's offset is {off:+d}",
        )


def pointer_offset(number: int, base: Pointer) -> None:
    """After pointer arithmetic: offsets stay so small that no address can wrap around."""
    if not (-MAX_VAR_OFF < base.off < MAX_VAR_OFF and -MAX_VAR_OFF < base.num.smin < MAX_VAR_OFF):
        raise Refusal(
            "pointer-arithmetic",
            "pointer offset is too large or unbounded",
            reg(number, base),
            "bound the index before it is added",
        )


def added_number(number: int, value: Scalar) -> None:
    """Before pointer arithmetic: the number that is added or subtracted is bounded below."""
    if not -MAX_VAR_OFF < value.num.smin < MAX_VAR_OFF:
        raise Refusal(
            "pointer-arithmetic",
            "pointer arithmetic with an unbounded number",
            reg(number, value),
            "make the index unsigned and bound it first",
        )
