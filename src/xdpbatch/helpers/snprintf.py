"""bpf_snprintf(str, str_size, fmt, data, data_len): format into memory (kernel/bpf/helpers.c).

The length of the whole text with its NUL, or -EINVAL; what does not fit is cut off."""

from __future__ import annotations

import errno

from xdpbatch.data.printf import printf
from xdpbatch.helpers import Arg, Helper, Ret
from xdpbatch.mem import store8
from xdpbatch.native import native

EINVAL = errno.EINVAL
MAX_ARGS = 12  # MAX_BPRINTF_VARARGS
ANY_LENGTH = 1 << 32  # the format's end is its NUL, which the verifier has seen


@native
def snprintf(to: int, size: int, format: int, data: int, length: int) -> int:
    size &= 0xFFFFFFFF
    length &= 0xFFFFFFFF
    if length & 7 != 0 or length > MAX_ARGS * 8 or (length != 0 and data == 0):
        return -EINVAL
    written = printf(to, max(size - 1, 0), format, ANY_LENGTH, data, length // 8, 0, 0, 0)
    if written < 0:
        return written
    if size > 0:
        store8(to + min(written, size - 1), 0)
    return written + 1


HELPER = Helper(
    165,
    "snprintf",
    (
        Arg.UNINIT_MEM,
        Arg.CONST_SIZE_OR_ZERO,
        Arg.CONST_STR,
        Arg.MEM_OR_NULL,
        Arg.CONST_SIZE_OR_ZERO,
    ),
    Ret.INTEGER,
    snprintf,
    gpl=True,
)
