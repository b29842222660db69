"""Dumped maps look as bpftool dumps the kernel's, after the same program has written them."""

from __future__ import annotations

from pathlib import Path

import pytest
from bpftool import PACKET, dump, load, pins, run
from compiled import compile_text, compiler

from xdpbatch import cc, map_file
from xdpbatch.maps import CPUS
from xdpbatch.runtime import Instance
from xdpbatch.test_run import Bench

__all__ = ["compiler", "pins"]

pytestmark = pytest.mark.kernel

TEXT = """
enum color { RED, GREEN = 5 };
struct value {
    int a; unsigned char mac[6]; char name[8];
    union { __u32 x; __u8 y[4]; };
    struct { _Bool flag; } in;
    enum color color, none;
    __u32 f : 3, g : 7;
    void *pointer; signed char small; char letter;
    __u64 rows[2][2]; long long negative; char full[2];
};
#define MAP(name, kind, K, V) struct { __uint(type, kind); __uint(max_entries, 2); \\
    __type(key, K); __type(value, V); } name SEC(".maps");
MAP(array, BPF_MAP_TYPE_ARRAY, __u32, struct value)
MAP(percpu, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, __u16)
MAP(hash, BPF_MAP_TYPE_HASH, struct value, enum color)
MAP(devices, BPF_MAP_TYPE_DEVMAP, __u32, __u32)
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 2);
         __uint(key_size, 3); __uint(value_size, 5); } untyped SEC(".maps");
SEC("xdp") int prog(struct xdp_md *ctx) {
    __u32 one = 1;
    enum color unknown = 3;
    struct value *value = bpf_map_lookup_elem(&array, &one);
    __u16 *number = bpf_map_lookup_elem(&percpu, &one);
    if (!value || !number) return 0;
    *number = 513;
    value->a = value->small = -1;
    __builtin_memcpy(value->mac, "\\1\\2\\3\\4\\5\\6", 6);
    __builtin_memcpy(value->name, "abc", 4);
    __builtin_memcpy(value->full, "xy", 2);
    value->x = 0x01020304;
    value->in.flag = 1;
    value->color = GREEN;
    value->none = unknown;
    value->f = 5;
    value->g = 100;
    value->pointer = (void *)4096;
    value->letter = 'x';
    value->rows[1][0] = ~0ull;
    value->negative = -2;
    bpf_map_update_elem(&hash, value, &unknown, 0);
    bpf_map_update_elem(&untyped, "abc", "12345", 0);
    return bpf_redirect_map(&devices, 0, 2);
}
"""


def test_as_bpftool_writes_it(compiler: cc.Compiler, tmp_path: Path, pins: Path) -> None:
    obj = compile_text(compiler, tmp_path, TEXT)
    load(tmp_path / "source.o", pins)
    assert run(pins, "prog", tmp_path) == 2
    bench, instance = Bench(1), Instance(obj)
    bench.fill([PACKET])
    assert instance.interpreter(obj.programs["prog"]).run(bench.buff(0)) == 2
    for name, view in instance.views().items():
        if not view.spec.contents:
            theirs = dump(pins, name)
            for entry in theirs:
                for both in (entry, entry.get("formatted", {})):
                    if "values" in both:
                        del both["values"][CPUS:]
            assert map_file.dump(view, obj.btf) == theirs
