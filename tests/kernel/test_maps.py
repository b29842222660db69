"""Every map type asked the same questions by bpf(2) and here, the edge cases first."""

from __future__ import annotations

import errno
import itertools
import os
import random
from collections.abc import Callable, Iterator

import pytest

from xdpbatch import maps
from xdpbatch.errors import MapError
from xdpbatch.jit.operations import Operations
from xdpbatch.maps import Map, map_types
from xdpbatch.maps.bloom_filter import holds
from xdpbatch.program import MapSpec
from xdpbatch.sys import bpf
from xdpbatch.uapi import (
    BPF_ANY,
    BPF_EXIST,
    BPF_F_LOCK,
    BPF_F_NO_COMMON_LRU,
    BPF_F_NO_PREALLOC,
    BPF_F_RDONLY_PROG,
    BPF_F_WRONLY_PROG,
    BPF_F_ZERO_SEED,
    BPF_NOEXIST,
    MapNumber,
)

pytestmark = pytest.mark.kernel

M = MapNumber
OUTER = (M.ARRAY_OF_MAPS, M.HASH_OF_MAPS)
INNER = MapSpec("inner", M.ARRAY, 4, 8, 2)


@pytest.fixture(autouse=True, scope="module")
def one_cpu() -> Iterator[None]:
    """Each CPU of the kernel has its own free lists: stay on the first; and be quick."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {0})
    maps.run_with(Operations(busy=0))
    yield
    maps.run_with(maps.as_it_stands)
    os.sched_setaffinity(0, before)


class Pair:
    """The same map here and in the kernel; `do` compares what one operation comes to."""

    def __init__(self, spec: MapSpec) -> None:
        self.ours = Map(spec)
        self.theirs = create(spec)
        self.size = self.ours.kind.user_size(spec)
        self.spec = spec

    def do(self, here: Callable[[], object], there: Callable[[], object], what: str) -> object:
        mine, judge = outcome(here), outcome(there)
        assert mine == judge, what
        return judge

    def put(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> object:
        return self.do(
            lambda: self.ours.put(key, value, flags),
            lambda: bpf.map_update(self.theirs, key, value, flags),
            f"update {key.hex()} {flags}",
        )

    def get(self, key: bytes) -> object:
        return self.do(
            lambda: self.ours[key],
            lambda: bpf.map_lookup(self.theirs, key, self.size),
            f"lookup {key.hex()}",
        )

    def delete(self, key: bytes) -> object:
        return self.do(
            lambda: self.ours.__delitem__(key),
            lambda: bpf.map_delete(self.theirs, key),
            f"delete {key.hex()}",
        )

    def keys(self) -> list[bytes]:
        """In the kernel's order."""
        found: list[bytes] = []
        key = None
        while True:
            try:
                key = bpf.map_next_key(self.theirs, key, self.spec.key_size)
            except bpf.BpfError as error:
                return found if error.errno == errno.ENOENT else [str(error).encode()]
            found.append(key)


def outcome(operation: Callable[[], object]) -> object:
    """What an operation returns, or its errno."""
    try:
        return operation()
    except (MapError, bpf.BpfError) as error:
        return error.errno
    except KeyError:
        return errno.ENOENT


def create(spec: MapSpec) -> bpf.Fd:
    inner = create(spec.inner) if spec.inner else 0
    sizes = (spec.key_size, spec.value_size, spec.max_entries, spec.flags)
    return bpf.map_create(spec.type, *sizes, inner=inner, map_extra=spec.map_extra)


def created(make: Callable[[], object]) -> object:
    """0 or the errno of a creation."""
    made = outcome(make)
    return made if type(made) is int else 0


KEY_SIZES = (0, 1, 4, 5, 8, 260, 261)
VALUE_SIZES = (0, 1, 4, 8, 12, 32 << 10, (32 << 10) + 1, 4 << 20)
ENTRIES = (0, 1, 3, 4096, 8192, 12288)
CREATION_FLAGS = (
    *(0, BPF_F_NO_PREALLOC, BPF_F_NO_COMMON_LRU, 1 << 5, 1 << 6, 1 << 9, 1 << 10, 1 << 11),
    *(1 << 12, 3 << 3, BPF_F_RDONLY_PROG, BPF_F_WRONLY_PROG | BPF_F_RDONLY_PROG, 1 << 3, 1 << 4),
    *(BPF_F_NO_PREALLOC | BPF_F_NO_COMMON_LRU, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG, 1 << 15),
)


@pytest.mark.parametrize("kind", sorted(map_types()))
def test_creation(kind: int) -> None:
    """Which geometries and flags are refused, and how."""
    asked = random.Random(kind).sample(
        list(itertools.product(KEY_SIZES, VALUE_SIZES, ENTRIES, CREATION_FLAGS)), 600
    )
    keyless = (M.RINGBUF, M.QUEUE, M.STACK, M.BLOOM_FILTER)
    usual = 0 if kind in keyless else 8 if kind == M.LPM_TRIE else 4
    asked += [(usual, v, n, f) for v in (0, 4, 8) for n in ENTRIES for f in CREATION_FLAGS]
    refused = set()
    for key_size, value_size, entries, flags in asked:
        if value_size * entries > 64 << 20:
            continue  # whether there is memory for it is not the question
        if kind == M.CPUMAP and entries > 3:
            continue  # NR_CPUS is the kernel's own
        inner = INNER if kind in OUTER else None
        spec = MapSpec("m", kind, key_size, value_size, entries, flags, inner=inner)
        judge = created(lambda spec=spec: create(spec))
        assert created(lambda spec=spec: Map(spec)) == judge, spec
        refused.add(judge)
    assert {0, errno.EINVAL} <= refused


def test_creation_of_maps_in_maps() -> None:
    for kind, inner in itertools.product(OUTER, (None, *sorted(map_types()))):
        template = None
        if inner is not None:
            sizes = dict.fromkeys((M.QUEUE, M.STACK, M.BLOOM_FILTER), (0, 4, 2))
            sizes[M.RINGBUF] = (0, 0, 4096)
            flags = BPF_F_NO_PREALLOC if inner == M.LPM_TRIE else 0
            geometry = sizes.get(MapNumber(inner), (8 if inner == M.LPM_TRIE else 4, 4, 2))
            nested = INNER if inner in OUTER else None
            template = MapSpec("inner", inner, *geometry, flags, inner=nested)
        spec = MapSpec("outer", kind, 4, 4, 2, inner=template)
        judge = created(lambda spec=spec: create(spec))
        assert created(lambda spec=spec: Map(spec)) == judge, spec


HASHES = [
    *((kind, 0) for kind in (M.HASH, M.PERCPU_HASH, M.LRU_HASH, M.LRU_PERCPU_HASH)),
    *((kind, BPF_F_NO_PREALLOC) for kind in (M.HASH, M.PERCPU_HASH)),
    *((kind, BPF_F_NO_COMMON_LRU) for kind in (M.LRU_HASH, M.LRU_PERCPU_HASH)),
]


@pytest.mark.parametrize("entries", [1, 2, 3, 16, 200, 700])
@pytest.mark.parametrize(("kind", "flags"), HASHES)
def test_hash(kind: MapNumber, flags: int, entries: int) -> None:
    """Random operations on more keys than fit: errors, values, and which keys are evicted."""
    choice = random.Random(entries)
    pair = Pair(MapSpec("m", kind, 4, 6, entries, flags))
    for step in range(400 if entries < 200 else 2500):
        key = choice.randrange(2 * entries + 2).to_bytes(4, "little")
        what = choice.random()
        if what < 0.75:
            value = choice.randbytes(6)
            value = value if pair.size == 6 else (value + bytes(2)) * (pair.size // 8)
            pair.put(key, value, choice.choice([BPF_ANY] * 3 + [BPF_NOEXIST, BPF_EXIST, 3, 4, 5]))
        elif what < 0.9:
            pair.delete(key)
        else:
            pair.get(key)
        if step % (entries + 1) == 0:
            assert sorted(pair.keys()) == sorted(pair.ours), step


@pytest.mark.parametrize("entries", [1, 2, 20, 100])
@pytest.mark.parametrize("size", [1, 3, 4, 5, 8, 16, 19])
def test_trie(size: int, entries: int) -> None:
    """Random prefixes: errors, the longest match, and the order of the keys."""
    choice = random.Random(size * entries)

    def prefix() -> bytes:
        length = choice.choice([0, 1, size * 8, size * 8 + 1, choice.randrange(size * 8 + 1)])
        data = [choice.choice([0, 255, 1, choice.randrange(256)]) for _ in range(min(size, 3))]
        return length.to_bytes(4, "little") + bytes(data).ljust(size, b"\0")

    pair = Pair(MapSpec("m", M.LPM_TRIE, 4 + size, 6, entries, BPF_F_NO_PREALLOC))
    keys = [prefix() for _ in range(60)]
    for _ in range(700):
        key, what = choice.choice(keys), choice.random()
        if what < 0.5:
            flags = choice.choice([BPF_ANY] * 3 + [BPF_NOEXIST, BPF_EXIST, 3])
            pair.put(key, choice.randbytes(6), flags)
        elif what < 0.7:
            pair.delete(key)
        elif what < 0.9:
            pair.get(key)
        else:
            assert list(pair.ours) == pair.keys()


@pytest.mark.parametrize("kind", [M.ARRAY, M.PERCPU_ARRAY])
def test_array(kind: MapNumber) -> None:
    pair = Pair(MapSpec("m", kind, 4, 5, 3))
    for index, flags in itertools.product(
        (0, 2, 3, 2**32 - 1), (0, 1, 2, 3, BPF_F_LOCK, 5, 1 << 40)
    ):
        key = index.to_bytes(4, "little")
        value = bytes([flags & 0xFF]) * 5
        pair.put(key, value if pair.size == 5 else (value + bytes(3)) * (pair.size // 8), flags)
        pair.get(key)
        pair.delete(key)
    assert list(pair.ours) == pair.keys()


@pytest.mark.parametrize("value_size", [4, 8])
@pytest.mark.parametrize("kind", [M.DEVMAP, M.DEVMAP_HASH, M.CPUMAP])
def test_devices_and_cpus(kind: MapNumber, value_size: int) -> None:
    """Device 1 and CPUs 0 and 1 are there."""
    pair = Pair(MapSpec("m", kind, 4, value_size, 2))
    choice = random.Random(value_size)
    for _ in range(300):
        key = choice.choice([0, 1, 2, 2**32 - 1]).to_bytes(4, "little")
        what = choice.random()
        if what < 0.6:
            value = choice.choice([1, 1, 1, 0]).to_bytes(value_size, "little")
            pair.put(key, value, choice.choice([0, 0, 1, 2, 3, 4]))
        elif what < 0.8:
            pair.get(key)
        else:
            pair.delete(key)
        assert list(pair.ours) == pair.keys()


def test_queue_sizes_of_a_cpumap() -> None:
    pair = Pair(MapSpec("m", M.CPUMAP, 4, 4, 2))
    for size in (0, 1, 16384, 16385, 2**32 - 1):
        pair.put(bytes(4), size.to_bytes(4, "little"))
        pair.get(bytes(4))


@pytest.mark.parametrize("entries", [1, 2, 4, 16])
def test_order_of_a_device_hash(entries: int) -> None:
    pair = Pair(MapSpec("m", M.DEVMAP_HASH, 4, 4, entries))
    choice = random.Random(entries)
    for _ in range(200):
        key = choice.randrange(entries * 3).to_bytes(4, "little")
        if choice.random() < 0.7:
            pair.put(key, (1).to_bytes(4, "little"))
        else:
            pair.delete(key)
        assert list(pair.ours) == pair.keys()


@pytest.mark.parametrize("kind", [M.PROG_ARRAY, M.XSKMAP, M.ARRAY_OF_MAPS, M.HASH_OF_MAPS])
def test_maps_that_hold_descriptors(kind: MapNumber) -> None:
    """Empty ones: what user space is told about missing entries and bad descriptors."""
    pair = Pair(MapSpec("m", kind, 4, 4, 2, inner=INNER if kind in OUTER else None))
    for index in (0, 1, 2, 2**32 - 1):
        key = index.to_bytes(4, "little")
        pair.get(key)
        pair.delete(key)
        if kind != M.XSKMAP:
            for flags in (0, 1, 2, 3, 4):
                pair.put(key, b"\xff\xff\xff\x7f", flags)
    assert list(pair.ours) == pair.keys()


@pytest.mark.parametrize("kind", [M.QUEUE, M.STACK])
def test_values_without_keys(kind: MapNumber) -> None:
    pair = Pair(MapSpec("m", kind, 0, 5, 3))
    choice = random.Random(kind)
    for _ in range(200):
        what = choice.random()
        value, flags = choice.randbytes(5), choice.choice([0, 0, 0, 1, 2, 3, 4])
        if what < 0.5:
            pair.do(
                lambda value=value, flags=flags: pair.ours.put(b"", value, flags),
                lambda value=value, flags=flags: bpf.map_update(pair.theirs, None, value, flags),
                "push",
            )
        elif what < 0.8:
            pair.do(pair.ours.take, lambda: bpf.map_take(pair.theirs, None, 5), "pop")
        else:
            pair.do(lambda: pair.ours[b""], lambda: bpf.map_lookup(pair.theirs, None, 5), "peek")


@pytest.mark.parametrize("extra", [0, 1, 3, 15, 16, 1 << 32])
@pytest.mark.parametrize("kind", [M.BLOOM_FILTER, M.QUEUE])
def test_map_extra(kind: MapNumber, extra: int) -> None:
    spec = MapSpec("m", kind, 0, 8, 4, map_extra=extra)
    assert created(lambda: Map(spec)) == created(lambda: create(spec))


@pytest.mark.parametrize("hashes", [0, 1, 3, 15])
@pytest.mark.parametrize("size", [1, 3, 4, 7, 8, 11, 12, 13, 16, 24, 25, 37, 48])
def test_bloom_filter(size: int, hashes: int) -> None:
    """With a zero seed even what is found though it was never added is the same."""
    spec = MapSpec("m", M.BLOOM_FILTER, 0, size, 40, BPF_F_ZERO_SEED, map_extra=hashes)
    pair = Pair(spec)
    choice = random.Random(size)
    for step in range(60):
        value, flags = choice.randbytes(size), choice.choice([0, 0, 0, 1, 2, 4])
        pair.do(
            lambda value=value, flags=flags: pair.ours.put(b"", value, flags),
            lambda value=value, flags=flags: bpf.map_update(pair.theirs, None, value, flags),
            f"push {step}",
        )
    for _ in range(300):
        value = choice.randbytes(size)
        assert holds(pair.ours, value) == bpf.map_holds(pair.theirs, value)
    pair.do(pair.ours.take, lambda: bpf.map_take(pair.theirs, None, size), "pop")
    pair.do(lambda: list(pair.ours), lambda: [bpf.map_next_key(pair.theirs, None, 0)], "go through")


@pytest.mark.parametrize("kind", [M.HASH, M.PERCPU_HASH, M.LRU_HASH])
def test_lookup_and_delete(kind: MapNumber) -> None:
    pair = Pair(MapSpec("m", kind, 4, 8, 4))
    for index in (1, 1, 2):
        key = index.to_bytes(4, "little")
        pair.put(key, bytes(range(pair.size)), BPF_NOEXIST)
        for _ in range(2):
            pair.do(
                lambda key=key: pair.ours.take(key),
                lambda key=key: bpf.map_take(pair.theirs, key, pair.size),
                "lookup and delete",
            )


def test_records_are_not_elements() -> None:
    pair = Pair(MapSpec("m", M.PERF_EVENT_ARRAY, 4, 4, 2))
    pair.get(bytes(4))
    pair.delete(bytes(4))
    pair.delete(b"\2\0\0\0")
    pair = Pair(MapSpec("m", M.RINGBUF, 0, 0, 4096))
    pair.do(lambda: pair.ours[b""], lambda: bpf.map_lookup(pair.theirs, None, 0), "lookup")


def test_frozen() -> None:
    pair = Pair(MapSpec("m", M.HASH, 4, 8, 4))
    pair.put(bytes(4), bytes(8))
    pair.ours.freeze()
    bpf.map_freeze(pair.theirs)
    pair.put(bytes(4), bytes(8))
    pair.delete(bytes(4))
    pair.get(bytes(4))
