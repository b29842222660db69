"""bpf_strncmp(s1, size, s2): compares up to the first NUL or `size` bytes (kernel/bpf/helpers.c).

The sign of the result is that of strncmp(); the kernel's generic strncmp() returns -1, 0 or 1."""

from __future__ import annotations

from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.mem import load8
from xdpbatch.native import native


@native
def strncmp(first: int, size: int, second: int) -> int:
    for i in range(size & 0xFFFFFFFF):
        a, b = load8(first + i), load8(second + i)
        if a != b:
            if a < b:
                return -1
            return 1
        if a == 0:
            return 0
    return 0


HELPER = Helper(182, "strncmp", (Arg.MEM, Arg.CONST_SIZE, Arg.CONST_STR), Ret.INTEGER, strncmp)
