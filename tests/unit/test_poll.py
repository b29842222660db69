"""The poll loop: every packet is accounted for, in order per target, and no frame is lost.

The program is a ctypes callback that takes verdict and target from bytes of the packet, so that a
plain list comprehension says what must come out.
"""

from __future__ import annotations

import ctypes
import io
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from xdpbatch.data import poll
from xdpbatch.data.buff import (
    ACT,
    DATA,
    DATA_END,
    DATA_HARD_START,
    DATA_META,
    RXQ,
    RXQ_EGRESS_IFINDEX,
    RXQ_IFINDEX,
    SIZEOF_XDP_BUFF,
)
from xdpbatch.data.code import Code, Interpreted
from xdpbatch.data.driver import Driver
from xdpbatch.data.port import CPU, DEVICE, SOCKET
from xdpbatch.data.target import redirect_to
from xdpbatch.data.umem import Umem
from xdpbatch.jit.native import compile_native
from xdpbatch.maps import Map, add_program, map_type
from xdpbatch.mem import load8, load32, load64, store8, store32
from xdpbatch.pcap.write import pcap
from xdpbatch.ports.capture import CapturePort
from xdpbatch.ports.loop import LoopPort
from xdpbatch.program import Attach, MapSpec
from xdpbatch.uapi import BPF_F_BROADCAST, BPF_F_EXCLUDE_INGRESS, MapNumber

BATCH_SIZES = [1, 2, 3, 63, 64, 65, 256]
VERDICT, TARGET = 12, 13  # bytes of a packet
ABORTED, DROP, PASS, TX, REDIRECT = range(5)
KEEP = 1 << 20


@cache
def native() -> Code:
    return compile_native(*poll.NATIVES, CapturePort.wakeup, LoopPort.wakeup)


def packets(verdicts: list[int], targets: list[int]) -> list[bytes]:
    """One packet for each, numbered, of lengths from 14 on."""
    return [
        i.to_bytes(12, "big") + bytes([verdict, target]) + bytes(i % 90)
        for i, (verdict, target) in enumerate(zip(verdicts, targets, strict=True))
    ]


def decide(buff: int) -> int:
    """The program: the packet says what to do with it."""
    data = load64(buff + DATA)
    verdict = load8(data + VERDICT)
    if verdict == REDIRECT and load8(data + TARGET):
        redirect_to(buff, 0, 0, load8(data + TARGET), 0, 0)
    return 1000 if verdict > 4 else verdict


def batch_program(one: Callable[[int], int]) -> ctypes._CFuncPtr:
    def run(buffs: int, n: int) -> int:
        for buff in range(buffs, buffs + n * SIZEOF_XDP_BUFF, SIZEOF_XDP_BUFF):
            store32(buff + ACT, one(buff))
        return 0

    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(run)


def single_program(one: Callable[[int], int]) -> ctypes._CFuncPtr:
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(one)


class Setup:
    """A capture port 1, loop ports 2 and 3, a stack, and their driver."""

    def __init__(
        self,
        sent: list[bytes],
        code: Code,
        batch_size: int = 64,
        single: bool = False,
        frames: int = 1024,
        other_umem: bool = False,
        aligned_chunks: bool = False,
    ) -> None:
        ring = max(64, 1 << (batch_size - 1).bit_length())
        self.umem = Umem(frames, aligned_chunks)
        self.other = Umem(64) if other_umem else self.umem
        self.port = CapturePort(self.umem, io.BytesIO(pcap(sent)), 1, ring, keep=KEEP)
        self.stack = LoopPort(self.umem, 0, ring, keep=KEEP)
        self.targets = {n: LoopPort(self.other, n, ring, keep=KEEP) for n in (2, 3)}
        self.driver = Driver(
            self.port,
            self.stack,
            code,
            {DEVICE + 1: self.port, **{DEVICE + n: port for n, port in self.targets.items()}},
            batch_size,
        )
        self.single = single

    def run(self, one: Callable[[int], int] = decide, count: int | None = None) -> int:
        program = (single_program if self.single else batch_program)(one)
        address = ctypes.cast(program, ctypes.c_void_p).value or 0
        return self.driver.run(address, count, self.single)

    def check(self, sent: list[bytes]) -> None:
        """What arrived where, what was counted, and that all frames are there again."""
        stats = self.driver.stats
        to = {n: [p for p in sent if p[VERDICT] == REDIRECT and p[TARGET] == n] for n in range(10)}
        tx = [p for p in sent if p[VERDICT] == TX]
        lost = [p for n in (0, *range(4, 10)) for p in to[n]]
        both = [p for p in sent if p in tx or p in to[1]]
        assert self.stack.kept() == [p for p in sent if p[VERDICT] == PASS]
        assert self.targets[2].kept() == to[2]
        assert self.targets[3].kept() == to[3]
        assert sorted(self.port.kept()) == sorted(both)
        assert [p for p in self.port.kept() if p[VERDICT] == TX] == tx
        assert stats.packets == len(sent)
        assert stats["rx_bytes"] == sum(map(len, sent))
        assert stats["unknown"] == sum(p[VERDICT] > 4 for p in sent)
        assert sum(stats.errors.values()) == len(lost)
        assert sum(stats.outcomes.values()) + len(lost) == len(sent)
        assert stats.outcomes["XDP_DROP"] == sum(p[VERDICT] == DROP for p in sent)
        assert stats.outcomes["XDP_TX"] == len(tx)
        self.frames_are_back()

    def frames_are_back(self) -> None:
        """Every frame is on its stack or in the fill ring, once, and no guard was touched."""
        for umem in {self.umem, self.other}:
            words = umem.stack[: umem.free].tolist()
            fill = self.port.words[0]
            if umem is self.umem:
                in_fill = int(fill["fill_cached_producer"]) - int(fill["peer_fill_cached_consumer"])
                first = int(fill["peer_fill_cached_consumer"])
                ring = np.ctypeslib.as_array(
                    (ctypes.c_uint64 * int(fill["fill_size"])).from_address(int(fill["fill_descs"]))
                )
                words += [int(ring[(first + i) % len(ring)]) for i in range(in_fill)]
            assert len(words) == umem.frames
            assert len(set(words)) == umem.frames
            assert umem.intact()


def mix(seed: int, n: int) -> list[bytes]:
    random = np.random.default_rng(seed)
    verdicts = random.choice(6, n, p=random.dirichlet(np.ones(6)))
    return packets(verdicts.tolist(), random.integers(0, 6, n).tolist())


@pytest.mark.parametrize("single", [False, True], ids=["batch", "single"])
@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_any_mix_is_accounted_for(batch_size: int, single: bool) -> None:
    for seed, n in enumerate((0, 1, 2, 63, 64, 65, 300, 1000)):
        sent = mix(seed, n)
        setup = Setup(sent, native(), batch_size, single)
        assert setup.run() == n
        setup.check(sent)


@pytest.mark.parametrize("single", [False, True], ids=["batch", "single"])
def test_the_python_bodies_do_the_same(single: bool) -> None:
    sent = mix(7, 150)
    setup = Setup(sent, Interpreted(), 16, single)
    assert setup.run() == 150
    setup.check(sent)


@pytest.mark.parametrize("act", range(6))
def test_batches_of_one_action(act: int) -> None:
    sent = packets([act] * 200, [2] * 200)
    setup = Setup(sent, native())
    setup.run()
    setup.check(sent)


@pytest.mark.parametrize("single", [False, True], ids=["batch", "single"])
def test_few_frames_slow_down_but_lose_nothing(single: bool) -> None:
    sent = mix(3, 400)
    for frames in (1, 2, 5):
        setup = Setup(sent, native(), 64, single, frames)
        assert setup.run() == 400
        setup.check(sent)


@pytest.mark.parametrize("single", [False, True], ids=["batch", "single"])
def test_another_umem_gets_copies(single: bool) -> None:
    sent = mix(4, 500)
    setup = Setup(sent, native(), 64, single, other_umem=True)
    assert setup.run() == 500
    setup.check(sent)
    assert setup.other.copies == sum(port.tx_packets for port in setup.targets.values())


def test_aligned_chunks() -> None:
    sent = mix(6, 500)
    for other_umem in (False, True):
        setup = Setup(sent, native(), aligned_chunks=True, other_umem=other_umem)
        assert setup.run() == 500
        setup.check(sent)


def test_what_the_program_sees() -> None:
    seen = []

    def look(buff: int) -> int:
        data = load64(buff + DATA)
        seen.append(
            (
                data - load64(buff + DATA_HARD_START),
                load64(buff + DATA_META) - data,
                load64(buff + DATA_END) - data,
                load32(load64(buff + RXQ) + RXQ_IFINDEX),
            )
        )
        return DROP

    sent = packets([DROP] * 100, [0] * 100)
    Setup(sent, native()).run(look)
    assert seen == [(256, 0, len(p), 1) for p in sent]


def test_count_ends_a_run_in_the_middle() -> None:
    sent = mix(5, 500)
    setup = Setup(sent, native())
    assert setup.run(count=100) == 100
    assert setup.run(count=1) == 1
    assert setup.run() == 399
    setup.check(sent)


def test_stop_ends_a_run_after_a_batch() -> None:
    sent = packets([DROP] * 500, [0] * 500)
    setup = Setup(sent, native(), 10)
    seen = []

    def one(buff: int) -> int:
        seen.append(buff)
        if len(seen) == 25:
            setup.driver.queue.stop()
        return DROP

    assert setup.run(one) == 30
    assert setup.driver.stats.packets == 30


def test_packets_too_long_for_the_target_are_named() -> None:
    sent = [*packets([TX, TX], [0, 0]), bytes(12) + bytes([TX, 0]) + bytes(500)]
    setup = Setup(sent, native())
    setup.port.words["max_length"] = 100
    setup.run()
    assert setup.driver.stats.errors == {"xdp_tx_too_long": 1}
    assert setup.driver.stats.outcomes["XDP_TX"] == 2
    setup.frames_are_back()


def test_a_full_ring_is_named() -> None:
    """A target that never wakes up: what fits into its ring is sent, the rest is counted."""
    sent = packets([REDIRECT] * 100, [2] * 100)
    setup = Setup(sent, native())
    ring = setup.targets[2].words
    flags = ctypes.c_uint32.from_address(int(ring["tx_flags"][0]))
    flags.value = 0
    setup.run()
    assert setup.driver.stats.errors == {"xdp_redirect_ring_full": 100 - 64}
    assert setup.driver.stats.outcomes["XDP_REDIRECT"] == 64


def test_no_frame_for_a_copy_is_named() -> None:
    sent = packets([REDIRECT] * 100, [2] * 100)
    setup = Setup(sent, native(), other_umem=True)
    ring = setup.targets[2].words
    ctypes.c_uint32.from_address(int(ring["tx_flags"][0])).value = 0
    for _ in range(64 - 10):
        setup.other.take()
    setup.run()
    errors = setup.driver.stats.errors
    assert errors["xdp_redirect_no_frame"] == 64 - 10 + 100 - 64
    assert sum(setup.driver.stats.outcomes.values()) == 10


def a_map(kind: MapNumber, entries: dict[int, bytes], max_entries: int = 8) -> Map:
    size = len(next(iter(entries.values()), bytes(4)))
    made = Map(MapSpec("m", int(kind), 4, size, max_entries))
    for key, value in entries.items():
        made[key.to_bytes(4, "little")] = value
    return made


def redirect_map(made: Map, key: int, flags: int = 0) -> Callable[[int], int]:
    """A program that calls bpf_redirect_map() of a map."""
    kind = map_type(made.spec.type)
    geometry = {"max_entries": made.spec.max_entries}

    def one(buff: int) -> int:
        given = {"buff": buff, "map": made.address, "key": key, "flags": flags} | geometry
        assert kind.redirect
        return kind.redirect(*(given[name] for name in kind.redirect.params))

    return one


def u32(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)


@pytest.mark.parametrize(
    ("kind", "key", "to", "error"),
    [
        (MapNumber.CPUMAP, 1, CPU + 1, ""),
        (MapNumber.CPUMAP, 0, CPU + 0, ""),
        (MapNumber.CPUMAP, 2, CPU + 1, "xdp_redirect_no_target"),
        (MapNumber.XSKMAP, 1, SOCKET + 5, ""),
        (MapNumber.DEVMAP, 1, DEVICE + 5, ""),
        (MapNumber.DEVMAP_HASH, 1, DEVICE + 5, ""),
        (MapNumber.DEVMAP_HASH, 1, DEVICE + 6, "xdp_redirect_no_target"),
    ],
)
@pytest.mark.parametrize("single", [False, True], ids=["batch", "single"])
def test_redirect_map(kind: MapNumber, key: int, to: int, error: str, single: bool) -> None:
    sent = packets([REDIRECT] * 10, [0] * 10)
    setup = Setup(sent, native(), single=single)
    target = LoopPort(setup.umem, 5, keep=KEEP)
    setup.driver.add_target(to, target)
    setup.run(redirect_map(a_map(kind, {n: u32(5) for n in range(3)}), key))
    assert setup.driver.stats.errors == ({error: 10} if error else {})
    assert target.kept() == ([] if error else sent)
    setup.frames_are_back()


@pytest.mark.parametrize("kind", [MapNumber.DEVMAP, MapNumber.DEVMAP_HASH])
@pytest.mark.parametrize("exclude", [0, BPF_F_EXCLUDE_INGRESS])
@pytest.mark.parametrize("single", [False, True], ids=["batch", "single"])
def test_broadcast(kind: MapNumber, exclude: int, single: bool) -> None:
    """Each device gets every packet; ingress only if not excluded; absent ones are passed over."""
    sent = packets([REDIRECT] * 100, [0] * 100)
    setup = Setup(sent, native(), 16, single)
    devices = a_map(kind, {0: u32(1), 2: u32(2), 3: u32(99), 5: u32(3)})
    setup.run(redirect_map(devices, 0, BPF_F_BROADCAST | exclude))
    stats = setup.driver.stats
    for target in setup.targets.values():
        assert target.kept() == sent
    assert setup.port.kept() == ([] if exclude else sent)
    assert stats.errors == {}
    assert stats["copies"] == (100 if exclude else 200)
    assert stats.outcomes["XDP_REDIRECT"] == 100 + stats["copies"]
    setup.frames_are_back()


def test_broadcast_to_nobody_and_without_frames() -> None:
    sent = packets([REDIRECT] * 10, [0] * 10)
    setup = Setup(sent, native())
    setup.run(redirect_map(a_map(MapNumber.DEVMAP, {}), 0, BPF_F_BROADCAST))
    assert setup.driver.stats.errors == {"xdp_redirect_no_target": 10}
    setup = Setup(sent, native(), frames=1)
    both = a_map(MapNumber.DEVMAP, {0: u32(2), 1: u32(3)})
    setup.run(redirect_map(both, 0, BPF_F_BROADCAST))
    assert setup.driver.stats.errors == {"xdp_redirect_no_frame": 10}
    setup.frames_are_back()


@pytest.mark.parametrize("flags", [0, BPF_F_BROADCAST])
@pytest.mark.parametrize("single", [False, True], ids=["batch", "single"])
def test_programs_of_a_devmap(flags: int, single: bool) -> None:
    """Sees where the packet leaves, may change it, and passes or drops it."""
    seen = []

    def leaving(buff: int) -> int:
        data = load64(buff + DATA)
        rxq = load64(buff + RXQ)
        seen.append((load32(rxq + RXQ_IFINDEX), load32(rxq + RXQ_EGRESS_IFINDEX)))
        store8(data, 0xEE)
        return PASS if load8(data + TARGET) == 0 else DROP

    program = single_program(leaving)
    entry = add_program(ctypes.cast(program, ctypes.c_void_p).value or 0, Attach.DEVMAP)
    sent = packets([REDIRECT] * 60, [0, 7] * 30)
    setup = Setup(sent, native(), single=single)
    devices = a_map(MapNumber.DEVMAP, {0: u32(2, 0), 1: u32(3, entry.id)})
    setup.run(redirect_map(devices, 1, flags))
    assert seen == [(1, 3)] * 60
    assert setup.targets[2].kept() == (sent if flags else [])
    assert setup.targets[3].kept() == [b"\xee" + p[1:] for p in sent[::2]]
    assert setup.driver.stats.errors == {"xdp_redirect_egress_drop": 30}
    setup.frames_are_back()


def test_a_program_of_a_cpumap_may_redirect_again() -> None:
    def there(buff: int) -> int:
        if load8(load64(buff + DATA) + TARGET) == 1:
            redirect_to(buff, 0, 0, 2, 0, 0)
            return REDIRECT
        return PASS

    program = single_program(there)
    entry = add_program(ctypes.cast(program, ctypes.c_void_p).value or 0, Attach.CPUMAP)
    sent = packets([REDIRECT] * 60, [0, 1] * 30)
    setup = Setup(sent, native())
    cpu = LoopPort(setup.umem, 0, keep=KEEP)
    setup.driver.add_target(CPU + 3, cpu)
    setup.run(redirect_map(a_map(MapNumber.CPUMAP, {3: u32(64, entry.id)}), 3))
    assert cpu.kept() == sent[::2]
    assert setup.targets[2].kept() == sent[1::2]
    assert setup.driver.stats.errors == {}
    setup.frames_are_back()


def test_a_map_that_cannot_be_redirected_to_is_named() -> None:
    def one(buff: int) -> int:
        redirect_to(buff, int(MapNumber.ARRAY), 0, 0, 0, 0)
        return REDIRECT

    setup = Setup(packets([REDIRECT] * 5, [0] * 5), native())
    setup.run(one)
    assert setup.driver.stats.errors == {"xdp_redirect_bad_map": 5}
    setup.frames_are_back()


def test_a_redirect_without_a_helper_is_named() -> None:
    sent = packets([REDIRECT] * 5, [0] * 5)
    setup = Setup(sent, native())
    setup.run()
    assert setup.driver.stats.errors == {"xdp_redirect_bad_map": 5}
    setup.frames_are_back()


@pytest.mark.parametrize("size", [0, 5000])
def test_batch_sizes_out_of_range(size: int) -> None:
    with pytest.raises(ValueError, match="batch"):
        Setup([], native(), size)
