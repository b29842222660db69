"""The kernel that an object is made to fit: its types (BTF) and its configuration.

Analogous to what libbpf consults before it loads an object: /sys/kernel/btf/vmlinux for CO-RE
relocations, /boot/config-RELEASE or /proc/config.gz for `__kconfig` variables. Both are read only
if an object asks, and once.
"""

from __future__ import annotations

import gzip
import platform
import zlib
from functools import cache, cached_property
from pathlib import Path

from xdpbatch.btf import MAGIC, Btf
from xdpbatch.elf_file import ElfFile
from xdpbatch.errors import ObjectError, UnsupportedError

VMLINUX = Path("/sys/kernel/btf/vmlinux")
OWN = "own"  # instead of a path: the types of the program itself
MAX_FILE = 1 << 30  # bytes; a vmlinux with all its debugging information has half of that


class Target:
    """`btf`: a file with types (raw BTF, or an ELF file that has a .BTF section), OWN, or "" for
    the running kernel's if they can be read, else OWN. `config`: a kernel's configuration, gzipped
    or not, or "" for the running kernel's.
    """

    def __init__(self, btf: str = "", config: str = "") -> None:
        self._btf, self._config = btf, config

    @property
    def types(self) -> Btf | None:
        """The types to relocate against; None are the program's own."""
        return self._types[0]

    @property
    def types_from(self) -> str:
        """Whose types these are, in words."""
        return self._types[1]

    @cached_property
    def options(self) -> dict[str, str]:
        """The configuration: CONFIG_NAME to y, m, n, a number or a "string"."""
        return dict(line.split("=", 1) for line in self._lines() if line.startswith("CONFIG_"))

    @property
    def config_from(self) -> str:
        """The file that the configuration is in; "" if there is none."""
        return next((str(path) for path in self._config_files if path.exists()), "")

    @cached_property
    def _types(self) -> tuple[Btf | None, str]:
        if self._btf == OWN:
            return None, "the program's own"
        if self._btf:
            return _read_types(Path(self._btf)), self._btf
        try:
            return _running_types(), f"the running kernel's ({platform.release()})"
        except ObjectError:
            return None, "the program's own (the running kernel's cannot be read)"

    @property
    def _config_files(self) -> list[Path]:
        if self._config:
            return [Path(self._config)]
        return [Path(f"/boot/config-{platform.release()}"), Path("/proc/config.gz")]

    def _lines(self) -> list[str]:
        path = self.config_from or str(self._config_files[0])
        try:
            data = Path(path).read_bytes()
            text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        except (OSError, EOFError, zlib.error) as error:
            raise UnsupportedError.of(
                "no-kernel-config",
                f"a kernel's configuration cannot be read: {error}",
                reason="the program has __kconfig variables",
                suggestion="--kconfig FILE, with the file of the kernel that it is meant for",
            ) from None
        return [line for line in text.decode("utf-8", "replace").splitlines() if "=" in line]


@cache
def _running_types() -> Btf:
    return _read_types(VMLINUX)


def _read_types(path: Path) -> Btf:
    """Raises ObjectError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE)
    except (OSError, ValueError) as error:
        raise ObjectError.of("unreadable-file", f"cannot read the types: {error}") from None
    if data[:2] == MAGIC.to_bytes(2, "little"):
        return Btf(data)
    section = ElfFile(data, bpf=False).find(".BTF")
    if section is None:
        raise ObjectError.of(
            "no-btf",
            f"{path} has no .BTF section",
            suggestion=f"--btf {VMLINUX}, or a file that `bpftool btf dump` accepts",
        )
    return Btf(section.data)
