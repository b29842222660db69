"""An object in the running kernel: the judge. Its programs run through BPF_PROG_TEST_RUN.

Analogous to libbpf's bpf_object__load(). Maps are created as the object wants them, references are
relocated to file descriptors, programs are loaded with their function info; then one packet at a
time is run, and the maps are read back. A map here behaves like `maps.Map`, by bpf(2).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from xdpbatch.btf import Kind
from xdpbatch.data import buff as xdp
from xdpbatch.data.layout import bytes_at
from xdpbatch.errors import UnsupportedError, VerifierError
from xdpbatch.isa import (
    CALL,
    JA,
    KFUNC_CALL,
    LD_IMM64,
    PREFETCH,
    PSEUDO_MAP_FD,
    PSEUDO_MAP_VALUE,
    Insn,
    encode,
)
from xdpbatch.mem import load32, load64, store64
from xdpbatch.program import Attach, MapSpec, Object, Program
from xdpbatch.sys import bpf
from xdpbatch.sys.log import refusal
from xdpbatch.target import Target
from xdpbatch.uapi import MapNumber

ATTACH_TYPE = {Attach.XDP: 37, Attach.DEVMAP: 33, Attach.CPUMAP: 35}  # enum bpf_attach_type
PER_CPU = {MapNumber.PERCPU_HASH, MapNumber.PERCPU_ARRAY, MapNumber.LRU_PERCPU_HASH}
ARRAYS = {MapNumber.ARRAY, MapNumber.PERCPU_ARRAY}
WITH_BTF = {MapNumber.HASH, MapNumber.ARRAY, MapNumber.LRU_HASH}  # may hold locks and timers
XDP_MD = struct.Struct("<6I")  # data, data_end, data_meta, ingress_ifindex, queue, egress_ifindex
RINGBUF_HEADER = 8  # BPF_RINGBUF_HDR_SZ
RINGBUF_BUSY, RINGBUF_DISCARD = 1 << 31, 1 << 30
LOOPBACK = 1  # ifindex
FORBIDDEN = {errno.EPERM, errno.ENOSYS}
POISON_KFUNC = 2002000000  # a helper that no kernel has, libbpf's for absent kfuncs
ETH_HLEN = 14  # BPF_PROG_TEST_RUN refuses shorter packets


@dataclass(frozen=True, slots=True)
class Result:
    """What one packet came to: the verdict, and the bytes from data_meta to data_end.

    The first `meta` bytes are metadata.
    """

    verdict: int
    data: bytes
    meta: int = 0


def possible_cpus() -> int:
    """Copies of a per-CPU value: one more than the highest possible CPU."""
    with open("/sys/devices/system/cpu/possible") as file:
        return int(file.read().replace(",", "-").split("-")[-1]) + 1


@contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """Stay on one CPU, so that a per-CPU map is written in one copy."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class KernelMap(MutableMapping[bytes, bytes]):
    """One map of the kernel. Keys and values are bytes of the sizes that bpf(2) uses."""

    fd: bpf.Fd

    def __init__(self, spec: MapSpec, btf: int = 0) -> None:
        self.spec = spec
        self.inner = KernelMap(spec.inner) if spec.inner else None
        types = (spec.key_type, spec.value_type)
        typed = btf and all(types) and spec.type in WITH_BTF and spec.contents is None
        self.fd = bpf.map_create(
            spec.type,
            spec.key_size,
            spec.value_size,
            spec.max_entries,
            spec.flags,
            name=spec.name,
            inner=self.inner.fd if self.inner else 0,
            map_extra=spec.map_extra,
            btf=btf if typed else 0,
            key_type=spec.key_type if typed else 0,
            value_type=spec.value_type if typed else 0,
        )
        self.value_size = spec.value_size
        if spec.type in PER_CPU:
            self.value_size = -(-spec.value_size // 8) * 8 * possible_cpus()
        if spec.contents is not None:
            self[bytes(spec.key_size)] = spec.contents
        if spec.frozen:
            bpf.map_freeze(self.fd)

    def __getitem__(self, key: bytes) -> bytes:
        with _missing_is_key_error(key):
            return bpf.map_lookup(self.fd, key, self.value_size)

    def __setitem__(self, key: bytes, value: bytes) -> None:
        bpf.map_update(self.fd, key, value)

    def __delitem__(self, key: bytes) -> None:
        with _missing_is_key_error(key):
            bpf.map_delete(self.fd, key)

    def __iter__(self) -> Iterator[bytes]:
        key = None
        while True:
            try:
                key = bpf.map_next_key(self.fd, key, self.spec.key_size)
            except bpf.BpfError as error:
                if error.errno == errno.ENOENT:
                    return
                raise
            yield key

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def copies(self, cpu: int) -> Iterator[tuple[bytes, bytes]]:
        """Every key with its value, of a per-CPU map the value of one CPU."""
        spec = self.spec
        start = -(-spec.value_size // 8) * 8 * cpu if spec.type in PER_CPU else 0
        for key, value in self._elements():
            yield key, value[start : start + spec.value_size]

    def _elements(self) -> Iterator[tuple[bytes, bytes]]:
        """All elements; of an array in one call, because it always has max_entries of them."""
        if self.spec.type not in ARRAYS:
            yield from self.items()
            return
        size, count = self.value_size, self.spec.max_entries
        keys, values = bpf.map_lookup_batch(self.fd, 4, size, count)
        for i in range(len(keys) // 4):
            yield keys[4 * i : 4 * i + 4], values[i * size : (i + 1) * size]

    def records(self) -> Iterator[bytes]:
        """Take the records of a ring buffer, as libbpf's ring_buffer__consume() does.

        Two mappings: the consumer's position, then (read only) the producer's and the data, twice.
        """
        page, size = mmap.PAGESIZE, self.spec.max_entries
        with (
            mmap.mmap(self.fd, page, mmap.MAP_SHARED) as consumer,
            mmap.mmap(
                self.fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page
            ) as ring,
        ):
            (at,) = struct.unpack_from("<Q", consumer)
            (end,) = struct.unpack_from("<Q", ring)
            while at < end:
                place = page + at % size
                (header,) = struct.unpack_from("<I", ring, place)
                length = header & ~(RINGBUF_BUSY | RINGBUF_DISCARD)
                if not header & RINGBUF_DISCARD:
                    yield ring[place + RINGBUF_HEADER : place + RINGBUF_HEADER + length]
                at += -(-(RINGBUF_HEADER + length) // 8) * 8
            struct.pack_into("<Q", consumer, 0, at)


@contextmanager
def _missing_is_key_error(key: bytes) -> Iterator[None]:
    try:
        yield
    except bpf.BpfError as error:
        if error.errno == errno.ENOENT:
            raise KeyError(key) from None
        raise


class KernelObject:
    """Maps of an Object in the kernel, and its programs as they are asked for.

    Raises UnsupportedError where bpf(2) is not allowed, BpfError where a map is refused.
    """

    def __init__(self, obj: Object) -> None:
        self.obj = obj
        kernel_btf = next((p.kernel_btf for p in obj.programs.values()), b"")
        try:
            self.btf = bpf.btf_load(kernel_btf) if kernel_btf else None
            self.maps = {name: KernelMap(spec, self.btf or 0) for name, spec in obj.maps.items()}
        except bpf.BpfError as error:
            if error.errno in FORBIDDEN:
                raise _unsupported(error) from error
            raise
        self.cpu = min(os.sched_getaffinity(0))  # programs run there: one copy of per-CPU values
        self._loaded: dict[str, KernelProgram] = {}
        for name, spec in obj.maps.items():
            self._fill(self.maps[name], spec)

    def _fill(self, target: KernelMap, spec: MapSpec) -> None:
        """The initial entries of a map-in-map; a prog array is filled when a program uses it."""
        for key, name in spec.values.items():
            if name in self.maps:
                target[key.to_bytes(4, "little")] = struct.pack("<I", self.maps[name].fd)

    def program(self, name: str) -> KernelProgram:
        """The program, loaded, and with it what its prog arrays hold from the start.

        Raises VerifierError with what the kernel's log says if it is refused.
        """
        if name not in self._loaded:
            program = self.obj.programs[name]
            self._loaded[name] = KernelProgram(program, self.maps, self.btf or 0)
            for insn in program.insns:
                if insn.op == LD_IMM64 and insn.src == PSEUDO_MAP_FD and insn.ref is not None:
                    self._fill_programs(insn.ref)
        return self._loaded[name]

    def _fill_programs(self, name: str) -> None:
        for key, target in self.obj.maps[name].values.items():
            if target in self.obj.programs:
                fd = self.program(target).fd
                self.maps[name][key.to_bytes(4, "little")] = struct.pack("<I", fd)


class KernelProgram:
    """One program loaded by BPF_PROG_LOAD."""

    def __init__(self, program: Program, maps: Mapping[str, KernelMap], btf: int = 0) -> None:
        self.program = program
        try:
            self.fd = bpf.prog_load(
                encode([_relocated(insn, maps) for insn in program.insns]),
                program.license,
                name=program.name,
                flags=bpf.F_XDP_HAS_FRAGS if program.frags else 0,
                attach_type=ATTACH_TYPE[program.attach],
                btf=btf if program.func_info else 0,
                func_info=program.func_info,
                line_info=program.line_info,
            )
        except bpf.BpfError as error:
            if error.errno in FORBIDDEN:
                raise _unsupported(error) from error
            reason = error.diagnostics[0].reason
            raise VerifierError(refusal(program, error.log, reason)) from error

    def run(self, data: bytes, meta: int = 0, ifindex: int = 0, queue: int = 0) -> Result:
        """Run one packet; its first `meta` bytes are metadata. `ifindex` 0 is the loopback.

        BPF_PROG_TEST_RUN takes packets from 14 bytes to what fits in a page (frags: more).
        """
        ctx = XDP_MD.pack(meta, len(data), 0, ifindex, queue, 0)
        done = bpf.prog_test_run(self.fd, data, ctx=ctx)
        return Result(done.retval, done.data, XDP_MD.unpack(done.ctx)[0])

    def run_buff(self, buff: int) -> int:
        """Run the packet of an XdpBuff in place; its verdict. For `callback.PerPacket`.

        The kernel does not say where in the frame the packet then starts, nor where it redirects
        to: the packet goes to the usual headroom, or as far down as it must to fit.
        """
        data, end = load64(buff + xdp.DATA), load64(buff + xdp.DATA_END)
        start, rxq = min(load64(buff + xdp.DATA_META), data), load64(buff + xdp.RXQ)
        ifindex, queue = load32(rxq + xdp.RXQ_IFINDEX), load32(rxq + xdp.RXQ_QUEUE_INDEX)
        if (ifindex, queue) == (LOOPBACK, 0):
            ifindex = 0  # what it takes without one
        result = self.run(bytes_at(start, end - start), data - start, ifindex, queue)
        room = load32(rxq + xdp.RXQ_FRAME_SIZE) - xdp.SKB_SHARED_INFO
        offset = min(xdp.XDP_PACKET_HEADROOM, room - len(result.data))
        first = load64(buff + xdp.DATA_HARD_START) + offset
        ctypes.memmove(first, result.data, len(result.data))
        store64(buff + xdp.DATA_META, first)
        store64(buff + xdp.DATA, first + result.meta)
        store64(buff + xdp.DATA_END, first + len(result.data))
        return result.verdict


def _relocated(insn: Insn, maps: Mapping[str, KernelMap]) -> Insn:
    """The instruction with a map's file descriptor in place of its name; no hints for Linux."""
    if insn.op == PREFETCH:
        return Insn(JA)  # to the next instruction
    if insn.ref is None:
        return insn
    if insn.src == KFUNC_CALL and insn.op == CALL:
        return _kfunc(insn)
    if insn.op == LD_IMM64 and insn.src == PSEUDO_MAP_FD:
        return replace(insn, imm=maps[insn.ref].fd)
    if insn.op == LD_IMM64 and insn.src == PSEUDO_MAP_VALUE:
        return replace(insn, imm=insn.imm << 32 | maps[insn.ref].fd)
    raise UnsupportedError.of(
        "kernel-symbol",
        f"{insn.ref} is a symbol of the kernel: the kernel backend does not resolve it",
        suggestion="compare against interp and single only",
    )


def _kfunc(insn: Insn) -> Insn:
    """The call by the function's BTF id; one that the kernel lacks must not be reached."""
    types = Target().types
    found = types.named(insn.ref or "", Kind.FUNC) if types else []
    return replace(insn, imm=found[0].id, ref=None) if found else Insn(CALL, imm=POISON_KFUNC)


def _unsupported(error: bpf.BpfError) -> UnsupportedError:
    return UnsupportedError(*error.diagnostics)
