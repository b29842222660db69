"""What a program may use: each helper, map type, kfunc and relocation, and whether it is here.

Analogous to `bpftool feature probe`, for this runtime. What is supported is read from the
registries; what is not has its reason here. `python -m xdpbatch.compatibility` writes
docs/compatibility.md, `xdpbatch features` shows the same.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from xdpbatch.core_relo import Relo
from xdpbatch.helpers import helpers
from xdpbatch.maps import map_types
from xdpbatch.uapi import HELPER_NAMES, MapNumber

# What Linux 6.18 lets XDP programs call: xdp_func_proto() and bpf_base_func_proto().
XDP_HELPERS = frozenset(
    """
map_lookup_elem map_update_elem map_delete_elem ktime_get_ns trace_printk get_prandom_u32
get_smp_processor_id tail_call get_current_pid_tgid get_current_uid_gid get_current_comm
get_cgroup_classid perf_event_read redirect perf_event_output csum_diff get_current_task
current_task_under_cgroup get_numa_node_id xdp_adjust_head redirect_map xdp_adjust_meta
perf_event_read_value xdp_adjust_tail fib_lookup get_current_cgroup_id sk_lookup_tcp sk_lookup_udp
sk_release map_push_elem map_pop_elem map_peek_elem spin_lock spin_unlock skc_lookup_tcp
tcp_check_syncookie strtol strtoul send_signal tcp_gen_syncookie probe_read_user probe_read_kernel
probe_read_user_str probe_read_kernel_str send_signal_thread jiffies64 get_ns_current_pid_tgid
get_current_ancestor_cgroup_id ktime_get_boot_ns ringbuf_output ringbuf_reserve ringbuf_submit
ringbuf_discard ringbuf_query skc_to_tcp6_sock skc_to_tcp_sock skc_to_tcp_timewait_sock
skc_to_tcp_request_sock skc_to_udp6_sock get_task_stack copy_from_user snprintf_btf per_cpu_ptr
this_cpu_ptr task_storage_get task_storage_delete get_current_task_btf ktime_get_coarse_ns check_mtu
for_each_map_elem snprintf timer_init timer_set_callback timer_start timer_cancel task_pt_regs
get_branch_snapshot trace_vprintk skc_to_unix_sock find_vma loop strncmp xdp_get_buff_len
xdp_load_bytes xdp_store_bytes copy_from_user_task kptr_xchg map_lookup_percpu_elem
skc_to_mptcp_sock dynptr_from_mem ringbuf_reserve_dynptr ringbuf_submit_dynptr
ringbuf_discard_dynptr dynptr_read dynptr_write dynptr_data tcp_raw_gen_syncookie_ipv4
tcp_raw_gen_syncookie_ipv6 tcp_raw_check_syncookie_ipv4 tcp_raw_check_syncookie_ipv6
ktime_get_tai_ns user_ringbuf_drain cgrp_storage_get cgrp_storage_delete
""".split()
)
NOT_YET = "not implemented"
_TASK = "no task calls a program that runs on packets in user space"
_KERNEL_MEMORY = "reads memory of the kernel or of a task, which is not here"
_SOCKET = "converts or holds a socket of the kernel"
_SLEEPS = "the kernel refuses it too: it may sleep"
_NO_COUNTERS = "reads a hardware counter through the kernel"
_NO_DEVICE = "the kernel gives it to programs that are bound to a device only"
_NOT_XDP = "no XDP program can use it"

_WHY_NOT_HELPER: Mapping[str, str] = {
    **dict.fromkeys(
        """get_current_pid_tgid get_current_uid_gid get_current_comm get_cgroup_classid
        get_current_task current_task_under_cgroup get_current_cgroup_id send_signal
        send_signal_thread get_ns_current_pid_tgid get_current_ancestor_cgroup_id get_task_stack
        task_storage_get task_storage_delete get_current_task_btf task_pt_regs find_vma
        cgrp_storage_get cgrp_storage_delete""".split(),
        _TASK,
    ),
    **dict.fromkeys(
        """probe_read_user probe_read_kernel probe_read_user_str probe_read_kernel_str snprintf_btf
        per_cpu_ptr this_cpu_ptr get_branch_snapshot kptr_xchg""".split(),
        _KERNEL_MEMORY,
    ),
    **dict.fromkeys(
        """skc_to_tcp6_sock skc_to_tcp_sock skc_to_tcp_timewait_sock skc_to_tcp_request_sock
        skc_to_udp6_sock skc_to_unix_sock skc_to_mptcp_sock""".split(),
        _SOCKET,
    ),
    **dict.fromkeys(("copy_from_user", "copy_from_user_task"), _SLEEPS),
    **dict.fromkeys(("perf_event_read", "perf_event_read_value"), _NO_COUNTERS),
}
_WHY_NOT_MAP: Mapping[MapNumber, str] = {
    **dict.fromkeys(
        (
            MapNumber.CGROUP_ARRAY, MapNumber.CGROUP_STORAGE, MapNumber.PERCPU_CGROUP_STORAGE,
            MapNumber.CGRP_STORAGE, MapNumber.TASK_STORAGE,
        ),
        _TASK,
    ),
    **dict.fromkeys(
        (
            MapNumber.SOCKMAP, MapNumber.SOCKHASH, MapNumber.REUSEPORT_SOCKARRAY,
            MapNumber.SK_STORAGE,
        ),
        _SOCKET,
    ),
    **dict.fromkeys((MapNumber.STRUCT_OPS, MapNumber.INODE_STORAGE), _NOT_XDP),
    MapNumber.STACK_TRACE: "XDP programs have no helper that fills it",
}  # fmt: skip
# kfuncs that XDP programs of Linux 6.18 are known to call. A weak one that is not here is 0.
_KFUNCS: Mapping[str, str] = {
    "bpf_xdp_metadata_rx_hash": _NO_DEVICE,
    "bpf_xdp_metadata_rx_timestamp": _NO_DEVICE,
    "bpf_xdp_metadata_rx_vlan_tag": _NO_DEVICE,
    "bpf_xdp_get_xfrm_state": "holds an IPsec state of the kernel",
    "bpf_xdp_ct_lookup": "connection tracking belongs to the kernel",
    "bpf_skb_ct_lookup": _NOT_XDP,
    "bpf_dynptr_from_xdp": NOT_YET,
    "bpf_dynptr_slice": NOT_YET,
    "bpf_dynptr_slice_rdwr": NOT_YET,
    "bpf_rdonly_cast": _KERNEL_MEMORY,
    "bpf_cast_to_kern_ctx": _KERNEL_MEMORY,
}
_RELOCATIONS: Mapping[str, tuple[bool, str]] = {
    "map": (True, ""),
    "map value (.data, .rodata, .bss)": (True, ""),
    "function, static or global": (True, ""),
    "callback (address of a function)": (True, ""),
    "__kconfig variable": (True, "a kernel's configuration: the running one's, or --kconfig FILE"),
    "LINUX_KERNEL_VERSION": (True, ""),
    "weak __ksym that is absent": (True, "reads as 0"),
    "__ksym of the kernel": (False, "its address means nothing outside the kernel"),
    "kfunc": (False, "see kfuncs; one that is weak reads as 0"),
}


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that a program may use. `note` says what it needs, or why it is not supported."""

    name: str
    supported: bool
    note: str = ""


def helper_items() -> Iterator[Item]:
    """Every helper that an XDP program may call, by number."""
    known = {helper.name: helper for helper in helpers().values()}
    for name in HELPER_NAMES:
        if name in known:
            helper = known[name]
            license_ = "a GPL-compatible license" if helper.gpl else ""
            yield Item(name, True, ", ".join(filter(None, (helper.needs, license_))))
        elif name in XDP_HELPERS:
            yield Item(name, False, _WHY_NOT_HELPER.get(name, NOT_YET))


def map_items() -> Iterator[Item]:
    """Every map type of the kernel, by number."""
    known = map_types()
    for number in MapNumber:
        supported = number in known
        note = "" if supported else _WHY_NOT_MAP.get(number, NOT_YET)
        yield Item(number.name.lower(), supported, note)


def kfunc_items() -> Iterator[Item]:
    """Every kfunc that XDP programs are known to call."""
    return (Item(name, False, why) for name, why in _KFUNCS.items())


def relocation_items() -> Iterator[Item]:
    """Every kind of relocation."""
    for name, (supported, note) in _RELOCATIONS.items():
        yield Item(name, supported, note)
    for kind in Relo:
        own = kind is Relo.TYPE_ID_LOCAL
        note = "" if own else "types: the running kernel's, or --btf FILE, or the program's own"
        yield Item(f"CO-RE {kind.name.lower()}", True, note)


def everything() -> dict[str, list[Item]]:
    """All items by kind."""
    return {
        "helpers": list(helper_items()),
        "map types": list(map_items()),
        "kfuncs": list(kfunc_items()),
        "relocations": list(relocation_items()),
    }


def as_object() -> dict[str, list[dict[str, object]]]:
    """For JSON."""
    return {
        kind.replace(" ", "_"): [asdict(item) for item in items]
        for kind, items in everything().items()
    }


def document() -> str:
    """docs/compatibility.md."""
    lines = [
        "# What programs may use",
        "",
        "Made by `make docs` from the registries; `xdpbatch features` shows the same. It lists all",
        "that Linux 6.18 gives XDP programs, and says what a thing needs, or why it is not here.",
    ]
    for kind, items in everything().items():
        count = sum(item.supported for item in items)
        lines += ["", f"## {kind.capitalize()}: {count} of {len(items)}", ""]
        lines += ["| name | supported | needs, or why not |", "|---|---|---|"]
        lines += [f"| {i.name} | {'yes' if i.supported else 'no'} | {i.note} |" for i in items]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
