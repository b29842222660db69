"""Run unmodified XDP programs over batches of packets, as native code, in user space.

`load` is the way in (see `xdpbatch.api`). Names are imported when they are first used, so that
`import xdpbatch` and `xdpbatch --help` cost nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Collection": "api",
    "Loaded": "api",
    "Results": "api",
    "Runnable": "api",
    "load": "api",
    "Map": "maps",
    "Action": "uapi",
    "CaptureError": "errors",
    "MapError": "errors",
    "ObjectError": "errors",
    "UnsupportedError": "errors",
    "VerifierError": "errors",
    "XdpBatchError": "errors",
}

__version__ = "0.1.0"
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
