"""What compilers make of C: map definitions, data, callbacks, externs, line information."""

from __future__ import annotations

from pathlib import Path

from compiled import compile_text, compiler

from xdpbatch import cc
from xdpbatch.externs import kernel_version
from xdpbatch.isa import CALL, KFUNC_CALL, LD_IMM64, PSEUDO_FUNC, PSEUDO_MAP_VALUE
from xdpbatch.uapi import BPF_F_RDONLY_PROG, MapNumber

__all__ = ["compiler"]

MAPS = """
struct value { __u64 packets; __u32 flags; };
struct { __uint(type, 1); __uint(max_entries, 7); __uint(map_flags, 1); __uint(pinning, 1);
         __ulong(map_extra, 5); __type(key, __u32); __type(value, struct value);
} table SEC(".maps");
struct { __uint(type, 27); __uint(max_entries, 5000); } events SEC(".maps");
struct { __uint(type, 4); __uint(key_size, 4); __uint(value_size, 4); } perf SEC(".maps");
struct inner { __uint(type, 2); __uint(max_entries, 3); __type(key, __u32); __type(value, __u64); };
struct inner inner_a SEC(".maps"), inner_b SEC(".maps");
struct { __uint(type, 12); __uint(max_entries, 4); __type(key, __u32);
         __attribute__((aligned(8))) struct inner *values[]; } outer SEC(".maps") = {
    .values = { &inner_a, 0, &inner_b } };
SEC("xdp/leaf") int leaf(struct xdp_md *ctx) { return 1; }
struct { __uint(type, 3); __uint(max_entries, 2); __type(key, __u32);
         int (*values[])(struct xdp_md *); } jumps SEC(".maps") = { .values = { 0, leaf } };
SEC("xdp") int prog(struct xdp_md *ctx) {
    __u32 key = 0;
    bpf_map_lookup_elem(&outer, &key);
    return bpf_map_lookup_elem(&table, &key) ? 2 : 1;
}
"""


def test_maps(compiler: cc.Compiler, tmp_path: Path) -> None:
    loaded = compile_text(compiler, tmp_path, MAPS)
    maps = loaded.maps
    table = maps["table"]
    assert (table.type, table.key_size, table.value_size) == (MapNumber.HASH, 4, 16)
    assert (table.max_entries, table.flags, table.pinning, table.map_extra) == (7, 1, 1, 5)
    assert loaded.btf is not None
    assert loaded.btf.type(table.value_type).name == "value"
    assert maps["events"].max_entries == 8192  # libbpf: a power of two of pages
    assert maps["perf"].max_entries > 0  # libbpf: one per CPU
    outer = maps["outer"]
    assert outer.inner is not None
    assert (outer.inner.type, outer.inner.max_entries) == (MapNumber.ARRAY, 3)
    assert (outer.value_size, outer.values) == (4, {0: "inner_a", 2: "inner_b"})
    assert (maps["jumps"].value_size, maps["jumps"].values) == (4, {1: "leaf"})
    assert set(loaded.programs) == {"leaf", "prog"}


DATA = """
const volatile __u32 limit = 3;
__u64 counter = 5, zeroed;
static long (*const bpf_loop)(__u32 n, void *f, void *ctx, __u64 flags) = (void *)181;
static long step(__u32 i, void *sum) { *(__u32 *)sum += i; counter += i; return 0; }
__attribute__((noinline)) int visible(__u32 a) { zeroed += a; return a * 3; }
static __attribute__((noinline)) int hidden(__u32 a) { return visible(a) + limit; }
SEC("xdp") int prog(struct xdp_md *ctx) {
    __u32 sum = 0;
    bpf_loop(limit, step, &sum, 0);
    return sum + hidden(ctx->rx_queue_index);
}
SEC("xdp.frags") int other(struct xdp_md *ctx) { return hidden(2); }
"""


def test_data_and_functions(compiler: cc.Compiler, tmp_path: Path) -> None:
    loaded = compile_text(compiler, tmp_path, DATA)
    read_only, data = loaded.maps[".rodata"], loaded.maps[".data"]
    assert (read_only.contents, read_only.flags) == (b"\3\0\0\0", BPF_F_RDONLY_PROG)
    assert (data.contents, data.frozen) == ((5).to_bytes(8, "little"), False)
    assert loaded.maps[".bss"].contents == bytes(8)
    program = loaded.programs["prog"]
    functions = {s.name: s for s in program.subprogs}
    assert program.subprogs[0].name == "prog"
    assert set(functions) == {"prog", "step", "hidden", "visible"}
    assert functions["visible"].is_global
    assert not functions["hidden"].is_global
    callbacks = [i for i in program.insns if i.op == LD_IMM64 and i.src == PSEUDO_FUNC]
    assert [i.target for i in callbacks] == [functions["step"].start]
    values = {i.ref for i in program.insns if i.src == PSEUDO_MAP_VALUE and i.op == LD_IMM64}
    assert values == {".rodata", ".data", ".bss"}
    assert {s.name for s in loaded.programs["other"].subprogs} == {"other", "hidden", "visible"}
    assert len(program.func_info) == 8 * len(program.subprogs)
    assert len(program.line_info) == 16 * len(program.lines)


EXTERNS = """
extern int LINUX_KERNEL_VERSION SEC(".kconfig");
extern int CONFIG_MAYBE SEC(".kconfig") __attribute__((weak));
extern const void nothing SEC(".ksyms") __attribute__((weak));
extern int bpf_kfunc(struct xdp_md *ctx, __u64 *at) SEC(".ksyms") __attribute__((weak));
SEC("xdp") int prog(struct xdp_md *ctx) {
    __u64 at;
    if (&nothing) return 3;
    if (bpf_kfunc) bpf_kfunc(ctx, &at);
    return LINUX_KERNEL_VERSION + CONFIG_MAYBE;
}
"""


def test_externs(compiler: cc.Compiler, tmp_path: Path) -> None:
    loaded = compile_text(compiler, tmp_path, EXTERNS)
    config = loaded.maps[".kconfig"]
    assert config.contents is not None
    assert kernel_version().to_bytes(4, "little") in config.contents
    assert len(config.contents) == 8
    program = loaded.programs["prog"]
    assert [i.ref for i in program.insns if i.op == CALL and i.src == KFUNC_CALL] == ["bpf_kfunc"]
    constants = [i for i in program.insns if i.op == LD_IMM64 and i.ref is None]
    assert {(i.src, i.imm) for i in constants} == {(0, 0)}


def test_kernel_version_of_a_release() -> None:
    assert kernel_version("6.1.0-26-amd64") == 0x060100
    assert kernel_version("5.10.300") == 0x050AFF
    assert kernel_version("6.18") == 0x061200


def test_lines_name_the_source(compiler: cc.Compiler, tmp_path: Path) -> None:
    text = 'SEC("xdp") int prog(struct xdp_md *ctx)\n{\n\treturn ctx->rx_queue_index;\n}'
    program = compile_text(compiler, tmp_path, text).programs["prog"]
    source = program.source_at(0)
    assert source is not None
    assert source.file == "source.c"
    assert source.text == "return ctx->rx_queue_index;"
    assert (tmp_path / source.file).read_text().splitlines()[source.line - 1].strip() == source.text


def test_the_object_does_not_name_this_machine(compiler: cc.Compiler, tmp_path: Path) -> None:
    compile_text(compiler, tmp_path, DATA)
    assert str(tmp_path).encode() not in (tmp_path / "source.o").read_bytes()
