"""The kernel takes a program of a devmap or cpumap section for just that."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from xdpbatch.asm import program
from xdpbatch.errors import VerifierError
from xdpbatch.program import Attach, MapSpec, Object
from xdpbatch.sys.bpf import BpfError
from xdpbatch.sys.kernel import KernelObject
from xdpbatch.uapi import MapNumber

pytestmark = pytest.mark.kernel

LOOPBACK = 1
ENTRY_OF = {MapNumber.DEVMAP: (LOOPBACK, Attach.DEVMAP), MapNumber.CPUMAP: (192, Attach.CPUMAP)}


def loaded(attach: Attach, text: str, kind: MapNumber = MapNumber.ARRAY) -> KernelObject:
    maps = {"entries": MapSpec("entries", kind, 4, 8, 1)}
    one = replace(program(text, maps=maps.values()), attach=attach)
    return KernelObject(Object("test", {one.name: one}, maps))


@pytest.mark.parametrize("attach", Attach)
def test_only_a_devmap_program_has_an_egress_ifindex(attach: Attach) -> None:
    """kernel/bpf: xdp_is_valid_access() asks for BPF_XDP_DEVMAP."""
    kernel = loaded(attach, "r0 = *(u32 *)(r1 + 20)\nr0 = 2\nexit")
    name = next(iter(kernel.obj.programs))
    if attach is Attach.DEVMAP:
        kernel.program(name)
        return
    with pytest.raises(VerifierError, match="off=20"):
        kernel.program(name)


@pytest.mark.parametrize("attach", Attach)
@pytest.mark.parametrize("kind", ENTRY_OF)
def test_an_entry_takes_a_program_of_its_own_type(kind: MapNumber, attach: Attach) -> None:
    """struct bpf_devmap_val and bpf_cpumap_val: a number, then the program's descriptor."""
    kernel = loaded(attach, "r0 = 2\nexit", kind)
    number, wanted = ENTRY_OF[kind]
    fd = kernel.program(next(iter(kernel.obj.programs))).fd
    value = struct.pack("<II", number, fd)
    if attach is wanted:
        kernel.maps["entries"][bytes(4)] = value
        return
    with pytest.raises(BpfError):
        kernel.maps["entries"][bytes(4)] = value
