"""The machine that figures are from: what somebody must know to doubt or repeat them.

Analogous to the header of `perf report --header`: CPU, mitigations, kernel, compilers, load.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

MITIGATIONS = Path("/sys/devices/system/cpu/vulnerabilities")
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
BUSY = 0.5  # load per CPU from which on it is worth a warning


def describe() -> dict[str, Any]:
    """Everything, as JSON has it."""
    from llvmlite import binding

    return {
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "virtual": "hypervisor" in _flags(),
        "governor": _read(GOVERNOR) or "not shown",
        "mitigations": mitigations(),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "llvm": ".".join(map(str, binding.llvm_version_info)),
        "numba": _version("numba"),
        "xdpbatch": _version("xdpbatch"),
        "load": round(os.getloadavg()[0], 2),
    }


def mitigations() -> dict[str, str]:
    """What the kernel says of each vulnerability that touches indirect branches or calls."""
    wanted = ("spectre_v2", "retbleed", "indirect_target_selection", "spec_store_bypass")
    found = {name: _read(MITIGATIONS / name) for name in wanted}
    return {name: text for name, text in found.items() if text}


def warning() -> str:
    """What speaks against measuring now, or nothing."""
    load = os.getloadavg()[0]
    if load > BUSY * (os.cpu_count() or 1):
        return (
            f"the load average is {load:.1f} on {os.cpu_count()} CPUs: figures will be high and "
            "wide; ratios come from interleaved rounds and are refused where they are lost in noise"
        )
    return ""


def line(machine: dict[str, Any]) -> str:
    """One line for a table's foot."""
    return (
        f"{machine['cpu']}, {machine['cpus']} CPUs{' (virtual)' if machine['virtual'] else ''}, "
        f"Linux {machine['kernel']}, LLVM {machine['llvm']}, Python {machine['python']}, "
        f"spectre_v2: {machine['mitigations'].get('spectre_v2', 'not shown')}, "
        f"load {machine['load']}"
    )


def _cpu() -> str:
    for row in _read(Path("/proc/cpuinfo")).splitlines():
        if row.startswith("model name"):
            return row.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _flags() -> list[str]:
    for row in _read(Path("/proc/cpuinfo")).splitlines():
        if row.startswith("flags"):
            return row.partition(":")[2].split()
    return []


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed as a package"
