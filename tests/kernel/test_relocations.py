"""Relocations against the running kernel: libbpf, through bpftool, is asked the same questions."""

from __future__ import annotations

from pathlib import Path

import pytest
from bpftool import bpftool, load, pins, run
from compiled import compile_text, compiler

from xdpbatch import cc, elf
from xdpbatch.program import Object
from xdpbatch.runtime import Instance
from xdpbatch.sys.kernel import KernelObject
from xdpbatch.test_run import Bench

__all__ = ["compiler", "pins"]

pytestmark = pytest.mark.kernel

PREFIX = """
#define core __attribute__((preserve_access_index))
#define weak __attribute__((weak))
#define kconfig SEC(".kconfig")
typedef _Bool bool;
enum libbpf_tristate { TRI_NO, TRI_YES, TRI_MODULE };
struct net_device { int ifindex; unsigned int mtu; int none; } core;
struct net_device___gone { unsigned int gone; } core;
struct sk_buff { unsigned int len; struct net_device *dev; unsigned char pkt_type : 3; } core;
struct tcphdr { __u16 source; __u16 doff : 4, fin : 1, syn : 1; } core;
struct no_such_type { int a; } core;
union nf_inet_addr { __u32 all[4]; __u32 ip; } core;
enum bpf_map_type___here { BPF_MAP_TYPE_RINGBUF___here = 1, BPF_MAP_TYPE_NEVER = 999 };
typedef int (*function)(void);
#define FIELD(type, member, kind) __builtin_preserve_field_info(((type *)0)->member, kind)
#define TYPE(type, kind) __builtin_preserve_type_info(*(type *)0, kind)
#define ENUM(value, kind) __builtin_preserve_enum_value(*(enum bpf_map_type___here *)value, kind)
#define ASK(name, question) SEC("xdp") int name(struct xdp_md *ctx) { return question; }
extern int CONFIG_HZ kconfig;
extern bool CONFIG_NET kconfig;
extern enum libbpf_tristate CONFIG_BPF kconfig;
extern char CONFIG_DEFAULT_HOSTNAME[8] kconfig weak;
extern long CONFIG_NEVER kconfig weak;
extern int LINUX_KERNEL_VERSION kconfig;
extern unsigned long CONFIG_PHYSICAL_START kconfig weak;
extern const void never SEC(".ksyms") weak;
extern int never_a_function(void) SEC(".ksyms") weak;
"""
QUESTIONS = {
    "offset": "FIELD(struct sk_buff, len, 0)",
    "offset_of_pointer": "FIELD(struct sk_buff, dev, 0)",
    "size": "FIELD(struct net_device, mtu, 1)",
    "exists": "FIELD(struct net_device, mtu, 2)",
    "does_not_exist": "FIELD(struct net_device, none, 2)",
    "gone": "FIELD(struct net_device___gone, gone, 2)",
    "signed_field": "FIELD(struct net_device, ifindex, 3)",
    "bits_offset": "FIELD(struct tcphdr, syn, 0)",
    "bits_size": "FIELD(struct tcphdr, syn, 1)",
    "bits_left": "FIELD(struct tcphdr, syn, 4)",
    "bits_right": "FIELD(struct tcphdr, doff, 5)",
    "bits_in_char": "FIELD(struct sk_buff, pkt_type, 4)",
    "union_size": "FIELD(union nf_inet_addr, all[2], 0)",
    "type_exists": "TYPE(struct sk_buff, 0)",
    "type_does_not": "TYPE(struct no_such_type, 0)",
    "type_size": "TYPE(struct sk_buff, 1)",
    "type_matches": "TYPE(struct net_device, 2)",
    "enum_exists": "ENUM(BPF_MAP_TYPE_RINGBUF___here, 0)",
    "enum_does_not": "ENUM(BPF_MAP_TYPE_NEVER, 0)",
    "enum_value": "ENUM(BPF_MAP_TYPE_RINGBUF___here, 1)",
    "type_id": "__builtin_btf_type_id(*(struct sk_buff *)0, 1)",
    "hz": "CONFIG_HZ",
    "version": "LINUX_KERNEL_VERSION",
    "boolean": "CONFIG_NET",
    "tristate": "CONFIG_BPF",
    "string": "CONFIG_DEFAULT_HOSTNAME[0] << 8 | CONFIG_DEFAULT_HOSTNAME[7]",
    "hexadecimal": "CONFIG_PHYSICAL_START",
    "weak_option": "CONFIG_NEVER",
    "weak_symbol": "&never == 0",
    "weak_function": "never_a_function ? never_a_function() : 77",
}
ASKED = "\n".join(f"ASK({name}, {question})" for name, question in QUESTIONS.items())


def asked_of_libbpf(path: Path, pins: Path, names: list[str]) -> dict[str, int]:
    """What each program of an object returns, loaded and run by bpftool."""
    load(path, pins)
    return {name: run(pins, name, path.parent) for name in names}


def asked_here(obj: Object) -> dict[str, int]:
    bench, instance = Bench(1), Instance(obj)
    bench.fill([bytes(64)])
    return {
        name: instance.interpreter(program).run(bench.buff(0)) & 0xFFFFFFFF
        for name, program in obj.programs.items()
    }


def test_every_kind(compiler: cc.Compiler, tmp_path: Path, pins: Path) -> None:
    obj = compile_text(compiler, tmp_path, PREFIX + ASKED)
    assert "running kernel" in obj.types_from
    assert obj.config_from
    here = asked_here(obj)
    assert asked_of_libbpf(tmp_path / "source.o", pins, list(QUESTIONS)) == here
    assert here["hz"] in (100, 250, 300, 1000)
    assert here["type_size"] > 100


CALLER = """
extern int twice(int) ;
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32);
         __type(value, __u64); } shared SEC(".maps");
SEC("xdp") int prog(struct xdp_md *ctx) {
    __u32 key = 1;
    __u64 *value = bpf_map_lookup_elem(&shared, &key);
    return value ? twice(*value) : 0;
}
SEC("xdp") int other(struct xdp_md *ctx) { return twice(3); }
"""
CALLED = """
static int calls;
extern struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32);
                __type(value, __u64); } shared SEC(".maps");
__attribute__((noinline)) int twice(int a) {
    __u32 key = 1;
    __u64 *value = bpf_map_lookup_elem(&shared, &key);
    calls++;
    if (value) *value += 5;
    return 2 * a + calls;
}
"""


def test_what_bpftool_links(compiler: cc.Compiler, tmp_path: Path, pins: Path) -> None:
    """Static linking: functions, maps and variables of one file that another uses."""
    if compiler.name.startswith("ziglang"):
        pytest.skip("bpftool does not link what ziglang makes (STT_SECTION relocations)")
    linked = tmp_path / "linked.o"
    parts = []
    for name, text in (("caller", CALLER), ("called", CALLED)):
        (tmp_path / f"{name}.c").write_text(
            f'#include "xdp.h"\n{text}\nchar _license[] SEC("license") = "GPL";'
        )
        cc.compile(tmp_path / f"{name}.c", tmp_path / f"{name}.o", compiler=compiler)
        parts.append(tmp_path / f"{name}.o")
    bpftool("gen", "object", linked, *parts)
    names = ["prog", "other"]
    assert asked_of_libbpf(linked, pins, names) == asked_here(elf.load(linked))


LEGACY = """
struct bpf_map_def { unsigned int type, key_size, value_size, max_entries, map_flags; };
struct bpf_elf_map { __u32 type, size_key, size_value, max_elem, flags, id, pinning, in, index; };
struct bpf_map_def SEC("maps") %s = { BPF_MAP_TYPE_HASH, 4, 8, 16, BPF_F_NO_PREALLOC };
struct ____btf_map_first { __u32 key; __u64 value; };
struct ____btf_map_first __attribute__((section(".maps.first"), used)) ____btf_map_first = {};
SEC("xdp") int prog(struct xdp_md *ctx) {
    __u32 key = 1;
    __u64 one = 1;
    bpf_map_update_elem(&first, &key, &one, 0);
    return bpf_map_lookup_elem(&first, &key) ? 2 : 0;
}
"""


@pytest.mark.parametrize("struct", ["bpf_map_def", "bpf_elf_map"])
def test_maps_of_old_sources(struct: str, compiler: cc.Compiler, tmp_path: Path) -> None:
    text = LEGACY.replace("struct bpf_map_def SEC", f"struct {struct} SEC") % "first"
    obj = compile_text(compiler, tmp_path, text)
    spec = obj.maps["first"]
    assert obj.btf is not None
    assert obj.btf.size_of(spec.value_type) == 8
    assert KernelObject(obj).program("prog").run(bytes(64)).verdict == 2
    assert asked_here(obj) == {"prog": 2}


DYNPTR = """
extern int bpf_dynptr_from_xdp(struct xdp_md *, __u64 flags, void *) SEC(".ksyms");
SEC("xdp") int prog(struct xdp_md *ctx) {
    __u64 at[2];
    return bpf_dynptr_from_xdp(ctx, 0, at) ? 1 : 2;
}
"""


def test_the_kernel_is_given_its_own_functions(compiler: cc.Compiler, tmp_path: Path) -> None:
    """A call of a kfunc is loaded by the id that it has in the running kernel."""
    obj = compile_text(compiler, tmp_path, DYNPTR)
    assert KernelObject(obj).program("prog").run(bytes(64)).verdict == 2
