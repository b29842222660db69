"""The kernel that an object is made to fit: types from a file, options of a configuration."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from compiled import compile_text, compiler
from hypothesis import given
from hypothesis import strategies as st
from tiny_btf import TinyBtf
from tiny_elf import TinyElf

from xdpbatch import cc, elf, examples
from xdpbatch.btf import Btf, Kind
from xdpbatch.errors import ObjectError, UnsupportedError, XdpBatchError
from xdpbatch.kconfig import Variable
from xdpbatch.program import Object
from xdpbatch.runtime import Instance
from xdpbatch.target import OWN, Target
from xdpbatch.test_run import Bench

__all__ = ["compiler"]

CONFIG = """
# CONFIG_ABSENT is not set
CONFIG_YES=y
CONFIG_MODULE=m
CONFIG_HZ=250
CONFIG_HEX=0xffffffff
CONFIG_NEGATIVE=-3
CONFIG_NAME="some text"
"""
VARIABLES = """
enum libbpf_tristate { TRI_NO, TRI_YES, TRI_MODULE };
#define kconfig SEC(".kconfig")
#define weak __attribute__((weak))
extern _Bool CONFIG_YES kconfig;
extern enum libbpf_tristate CONFIG_MODULE kconfig;
extern int CONFIG_HZ kconfig;
extern unsigned long CONFIG_HEX kconfig;
extern long CONFIG_NEGATIVE kconfig;
extern char CONFIG_NAME[8] kconfig;
extern int CONFIG_ABSENT kconfig weak;
extern int LINUX_UNKNOWN kconfig weak;
SEC("xdp") int prog(struct xdp_md *ctx) {
    if (!CONFIG_YES || CONFIG_MODULE != TRI_MODULE || CONFIG_HZ != 250) return 0;
    if (CONFIG_HEX != 0xffffffff || CONFIG_NEGATIVE != -3) return 1;
    if (CONFIG_NAME[0] != 's' || CONFIG_NAME[6] != 'e' || CONFIG_NAME[7]) return 3;
    return CONFIG_ABSENT || LINUX_UNKNOWN ? 4 : 2;
}
"""


def config(directory: Path, text: str = CONFIG) -> Target:
    (directory / "config.gz").write_bytes(gzip.compress(text.encode()))
    return Target(config=str(directory / "config.gz"))


def verdict(obj: Object) -> int:
    bench = Bench(1)
    bench.fill([bytes(60)])
    return Instance(obj).interpreter(obj.programs["prog"]).run(bench.buff(0))


def test_options_of_every_type(compiler: cc.Compiler, tmp_path: Path) -> None:
    loaded = compile_text(compiler, tmp_path, VARIABLES, config(tmp_path))
    assert loaded.config_from == str(tmp_path / "config.gz")
    assert verdict(loaded) == 2


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        ("_Bool CONFIG_MODULE", "CONFIG_MODULE is m"),
        ("int CONFIG_YES", "CONFIG_YES is y"),
        ("int CONFIG_NAME", 'CONFIG_NAME is "some text"'),
        ("char CONFIG_HZ", "CONFIG_HZ is 250"),
        ("unsigned int CONFIG_NEGATIVE", "CONFIG_NEGATIVE is -3"),
        ("int CONFIG_ABSENT", "asks for CONFIG_ABSENT"),
        ("int LINUX_UNKNOWN", "asks for LINUX_UNKNOWN"),
        ("struct { int a; } CONFIG_YES", "type that no option can have"),
    ],
)
def test_what_does_not_fit_is_refused(declared: str, why: str, tmp_path: Path) -> None:
    """As libbpf refuses it: a variable is never filled with part of a value."""
    compilers = list(cc.compilers())
    if not compilers:
        pytest.skip("no compiler for BPF is installed")
    name = declared.split()[-1]
    text = (
        f'extern {declared} SEC(".kconfig"); void *at;'
        f'SEC("xdp") int prog(struct xdp_md *ctx) {{ at = (void *)&{name}; return 2; }}'
    )
    with pytest.raises(XdpBatchError, match=why):
        compile_text(compilers[0], tmp_path, text, config(tmp_path))


@given(st.text(max_size=12))
def test_any_text_of_an_option_fits_or_is_refused(text: str) -> None:
    made = TinyBtf()
    word = made.integer("int", 4, signed=True)
    made.add(Kind.VAR, "CONFIG_X", word, 2)
    variable = Variable.of(made.btf(), "CONFIG_X", 2)
    try:
        assert len(variable.value(text)) == 4
    except ObjectError:
        return


def test_no_configuration_is_an_error_only_for_what_is_not_weak(tmp_path: Path) -> None:
    target = Target(config=str(tmp_path / "missing"))
    assert target.config_from == ""
    with pytest.raises(UnsupportedError, match="--kconfig FILE"):
        _ = target.options


def test_types_from_a_file_of_either_form(tmp_path: Path) -> None:
    made = TinyBtf()
    made.integer("int", 4)
    raw, obj = tmp_path / "raw.btf", tmp_path / "vmlinux"
    raw.write_bytes(made.bytes())
    file = TinyElf(machine=62, type=2)  # an x86-64 executable
    file.section(".BTF", made.bytes())
    obj.write_bytes(file.bytes())
    for path in (raw, obj):
        target = Target(str(path))
        assert target.types is not None
        assert [t.name for t in target.types] == ["int"]
        assert target.types_from == str(path)
    assert Target(OWN).types is None


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"text", b"\x9f\xeb"])
def test_a_file_without_types_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ObjectError):
        _ = Target(str(tmp_path / "x")).types


def test_only_an_object_that_asks_is_told(tmp_path: Path) -> None:
    loaded = elf.load(examples.path("drop"), target=Target("/nowhere", "/nowhere"))
    assert (loaded.types_from, loaded.config_from) == ("", "")


def test_names_are_found_with_and_without_their_flavours() -> None:
    made = TinyBtf()
    word = made.integer("int", 4)
    for name in ("foo", "foo___old", "foo___a___b", "foo____b", "foobar"):
        made.composite(name, 4, ("a", word, 0))
    btf = Btf(made.bytes())
    assert [t.name for t in btf.flavours("foo")] == ["foo", "foo___old"]
    assert [t.name for t in btf.flavours("foo___a")] == ["foo___a___b"]
    assert [t.name for t in btf.flavours("foo____b")] == ["foo____b"]
    assert [t.name for t in btf.named("foo___old")] == ["foo___old"]
    assert btf.flavours("bar") == []
