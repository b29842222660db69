"""The kernel's own verifier tests, loaded as XDP: the running kernel and we decide alike.

XDPBATCH_LINUX_SOURCE names a Linux source tree or tarball (Debian: linux-source-6.1). Its
tools/testing/selftests/bpf/verifier/*.c are compiled into a program that prints them. Whatever the
program type of a test, both verifiers get it as an XDP program.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import pytest

from xdpbatch.errors import ObjectError, UnsupportedError, VerifierError
from xdpbatch.isa import (
    BPF_CALL,
    CALL,
    HELPER_CALL,
    LD_IMM64,
    PSEUDO_MAP_FD,
    PSEUDO_MAP_VALUE,
    decode,
)
from xdpbatch.program import MapSpec, Object, Program, Subprog
from xdpbatch.sys.kernel import KernelObject
from xdpbatch.uapi import BPF_F_RDONLY_PROG, BPF_F_WRONLY_PROG, MapNumber
from xdpbatch.verify import verify

pytestmark = pytest.mark.kernel

SELFTESTS = "tools/testing/selftests/bpf"
INNER = MapSpec("inner", MapNumber.ARRAY, 4, 4, 1)
RO, WO = BPF_F_RDONLY_PROG, BPF_F_WRONLY_PROG
MAPS = {
    spec.name: spec
    for spec in (
        MapSpec("map_hash_8b", MapNumber.HASH, 8, 8, 1),
        MapSpec("map_hash_16b", MapNumber.HASH, 8, 16, 1),
        MapSpec("map_hash_48b", MapNumber.HASH, 8, 48, 1),
        MapSpec("map_array_48b", MapNumber.ARRAY, 4, 48, 1),
        MapSpec("map_array_ro", MapNumber.ARRAY, 4, 48, 1, RO),
        MapSpec("map_array_wo", MapNumber.ARRAY, 4, 48, 1, WO),
        MapSpec("map_array_small", MapNumber.ARRAY, 4, 1, 1),
        MapSpec("prog1", MapNumber.PROG_ARRAY, 4, 4, 4),
        MapSpec("prog2", MapNumber.PROG_ARRAY, 4, 4, 8),
        MapSpec("map_in_map", MapNumber.ARRAY_OF_MAPS, 4, 4, 1, inner=INNER),
        MapSpec("map_xskmap", MapNumber.XSKMAP, 4, 4, 1),
        MapSpec("map_stacktrace", MapNumber.STACK_TRACE, 4, 8, 1),
        MapSpec("map_event_output", MapNumber.PERF_EVENT_ARRAY, 4, 4, 1),
        MapSpec("map_ringbuf", MapNumber.RINGBUF, 0, 0, 4096),
    )
}
# Why this verifier may refuse what the kernel accepts, by the error's code.
EXPECTED_REFUSALS = {
    "unknown-helper": "the runtime has no such helper",
    "bad-pointer": "fields of struct bpf_map, which this runtime does not have",
}


@dataclass
class Selftest:
    name: str
    maps: dict[str, list[int]] = field(default_factory=dict)
    code: bytes = b""

    def program(self) -> Program | None:
        """As an XDP program; None if it needs BTF, a kfunc or a map that this runtime lacks."""
        if not self.maps.keys() <= MAPS.keys():
            return None
        try:
            insns = decode(self.code)
        except ObjectError:
            return None
        slots, slot = {}, 0
        for index, insn in enumerate(insns):
            slots[slot] = index
            slot += insn.slots
        for name, places in self.maps.items():
            for index in (slots[place] for place in places):
                insn = insns[index]
                offset = insn.imm >> 32 if insn.src == PSEUDO_MAP_VALUE else 0
                insns[index] = replace(insn, ref=name, src=insn.src or PSEUDO_MAP_FD, imm=offset)
        starts = {0}
        for insn in insns:
            if insn.op == LD_IMM64 and insn.src > PSEUDO_MAP_VALUE:
                return None
            if insn.op == CALL and insn.src not in (HELPER_CALL, BPF_CALL):
                return None
            if insn.op == CALL and insn.target is not None:
                starts.add(insn.target)
        bounds = [*sorted(starts), len(insns)]
        subprogs = tuple(
            Subprog("prog" if start == 0 else f"f{start}", start, end)
            for start, end in pairwise(bounds)
        )
        maps = {name: MAPS[name] for name in self.maps}
        return Program("prog", "xdp", tuple(insns), subprogs, maps, license="GPL")


@pytest.fixture(scope="module")
def selftests(tmp_path_factory: pytest.TempPathFactory) -> list[Selftest]:
    source = os.environ.get("XDPBATCH_LINUX_SOURCE", "")
    if not source:
        pytest.skip("no Linux source: set XDPBATCH_LINUX_SOURCE to a tree or tarball")
    clang = next(filter(None, map(shutil.which, ("clang", "clang-19", "clang-18"))), None)
    if clang is None:
        pytest.skip("no clang")
    folder = tmp_path_factory.mktemp("selftests")
    tree = Path(source)
    if tree.is_file():
        subprocess.run(
            ["tar", "-C", folder, "-xf", tree, "--strip-components=1", "--wildcards", "*/tools/*"],
            check=True,
        )
        tree = folder
    tests = tree / SELFTESTS
    (folder / "generated/verifier").mkdir(parents=True)
    names = sorted(path.name for path in (tests / "verifier").glob("*.c"))
    includes = "".join(f'#include "{name}"\n' for name in names)
    (folder / "generated/verifier/tests.h").write_text(includes)
    search = [folder / "generated", tests, tests / "verifier"]
    search += [tree / "tools" / name for name in ("include/uapi", "include", "lib")]
    program = Path(__file__).parent / "selftests/dump.c"
    options = ["-w", "-D_GNU_SOURCE", *(f"-I{path}" for path in search)]
    libraries = ["-lbpf", "-lelf", "-lz"]
    subprocess.run([clang, *options, "-o", folder / "dump", program, *libraries], check=True)
    dump = subprocess.run([folder / "dump"], check=True, capture_output=True, text=True)
    return list(parse(dump.stdout))


def parse(text: str) -> Iterator[Selftest]:
    test = Selftest("")
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "TEST":
            test = Selftest(rest.split(" ", 2)[2])
        elif word == "FIX":
            name, *places = rest.split()
            test.maps[name] = [int(place) for place in places]
        else:
            test.code = bytes.fromhex(rest)
            yield test


def kernel_accepts(program: Program) -> bool:
    try:
        KernelObject(Object("", {"prog": program}, program.maps)).program("prog")
    except UnsupportedError as error:
        pytest.skip(f"bpf(2) is not allowed: {error}")
    except VerifierError:
        return False
    return True


def test_the_kernel_decides_alike(selftests: list[Selftest]) -> None:
    outcomes: Counter[str] = Counter()
    wrong = []
    for test in selftests:
        program = test.program()
        if program is None:
            outcomes["not for this runtime"] += 1
            continue
        code = ""
        try:
            verify(program)
        except VerifierError as error:
            code = error.diagnostics[0].code
        theirs = kernel_accepts(program)
        outcomes[
            f"{'refused' if code else 'accepted'}, kernel {'accepts' if theirs else 'refuses'}"
        ] += 1
        if not code and not theirs:
            wrong.append(f"accepted here, refused by the kernel: {test.name}")
        elif code and theirs and code not in EXPECTED_REFUSALS:
            wrong.append(f"refused here ({code}), accepted by the kernel: {test.name}")
    print(dict(outcomes))
    assert not wrong, "\n".join(wrong)
    assert outcomes["accepted, kernel accepts"] > 400, "the tests were not understood"
