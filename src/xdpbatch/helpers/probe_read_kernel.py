"""bpf_probe_read_kernel(dst, size, address): reads the kernel's memory (kernel/trace/bpf_trace.c).

There is no kernel here: -EFAULT, and `dst` is zero, as in Linux for an address where there is
nothing. For one that is no kernel's it is -ERANGE, as x86-64 with four levels of page tables has it
(copy_from_kernel_nofault_allowed). This process's own memory is never read.
"""

from __future__ import annotations

import errno

from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.mem import below, fill, signed
from xdpbatch.native import native

EFAULT, ERANGE = errno.EFAULT, errno.ERANGE
USER = 1 << 47  # TASK_SIZE_MAX and a page
VSYSCALL, PAGE = signed(0xFFFFFFFFFF600000), 4096


@native
def is_kernel(address: int) -> int:
    """1 for an address that a kernel can have memory at: canonical in 57 bits, not a user's."""
    top = address >> 56
    if below(address, USER) != 0 or (top != 0 and top != -1):
        return 0
    return int(address & -PAGE != VSYSCALL)


@native
def probe_read_kernel(to: int, size: int, address: int) -> int:
    size &= 0xFFFFFFFF
    fill(to, 0, size)
    if is_kernel(address) == 0:
        return -ERANGE
    if size == 0:
        return 0
    return -EFAULT


HELPER = Helper(
    113,
    "probe_read_kernel",
    (Arg.UNINIT_MEM, Arg.CONST_SIZE_OR_ZERO, Arg.ANYTHING),
    Ret.INTEGER,
    probe_read_kernel,
    gpl=True,
)
