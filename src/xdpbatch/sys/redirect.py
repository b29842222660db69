"""The program that hands an interface's packets to our sockets: all the kernel runs of XDP.

Analogous to libxdp's default program (xsk_def_xdp_prog.c). A packet of a queue that has no socket
goes on to the kernel's stack, and is counted.
"""

from __future__ import annotations

import struct

from xdpbatch import asm
from xdpbatch.sys.kernel import KernelMap, KernelProgram, possible_cpus
from xdpbatch.sys.xsk import Socket

_TEXT = """
    r2 = *(u32 *)(r1 + 16)            ; xdp_md.rx_queue_index
    r1 = map[sockets] ll
    r3 = 2                            ; XDP_PASS if there is no socket
    call bpf_redirect_map#51
    if r0 == 4 goto out
    r1 = 0
    *(u32 *)(r10 - 4) = r1
    r2 = r10
    r2 += -4
    r1 = map[undelivered] ll
    call bpf_map_lookup_elem#1
    if r0 == 0 goto pass
    r1 = *(u64 *)(r0 + 0)
    r1 += 1
    *(u64 *)(r0 + 0) = r1
pass:
    r0 = 2
out:
    exit
"""


class Redirect:
    """The program, loaded, for an interface of up to `queues` queues. Raises BpfError."""

    def __init__(self, queues: int) -> None:
        maps = f".map sockets xskmap 4 4 {queues}\n.map undelivered percpu_array 4 8 1\n"
        program = asm.program(maps + _TEXT, "xdpbatch")
        self.maps = {name: KernelMap(spec) for name, spec in program.maps.items()}
        self.fd = KernelProgram(program, self.maps).fd

    def add(self, queue: int, socket: Socket) -> None:
        """From now on, packets of a queue go to a socket, which must be bound to it."""
        self.maps["sockets"][struct.pack("=I", queue)] = struct.pack("=I", socket.fileno())

    @property
    def undelivered(self) -> int:
        """Packets of queues without a socket: the kernel's stack got them."""
        value = self.maps["undelivered"][bytes(4)]
        return sum(struct.unpack(f"={possible_cpus()}Q", value))
