"""AF_XDP for Python programs, without a BPF program or a compiler: packets in, packets out.

    from xdpbatch.af_xdp import AfXdp

    with AfXdp("veth0", queue=0) as xsk:
        for packet in xsk.receive(timeout=1.0):      # list of bytes
            xsk.send([packet])

Analogous to libxdp's xsk_socket__create(). All packets of the queue come here for as long as the
object is open; the kernel gives the queue back when it is closed or the process ends. Packets are
copied and handled one by one: some 100,000 per second. `port` has the rings themselves (data.ring)
for those who want more, and `sys.xsk.Socket` everything below.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from typing import Self

from xdpbatch.data.umem import Umem
from xdpbatch.ports.af_xdp import AfXdpPort, Sizes
from xdpbatch.sys import link
from xdpbatch.sys.link import Mode
from xdpbatch.sys.redirect import Redirect
from xdpbatch.sys.xsk import CopyMode, Statistics


class AfXdp:
    """One queue of an interface, taken over. Raises LinkError, XskError, BpfError."""

    def __init__(
        self,
        interface: str,
        queue: int = 0,
        *,
        ring_size: int = 2048,
        mode: Mode = Mode.native,
        copy_mode: CopyMode = CopyMode.copy,
    ) -> None:
        self.interface = link.interface(interface)
        sizes = Sizes(ring_size, ring_size)
        umem = Umem(sizes.frames, aligned_chunks=copy_mode is not CopyMode.copy)
        self.port = AfXdpPort(
            umem,
            self.interface.ifindex,
            queue,
            name=str(self.interface),
            sizes=sizes,
            copy_mode=copy_mode,
            mtu=self.interface.mtu,
        )
        try:
            self.port.provide()
            self._redirect = Redirect(self.interface.queues)
            self._redirect.add(queue, self.port.socket)
            self._link = link.attach(self._redirect.fd, self.interface, mode)
        except BaseException:
            self.port.close()
            raise

    def fileno(self) -> int:
        """For select(): readable when packets wait."""
        return self.port.socket.fileno()

    def receive(self, most: int = 64, timeout: float | None = None) -> list[bytes]:
        """Up to `most` packets; waits `timeout` seconds for the first (None: for ever)."""
        found = self.port.receive(most)
        if not found and select.select([self], [], [], timeout)[0]:
            found = self.port.receive(most)
        return found

    def send(self, packets: Sequence[bytes]) -> int:
        """Send packets; how many the ring had room for."""
        return self.port.send(packets)

    @property
    def statistics(self) -> Statistics:
        """What the kernel has counted."""
        return self.port.statistics

    def close(self) -> None:
        """Give the queue back."""
        self._link.close()
        self.port.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
