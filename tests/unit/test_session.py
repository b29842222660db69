"""A session as a whole: one by one and batched come to the same, for every backend."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from xdpbatch import asm
from xdpbatch.jit.native import compile_native
from xdpbatch.job import Job, run
from xdpbatch.packets import Synthetic
from xdpbatch.pcap.index import index
from xdpbatch.pcap.read import Reader
from xdpbatch.pcap.write import CaptureWriter
from xdpbatch.ports.synthetic import SyntheticPort
from xdpbatch.program import Object
from xdpbatch.runtime import BATCH, SINGLE, Instance
from xdpbatch.session import Result, Session
from xdpbatch.uapi import MAX_TAIL_CALL_CNT

EXAMPLES = Path(__file__).parents[2] / "src/xdpbatch/examples"
SPEC = "udp,tcp,size=64-200,flows=30,v6=0.3,count=500"

# Tail calls until the limit: r0 is how many of them the packet made, kept in its first byte.
COUNTS_ITS_TAIL_CALLS = """
    .map jump prog_array 4 4 1
    r2 = *(u32 *)(r1 + 0)
    r3 = *(u32 *)(r1 + 4)
    r4 = r2
    r4 += 14
    r0 = 0
    if r4 > r3 goto out
    r4 = *(u8 *)(r2 + 0)
    r4 += 1
    *(u8 *)(r2 + 0) = r4
    r2 = map[jump] ll
    r3 = 0
    call bpf_tail_call#12
    r0 = 1
    out:
    exit
"""


def tail_calling() -> Object:
    program = asm.program(COUNTS_ITS_TAIL_CALLS, "again")
    maps = {"jump": replace(program.maps["jump"], values={0: "again"})}
    return Object("again.o", {"again": replace(program, maps=maps)}, maps)


@pytest.mark.parametrize("backend", ["llvm", "x86"])
@pytest.mark.parametrize("single", [True, False])
def test_every_packet_has_its_own_tail_calls(backend: str, single: bool) -> None:
    obj = tail_calling()
    instance = Instance(obj)
    entry = instance.entry(obj.programs["again"], backend, SINGLE if single else BATCH)
    out = BytesIO()
    writer = CaptureWriter(out, 64)
    session = Session(
        lambda umem, i, ring: SyntheticPort(umem, "flows=3,count=200", i, ring), writer=writer
    )
    assert session.run(entry.address, single=single).actions["XDP_DROP"] == 200
    writer.close()
    out.seek(0)
    first = {packet.data[0] for packet in Reader(out).packets(compile_native(index))}
    sent = {packet[0] for packet in Synthetic("flows=3,count=200")}
    assert first == {(byte + 1 + MAX_TAIL_CALL_CNT) % 256 for byte in sent}


def outcome(name: str, single: bool, backend: str = "llvm", batch_size: int = 64) -> Result:
    path = EXAMPLES / f"{name}.o"
    job = Job(path, synth=SPEC, single=single, backend=backend, batch_size=batch_size, targets=4)
    return run(job).result


@pytest.mark.parametrize("name", ["drop", "tx", "parse", "firewall", "flows", "redirect", "lb"])
def test_one_by_one_batched_and_interpreted_agree(name: str) -> None:
    first = outcome(name, single=True)
    others = [outcome(name, False, batch_size=n) for n in (1, 64, 200)]
    others += [outcome(name, False, "interp"), outcome(name, True, "interp")]
    for other in others:
        assert (other.packets, other.bytes, other.actions, other.errors, other.sent) == (
            first.packets, first.bytes, first.actions, first.errors, first.sent
        )  # fmt: skip
    assert first.packets == sum(first.actions.values()) == 500


def test_input_is_not_overwritten(tmp_path: Path) -> None:
    from xdpbatch.errors import XdpBatchError
    from xdpbatch.pcap.write import pcap

    path = tmp_path / "both.pcap"
    path.write_bytes(pcap([bytes(60)]))
    before = path.read_bytes()
    with pytest.raises(XdpBatchError, match="read and written"):
        run(Job(EXAMPLES / "drop.o", read=str(path), write=str(path)))
    assert path.read_bytes() == before
