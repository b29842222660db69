"""bpf_loop(count, callback, context, flags): the number of calls made, or -errno
(kernel/bpf/bpf_iter.c). The rewrites and the interpreter make the calls."""

from __future__ import annotations

from xdpbatch.helpers import Arg, Helper, Ret

HELPER = Helper(181, "loop", (Arg.ANYTHING, Arg.FUNC, Arg.STACK_OR_NULL, Arg.ANYTHING), Ret.INTEGER)
