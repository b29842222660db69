"""Maps as user space sees them, in the interpreter and as machine code: a map against a dict."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from xdpbatch import maps
from xdpbatch.data.layout import HUGE_PAGE, address_of, aligned, bytes_at
from xdpbatch.errors import MapError, UnsupportedError
from xdpbatch.jit.operations import Operations
from xdpbatch.maps import CPUS, ENOTSUPP, Map, add_program
from xdpbatch.maps.hashing import hash_key, same
from xdpbatch.mem import load32, signed
from xdpbatch.program import Attach, MapSpec
from xdpbatch.test_run import Bench
from xdpbatch.uapi import (
    BPF_ANY,
    BPF_EXIST,
    BPF_F_NO_PREALLOC,
    BPF_F_RDONLY,
    BPF_F_WRONLY,
    BPF_NOEXIST,
    MapNumber,
)

INTERPRETED, COMPILED = maps.as_it_stands, Operations(busy=0)
RUNNERS = {"interpreted": INTERPRETED, "compiled": COMPILED}


@pytest.fixture(params=RUNNERS, autouse=True, scope="module")
def runner(request: pytest.FixtureRequest) -> Iterator[None]:
    maps.run_with(RUNNERS[request.param])
    yield
    maps.run_with(INTERPRETED)


def make(kind: MapNumber, key: int = 4, value: int = 8, entries: int = 4, flags: int = 0) -> Map:
    inner = MapSpec("inner", MapNumber.ARRAY, 4, 8, 2)
    return Map(MapSpec("m", kind, key, value, entries, flags, inner=inner))


def refusal(kind: MapNumber, *sizes: int) -> int:
    with pytest.raises(MapError) as refused:
        make(kind, *sizes)
    return refused.value.errno


def error_of(m: Map, key: bytes, value: bytes, flags: int = BPF_ANY) -> int:
    try:
        m.put(key, value, flags)
    except MapError as error:
        return error.errno
    return 0


KEYS = st.integers(0, 11)
FLAGS = st.sampled_from([BPF_ANY, BPF_NOEXIST, BPF_EXIST])
CONTAINERS = [
    (MapNumber.HASH, 0),
    (MapNumber.HASH, BPF_F_NO_PREALLOC),
    (MapNumber.PERCPU_HASH, 0),
    (MapNumber.PERCPU_HASH, BPF_F_NO_PREALLOC),
]


class AgainstDict(RuleBasedStateMachine):
    """A hash of any key size behaves as a dict that holds six entries."""

    entries = 6

    @initialize(kind=st.sampled_from(CONTAINERS), size=st.sampled_from([1, 2, 4, 5, 8, 13, 20, 40]))
    def create(self, kind: tuple[MapNumber, int], size: int) -> None:
        self.map = make(kind[0], size, 5, self.entries, kind[1])
        self.size = size
        self.model: dict[bytes, bytes] = {}

    def key(self, number: int) -> bytes:
        return bytes([number]) + bytes(range(self.size - 1))

    def value(self, number: int) -> bytes:
        one = number.to_bytes(5, "little")
        return (one + bytes(3)) * CPUS if self.map.kind.per_cpu else one

    @rule(number=KEYS, value=st.integers(0, 2**40 - 1), flags=FLAGS)
    def put(self, number: int, value: int, flags: int) -> None:
        key = self.key(number)
        expected = 0
        if flags == BPF_NOEXIST and key in self.model:
            expected = errno.EEXIST
        elif flags == BPF_EXIST and key not in self.model:
            expected = errno.ENOENT
        elif key not in self.model and len(self.model) == self.entries:
            expected = errno.E2BIG
        else:
            self.model[key] = self.value(value)
        assert error_of(self.map, key, self.value(value), flags) == expected

    @rule(number=KEYS)
    def delete(self, number: int) -> None:
        key = self.key(number)
        assert self.map.pop(key, None) == self.model.pop(key, None)

    @rule(number=KEYS)
    def look(self, number: int) -> None:
        assert self.map.get(self.key(number)) == self.model.get(self.key(number))

    @invariant()
    def has_the_same_keys(self) -> None:
        keys = list(self.map)
        assert sorted(keys) == sorted(self.model)


FEW = settings(max_examples=25, stateful_step_count=30, deadline=None)


def test_a_hash_against_a_dict() -> None:
    run_state_machine_as_test(AgainstDict, settings=FEW)


def test_array_is_always_full() -> None:
    m = make(MapNumber.ARRAY, entries=3)
    m[b"\1\0\0\0"] = b"abcdefgh"
    assert list(m.values()) == [bytes(8), b"abcdefgh", bytes(8)]
    assert error_of(m, b"\1\0\0\0", bytes(8), BPF_NOEXIST) == errno.EEXIST
    assert error_of(m, b"\3\0\0\0", bytes(8)) == errno.E2BIG
    with pytest.raises(MapError, match="EINVAL"):
        del m[b"\1\0\0\0"]
    with pytest.raises(KeyError):
        m[b"\3\0\0\0"]


def test_initial_contents() -> None:
    spec = MapSpec(".data", MapNumber.ARRAY, 4, 5, 1, contents=b"hello")
    assert Map(spec)[bytes(4)] == b"hello"


@pytest.mark.parametrize("kind", [MapNumber.PERCPU_ARRAY, MapNumber.LRU_PERCPU_HASH])
def test_every_cpu_has_its_own_value(kind: MapNumber) -> None:
    m = make(kind, value=5)
    value = b"".join(bytes([cpu + 1] * 8) for cpu in range(CPUS))
    m[bytes(4)] = value
    assert m[bytes(4)] == value
    key, other = bytes(4), b"xxxxx"
    where = {"key": maps.address_in(key), "value": maps.address_in(other)}
    assert m.call(m.kind.update_cpu, flags=0, cpu=1, **where) == 0
    assert m[bytes(4)] == value[:8] + b"xxxxx" + value[13:]


@pytest.mark.parametrize("entries", [1, 2, 7, 300])
@pytest.mark.parametrize("kind", [MapNumber.LRU_HASH, MapNumber.LRU_PERCPU_HASH])
def test_lru_always_takes_one_more(kind: MapNumber, entries: int) -> None:
    m = make(kind, entries=entries)
    value = bytes(m.kind.user_size(m.spec))
    for number in range(3 * entries + 5):
        m[number.to_bytes(4, "little")] = value
    assert 0 < len(m) <= entries
    assert number.to_bytes(4, "little") in m


def test_a_hash_that_is_full_again_and_again() -> None:
    """Many keys that pass full buckets by, then go: a search for a missing key still ends."""
    m = make(MapNumber.HASH, entries=64)
    for turn in range(40):
        keys = [(turn * 64 + i).to_bytes(4, "little") for i in range(64)]
        for key in keys:
            m[key] = key + key
        assert error_of(m, b"more", bytes(8)) == errno.E2BIG
        assert {key: key + key for key in keys} == dict(m)
        for key in keys:
            del m[key]
        assert b"more" not in m


@pytest.mark.parametrize("size", range(1, 70))
def test_hash_and_comparison_see_every_byte(size: int) -> None:
    key = bytes(range(1, size + 1))
    other = bytearray(key)
    address = maps.address_in(key)
    for at in range(size):
        other[at] ^= 0x40
        copy = bytes(other)
        assert not same(address, maps.address_in(copy), size)
        assert hash_key(address, size, 7) != hash_key(maps.address_in(copy), size, 7)
        other[at] ^= 0x40
    copy = bytes(other)
    assert same(address, maps.address_in(copy), size)
    assert hash_key(address, size, 7) == hash_key(maps.address_in(copy), size, 7)
    assert hash_key(address, size, 7) != hash_key(address, size, 8)


def test_trie_finds_the_longest_prefix() -> None:
    m = make(MapNumber.LPM_TRIE, 8, 1, 8, BPF_F_NO_PREALLOC)

    def prefix(length: int, *data: int) -> bytes:
        return length.to_bytes(4, "little") + bytes(data)

    for number, key in enumerate(
        [prefix(0, 0, 0, 0, 0), prefix(8, 10, 0, 0, 0), prefix(24, 10, 1, 2, 0)]
    ):
        m[key] = bytes([number])
    assert m[prefix(32, 10, 1, 2, 3)] == b"\2"
    assert m[prefix(32, 10, 1, 3, 3)] == b"\1"
    assert m[prefix(32, 11, 1, 3, 3)] == b"\0"
    assert [key[0] for key in m] == [24, 8, 0]
    assert error_of(m, prefix(33, 1, 1, 1, 1), b"x") == errno.EINVAL
    del m[prefix(8, 10, 0, 0, 0)]
    assert m[prefix(32, 10, 1, 3, 3)] == b"\0"


def test_queue_and_stack() -> None:
    queue, stack = make(MapNumber.QUEUE, 0, entries=2), make(MapNumber.STACK, 0, entries=2)
    for m in (queue, stack):
        m.put(b"", b"first111")
        m.put(b"", b"second22")
        assert error_of(m, b"", b"third333") == errno.E2BIG
    assert queue[b""] == b"first111"
    assert [queue.take(), queue.take()] == [b"first111", b"second22"]
    assert [stack.take(), stack.take()] == [b"second22", b"first111"]
    with pytest.raises(KeyError):
        queue.take()


def test_programs_by_id() -> None:
    m = make(MapNumber.PROG_ARRAY, value=4)
    program = add_program(0x1234)
    number = program.id.to_bytes(4, "little")
    assert error_of(m, bytes(4), b"\xff\xff\xff\x7f") == errno.EBADF
    m[bytes(4)] = number
    assert m[bytes(4)] == number
    del m[bytes(4)]
    with pytest.raises(KeyError):
        del m[bytes(4)]


@pytest.mark.parametrize("kind", [MapNumber.DEVMAP, MapNumber.DEVMAP_HASH])
def test_devices(kind: MapNumber) -> None:
    m = make(kind, entries=2)
    on_the_way, wrong = add_program(0x10, Attach.DEVMAP), add_program(0x20, Attach.CPUMAP)
    entry = (7).to_bytes(4, "little") + on_the_way.id.to_bytes(4, "little")
    m[b"\1\0\0\0"] = entry
    assert m[b"\1\0\0\0"] == entry
    bad = (7).to_bytes(4, "little") + wrong.id.to_bytes(4, "little")
    assert error_of(m, b"\1\0\0\0", bad) == errno.EINVAL
    del m[b"\1\0\0\0"]
    assert b"\1\0\0\0" not in m


def test_broadcast_order_is_the_kernels() -> None:
    """In a hash by bucket, the newest of a bucket first."""
    m = make(MapNumber.DEVMAP_HASH, value=4, entries=4)
    for key in (9, 1, 2, 5):
        m[key.to_bytes(4, "little")] = key.to_bytes(4, "little")
    assert [key[0] for key in m] == [5, 1, 9, 2]


@pytest.mark.parametrize("kind", [MapNumber.ARRAY_OF_MAPS, MapNumber.HASH_OF_MAPS])
def test_maps_in_maps(kind: MapNumber) -> None:
    outer = make(kind, value=4)
    inner = make(MapNumber.ARRAY, entries=2)
    outer[bytes(4)] = inner.id.to_bytes(4, "little")
    assert outer[bytes(4)] == inner.id.to_bytes(4, "little")
    key = bytes(4)
    address = outer.call(outer.kind.lookup, key=maps.address_in(key))
    assert address == inner.address
    longer = make(MapNumber.ARRAY, entries=3)
    assert error_of(outer, bytes(4), longer.id.to_bytes(4, "little")) == errno.EINVAL
    assert error_of(outer, bytes(4), bytes(4)) == errno.EBADF
    del inner
    assert load32(address + maps.MAP_TYPE) == MapNumber.ARRAY  # the outer map keeps it alive
    del outer[bytes(4)]
    assert bytes(4) not in outer


def test_access_flags_and_freezing() -> None:
    readable = make(MapNumber.ARRAY, flags=BPF_F_RDONLY)
    assert error_of(readable, bytes(4), bytes(8)) == errno.EPERM
    writable = make(MapNumber.ARRAY, flags=BPF_F_WRONLY)
    with pytest.raises(MapError, match="EPERM"):
        writable[bytes(4)]
    frozen = make(MapNumber.HASH)
    frozen[bytes(4)] = bytes(8)
    frozen.freeze()
    assert error_of(frozen, bytes(4), bytes(8)) == errno.EPERM
    assert frozen[bytes(4)] == bytes(8)


def test_wrong_sizes_are_named() -> None:
    m = make(MapNumber.HASH)
    with pytest.raises(MapError, match="key of map m has 3 bytes"):
        m[b"abc"]
    with pytest.raises(MapError, match="a value of this map has 8 bytes"):
        m[b"abcd"] = b"short"


def test_refusals() -> None:
    assert refusal(MapNumber.ARRAY, 8) == errno.EINVAL
    assert refusal(MapNumber.HASH, 4, 8, 0) == errno.EINVAL
    assert refusal(MapNumber.HASH, 4, 4 << 20) == errno.E2BIG
    assert refusal(MapNumber.LRU_HASH, 4, 8, 4, BPF_F_NO_PREALLOC) == ENOTSUPP
    assert refusal(MapNumber.LPM_TRIE, 8, 8, 4) == errno.EINVAL
    assert refusal(MapNumber.RINGBUF, 0, 0, 5000) == errno.EINVAL
    assert refusal(MapNumber.ARRAY, 4, 1 << 30, 1 << 31) == errno.ENOMEM


def test_unknown_type_is_named() -> None:
    with pytest.raises(UnsupportedError, match="map m has type 99"):
        Map(MapSpec("m", 99, 4, 4, 1))


def test_large_maps_take_memory_when_touched() -> None:
    m = make(MapNumber.HASH, 16, 64, 1 << 22)
    assert m.address % HUGE_PAGE == 0
    key = bytes(16)
    m[key] = bytes(64)
    assert m[key] == bytes(64)


def test_operations_become_machine_code_when_busy() -> None:
    chosen = Operations(busy=3)
    op = make(MapNumber.HASH).kind.next_key
    assert op is not None
    assert [chosen(op) is op for _ in range(5)] == [True, True, True, False, False]


def test_seed_zero_is_reproducible() -> None:
    text = b"0123456789abcdef"
    key = maps.address_in(text)
    assert hash_key(key, 16, 0) == hash_key(key, 16, 0) == signed(hash_key(key, 16, 0))


VISITED = [MapNumber.ARRAY, MapNumber.PERCPU_ARRAY, MapNumber.HASH, MapNumber.PERCPU_HASH]
VISITED += [MapNumber.LRU_HASH, MapNumber.LRU_PERCPU_HASH]


@pytest.mark.parametrize("kind", VISITED)
@pytest.mark.parametrize("cpu", range(CPUS))
def test_visit_finds_every_element_once(kind: MapNumber, cpu: int) -> None:
    """With the values of the CPU that asks, in the order of the keys."""
    bench = Bench(1)
    bench.rxq["cpu"] = cpu
    m = make(kind, entries=20)
    copies = CPUS if m.kind.per_cpu else 1
    for number in range(20):
        key = number.to_bytes(4, "little")
        m[key] = b"".join(bytes([number + 100 * copy] * 8) for copy in range(copies))
    entry = aligned(24)
    seen, position = {}, 0
    arguments = {"buff": bench.buff(0), "entry": address_of(entry)}
    while position := m.call(m.kind.visit, position=position, **arguments):
        key, value = entry.view("<u8")[:2].tolist()
        seen[bytes_at(key, 4)] = bytes_at(value, 8)
    copy = cpu if m.kind.per_cpu else 0
    assert list(seen) == list(m)
    assert seen == {key: bytes([key[0] + 100 * copy] * 8) for key in m}
