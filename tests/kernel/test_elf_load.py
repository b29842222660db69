"""The kernel takes what the loader makes of an object: maps, programs, types and lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from compiled import compile_text, compiler
from test_elf_compiled import DATA, MAPS

from xdpbatch import cc, elf, examples
from xdpbatch.program import Object
from xdpbatch.sys.kernel import KernelObject

__all__ = ["compiler"]

pytestmark = pytest.mark.kernel

KSYMS = """
extern int LINUX_KERNEL_VERSION SEC(".kconfig");
extern int bpf_xdp_metadata_rx_hash(const struct xdp_md *ctx, __u32 *hash, void *type)
    SEC(".ksyms") __attribute__((weak));
static __attribute__((noinline)) int version(void) { return LINUX_KERNEL_VERSION; }
SEC("xdp") int prog(struct xdp_md *ctx) {
    __u32 hash = 0;
    if (bpf_xdp_metadata_rx_hash) return 1;
    return version() > 5 ? 2 : 3;
}
"""


def accepted(loaded: Object) -> None:
    """Every program, with its functions' types and its lines."""
    kernel = KernelObject(loaded)
    for name, program in loaded.programs.items():
        assert program.func_info
        assert program.line_info
        kernel.program(name)


@pytest.mark.parametrize("name", examples.names())
def test_examples(name: str) -> None:
    accepted(elf.load(examples.path(name)))


CREATABLE = MAPS.replace("__ulong(map_extra, 5);", "")  # the kernel takes it for few types only


@pytest.mark.parametrize("text", [DATA, CREATABLE, KSYMS], ids=["data", "maps", "ksyms"])
def test_compiled(text: str, compiler: cc.Compiler, tmp_path: Path) -> None:
    accepted(compile_text(compiler, tmp_path, text))


def test_objects_of_the_distribution() -> None:
    paths = sorted(Path("/usr/lib").glob("*/bpf/xdpfilt_*.o"))
    if not paths:
        pytest.skip("no BPF objects of the system: package libxdp1 is not installed")
    for path in paths:
        accepted(elf.load(path))
