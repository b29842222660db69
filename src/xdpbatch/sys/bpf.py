"""bpf(2): the system call, one function for each command that this project uses.

Analogous to libbpf's bpf.c. Source: union bpf_attr, include/uapi/linux/bpf.h; each attribute is
packed as that header lays it out. Every refusal is a BpfError with the kernel's errno and a remedy.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass
from enum import IntEnum

from xdpbatch.errors import Diagnostic, XdpBatchError

NUMBERS = {"x86_64": 321, "aarch64": 280}  # of bpf(2), by architecture
ENOTSUPP = 524  # include/linux/errno.h: the kernel lets it out although user space has no name
LOG_SIZE = 16 << 20
PROG_TYPE_XDP = 6
F_XDP_HAS_FRAGS = 1 << 5


class Command(IntEnum):
    """enum bpf_cmd, those that are used here."""

    MAP_CREATE, MAP_LOOKUP_ELEM, MAP_UPDATE_ELEM, MAP_DELETE_ELEM, MAP_GET_NEXT_KEY = range(5)
    PROG_LOAD, OBJ_PIN, OBJ_GET = 5, 6, 7
    PROG_TEST_RUN = 10
    MAP_GET_FD_BY_ID, OBJ_GET_INFO_BY_FD = 14, 15
    BTF_LOAD = 18
    MAP_LOOKUP_AND_DELETE_ELEM, MAP_FREEZE = 21, 22
    MAP_LOOKUP_BATCH = 24
    LINK_CREATE = 28
    PROG_BIND_MAP = 35


class BpfError(XdpBatchError):
    """The kernel refused a command; `errno` says how, `log` is the verifier's if there is one."""

    def __init__(self, number: int, *diagnostics: Diagnostic, log: str = "") -> None:
        super().__init__(*diagnostics)
        self.errno = number
        self.log = log


class Fd(int):
    """An owned file descriptor: closed when the object dies or its `with` block ends."""

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close it; once is enough."""
        if not getattr(self, "closed", False):
            self.closed = True
            os.close(self)

    def __enter__(self) -> Fd:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class MapInfo:
    """struct bpf_map_info, its first fields."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str


@dataclass(frozen=True, slots=True)
class TestRun:
    """What BPF_PROG_TEST_RUN gives back; `duration` is nanoseconds per repetition."""

    retval: int
    duration: int
    data: bytes
    ctx: bytes


def bpf(command: Command, attr: bytearray, log: ctypes.Array[ctypes.c_char] | None = None) -> int:
    """The system call. The kernel may write to `attr`. Returns what it returns; BpfError if < 0."""
    machine = platform.machine()
    if machine not in NUMBERS:
        raise _refused(command, errno.ENOSYS, f"the number of bpf(2) on {machine} is not known")
    raw = (ctypes.c_char * len(attr)).from_buffer(attr)
    libc = ctypes.CDLL(None, use_errno=True)
    while True:
        result = int(libc.syscall(NUMBERS[machine], int(command), raw, len(attr)))
        number = ctypes.get_errno()
        if result >= 0:
            return result
        if number != errno.EAGAIN or command != Command.PROG_LOAD:  # a signal interrupted it
            text = log.value.decode(errors="replace") if log is not None else ""
            raise _refused(command, number, log=text)


def _refused(command: Command, number: int, reason: str = "", log: str = "") -> BpfError:
    name = "ENOTSUPP" if number == ENOTSUPP else errno.errorcode.get(number, str(number))
    remedy = {
        errno.EPERM: "run as root, or with CAP_BPF and CAP_NET_ADMIN "
        "(sysctl kernel.unprivileged_bpf_disabled and container seccomp filters apply)",
        errno.ENOSYS: "a kernel with CONFIG_BPF_SYSCALL, and a container that lets bpf(2) through",
        errno.ENOMEM: "free memory, or raise RLIMIT_MEMLOCK on kernels before 5.11",
    }.get(number, "")
    last = log.strip().splitlines()
    reason = reason or f"-{name}: {os.strerror(number)}"
    diagnostic = Diagnostic(
        "kernel-refused",
        f"the kernel refused BPF_{command.name}",
        reason=reason,
        suggestion=remedy,
        notes=tuple(last[-3:]),
    )
    return BpfError(number, diagnostic, log=log)


def _buffer(data: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(data, max(len(data), 1))


def _name(name: str) -> bytes:
    """BPF_OBJ_NAME_LEN is 16 with its NUL; only letters, digits, `_` and `.` are allowed."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name)[:15].encode()


def map_create(
    type: int,
    key_size: int,
    value_size: int,
    max_entries: int,
    flags: int = 0,
    *,
    name: str = "",
    inner: int = 0,
    map_extra: int = 0,
    btf: int = 0,
    key_type: int = 0,
    value_type: int = 0,
) -> Fd:
    """BPF_MAP_CREATE; `inner` and `btf` are file descriptors, the types BTF ids."""
    geometry = (type, key_size, value_size, max_entries, flags, inner, 0)
    btf_part = (0, btf, key_type, value_type, 0, map_extra)
    attr = struct.pack("=7I16s5IQ", *geometry, _name(name), *btf_part)
    return Fd(bpf(Command.MAP_CREATE, bytearray(attr)))


def _element(command: Command, fd: int, key: bytes | None, value: object, flags: int = 0) -> int:
    """The commands on one element; `value` is a ctypes array or None."""
    held = _buffer(key) if key is not None else None
    addresses = [ctypes.addressof(x) if x is not None else 0 for x in (held, value)]  # type: ignore[arg-type]
    return bpf(command, bytearray(struct.pack("=I4xQQQ", fd, *addresses, flags)))


def map_lookup(fd: int, key: bytes | None, value_size: int, flags: int = 0) -> bytes:
    """BPF_MAP_LOOKUP_ELEM; `value_size` is that of user space (all CPUs of a per-CPU map)."""
    value = _buffer(bytes(value_size))
    _element(Command.MAP_LOOKUP_ELEM, fd, key, value, flags)
    return value.raw[:value_size]


def map_holds(fd: int, value: bytes) -> bool:
    """BPF_MAP_LOOKUP_ELEM of a bloom filter, which asks about a value."""
    try:
        _element(Command.MAP_LOOKUP_ELEM, fd, None, _buffer(value))
    except BpfError as error:
        if error.errno != errno.ENOENT:
            raise
        return False
    return True


def map_lookup_batch(fd: int, key_size: int, value_size: int, count: int) -> tuple[bytes, bytes]:
    """BPF_MAP_LOOKUP_BATCH of up to `count` elements from the first on: all keys, all values."""
    keys, values = _buffer(bytes(key_size * count)), _buffer(bytes(value_size * count))
    after = _buffer(bytes(max(key_size, 4)))
    addresses = map(ctypes.addressof, (after, keys, values))
    attr = bytearray(struct.pack("=QQQQIIQQ", 0, *addresses, count, fd, 0, 0))
    try:
        bpf(Command.MAP_LOOKUP_BATCH, attr)
    except BpfError as error:
        if error.errno != errno.ENOENT:  # ENOENT: there are no more than these
            raise
    (found,) = struct.unpack_from("=I", attr, 32)
    return keys.raw[: found * key_size], values.raw[: found * value_size]


def map_take(fd: int, key: bytes | None, value_size: int, flags: int = 0) -> bytes:
    """BPF_MAP_LOOKUP_AND_DELETE_ELEM."""
    value = _buffer(bytes(value_size))
    _element(Command.MAP_LOOKUP_AND_DELETE_ELEM, fd, key, value, flags)
    return value.raw[:value_size]


def map_update(fd: int, key: bytes | None, value: bytes, flags: int = 0) -> None:
    """BPF_MAP_UPDATE_ELEM."""
    _element(Command.MAP_UPDATE_ELEM, fd, key, _buffer(value), flags)


def map_delete(fd: int, key: bytes) -> None:
    """BPF_MAP_DELETE_ELEM."""
    _element(Command.MAP_DELETE_ELEM, fd, key, None)


def map_next_key(fd: int, key: bytes | None, key_size: int) -> bytes:
    """BPF_MAP_GET_NEXT_KEY: the key after `key`, the first for None; ENOENT after the last."""
    found = _buffer(bytes(key_size))
    _element(Command.MAP_GET_NEXT_KEY, fd, key, found)
    return found.raw[:key_size]


def map_freeze(fd: int) -> None:
    """BPF_MAP_FREEZE: no more changes from user space."""
    bpf(Command.MAP_FREEZE, bytearray(struct.pack("=I", fd)))


def map_by_id(number: int) -> Fd:
    """BPF_MAP_GET_FD_BY_ID."""
    return Fd(bpf(Command.MAP_GET_FD_BY_ID, bytearray(struct.pack("=III", number, 0, 0))))


def _info(fd: int, size: int) -> bytes:
    info = _buffer(bytes(size))
    attr = struct.pack("=IIQ", fd, size, ctypes.addressof(info))
    bpf(Command.OBJ_GET_INFO_BY_FD, bytearray(attr))
    return info.raw


def map_info(fd: int) -> MapInfo:
    """BPF_OBJ_GET_INFO_BY_FD of a map."""
    kind, number, key, value, entries, flags, name = struct.unpack_from("=6I16s", _info(fd, 88))
    return MapInfo(kind, number, key, value, entries, flags, name.rstrip(b"\0").decode())


def prog_id(fd: int) -> int:
    """The id of a program, from BPF_OBJ_GET_INFO_BY_FD."""
    return int(struct.unpack_from("=I", _info(fd, 232), 4)[0])


def prog_load(
    insns: bytes,
    license: str = "GPL",
    *,
    type: int = PROG_TYPE_XDP,
    name: str = "",
    flags: int = 0,
    attach_type: int = 0,
    btf: int = 0,
    func_info: bytes = b"",
    line_info: bytes = b"",
    log_level: int = 0,
) -> Fd:
    """BPF_PROG_LOAD of encoded instructions; BpfError carries the verifier's log.

    `func_info` and `line_info` are arrays of bpf_func_info (8 bytes) and bpf_line_info (16 bytes).
    With `log_level` 0 the log is made only when the kernel refuses.
    """
    held = [_buffer(part) for part in (insns, license.encode() + b"\0", func_info, line_info)]
    code, words, funcs, lines = map(ctypes.addressof, held)
    log = _buffer(bytes(LOG_SIZE)) if log_level else None
    attr = struct.pack(
        "=IIQQIIQII16sIIIIQIIQI",
        *(type, len(insns) // 8, code, words),
        *(log_level, len(log) if log is not None else 0),
        *(ctypes.addressof(log) if log is not None else 0, 0, flags, _name(name)),
        *(0, attach_type, btf, 8 if func_info else 0, funcs if func_info else 0),
        *(len(func_info) // 8, 16 if line_info else 0),
        *(lines if line_info else 0, len(line_info) // 16),
    )
    try:
        return Fd(bpf(Command.PROG_LOAD, bytearray(attr + bytes(4)), log))
    except BpfError as error:
        if log_level or error.errno in (errno.EPERM, errno.ENOSYS):
            raise
    options = {"type": type, "flags": flags, "attach_type": attach_type, "btf": btf}
    more = {"name": name, "func_info": func_info, "line_info": line_info}
    return prog_load(insns, license, log_level=1, **options, **more)  # type: ignore[arg-type]


def prog_test_run(
    fd: int,
    data: bytes,
    *,
    ctx: bytes = b"",
    out_size: int | None = None,
    repeat: int = 1,
    flags: int = 0,
    batch_size: int = 0,
) -> TestRun:
    """BPF_PROG_TEST_RUN. `out_size`: room for the data that comes back, None for what a page holds.

    `ctx` is a struct xdp_md; the same size comes back. With `flags` (live frames), nothing does.
    """
    out_size = 0 if flags else out_size
    room = (1 << 16) + len(data) if out_size is None else out_size
    source, target = _buffer(data), _buffer(bytes(room))
    ctx_in, ctx_out = _buffer(ctx), _buffer(ctx)
    attr = bytearray(
        struct.pack(
            "=IIIIQQIIIIQQIIII",
            *(fd, 0, len(data), room, ctypes.addressof(source), ctypes.addressof(target)),
            *(repeat, 0, len(ctx), 0 if flags else len(ctx)),
            ctypes.addressof(ctx_in) if ctx else 0,
            ctypes.addressof(ctx_out) if ctx and not flags else 0,
            *(flags, 0, batch_size, 0),
        )
    )
    if not room:
        struct.pack_into("=Q", attr, 24, 0)
    bpf(Command.PROG_TEST_RUN, attr)
    retval, _, size = struct.unpack_from("=III", attr, 4)
    duration, _, ctx_size = struct.unpack_from("=III", attr, 36)
    return TestRun(retval, duration, target.raw[: min(size, room)], ctx_out.raw[:ctx_size])


def btf_load(data: bytes) -> Fd:
    """BPF_BTF_LOAD of a .BTF section."""
    held, log = _buffer(data), _buffer(bytes(1 << 20))
    addresses = ctypes.addressof(held), ctypes.addressof(log)
    attr = struct.pack("=QQIIII", *addresses, len(data), len(log), 1, 0)
    return Fd(bpf(Command.BTF_LOAD, bytearray(attr), log))


def obj_pin(fd: int, path: str) -> None:
    """BPF_OBJ_PIN in a mounted bpffs."""
    held = _buffer(os.fsencode(path) + b"\0")
    bpf(Command.OBJ_PIN, bytearray(struct.pack("=QII", ctypes.addressof(held), fd, 0)))


def obj_get(path: str) -> Fd:
    """BPF_OBJ_GET: open what is pinned at a path."""
    held = _buffer(os.fsencode(path) + b"\0")
    return Fd(bpf(Command.OBJ_GET, bytearray(struct.pack("=QII", ctypes.addressof(held), 0, 0))))


def link_create(prog: int, ifindex: int, attach_type: int, flags: int = 0) -> Fd:
    """BPF_LINK_CREATE: attached until the descriptor is closed, also by a crash."""
    return Fd(
        bpf(Command.LINK_CREATE, bytearray(struct.pack("=IIII", prog, ifindex, attach_type, flags)))
    )


def prog_bind_map(prog: int, map: int) -> None:
    """BPF_PROG_BIND_MAP: keep a map alive as long as the program."""
    bpf(Command.PROG_BIND_MAP, bytearray(struct.pack("=III", prog, map, 0)))
