"""AF_XDP without a BPF program of one's own: send every packet back, its MAC addresses swapped.

sudo python -m xdpbatch.examples.af_xdp veth0 --queue 0
"""

from __future__ import annotations

import argparse

from xdpbatch.af_xdp import AfXdp


def swapped(packet: bytes) -> bytes:
    """The packet on its way back."""
    return packet[6:12] + packet[:6] + packet[12:]


def main() -> None:
    """Reflect until ctrl-C; then say what the kernel counted."""
    parser = argparse.ArgumentParser(description="Send every packet back.")
    parser.add_argument("interface")
    parser.add_argument("--queue", type=int, default=0)
    options = parser.parse_args()
    with AfXdp(options.interface, options.queue) as xsk:
        sent = 0
        try:
            while True:
                sent += xsk.send([swapped(packet) for packet in xsk.receive()])
        except KeyboardInterrupt:
            print(f"{sent} packets sent back, {xsk.statistics.rx_lost} lost")


if __name__ == "__main__":
    main()
