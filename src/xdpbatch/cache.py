"""The disk cache: what was compiled once, found again by what it was made of.

Analogous to ccache. An entry is a file named by the SHA-256 of everything that went into it
(sources, versions, CPU features), so an entry can be missing but never out of date. Each file
starts with a digest of its contents: one that is cut short or damaged is a miss, not a crash.
Kept in $XDPBATCH_CACHE, else $XDG_CACHE_HOME/xdpbatch, else ~/.cache/xdpbatch. Machine code and
verdicts are read from there, so only a directory of this user that nobody else can write is used;
without one there is no cache, which costs time and nothing else. The digest is no signature: who
can write the directory can run code as its owner anyway, by way of the machine code.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from functools import cache
from pathlib import Path

_DIGEST = hashlib.sha256().digest_size
_LIMIT = 4096  # entries of one kind; the oldest half goes when there are more


def key_of(*parts: object) -> str:
    """The name of what is made of `parts`; they must have a stable repr."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def get(kind: str, key: str) -> bytes | None:
    """The contents of an entry, or None."""
    folder = directory()
    if folder is None:
        return None
    try:
        raw = (folder / f"{key}.{kind}").read_bytes()
    except OSError:
        return None
    digest, contents = raw[:_DIGEST], raw[_DIGEST:]
    return contents if hashlib.sha256(contents).digest() == digest else None


def put(kind: str, key: str, contents: bytes) -> None:
    """Store an entry, all of it or nothing; a failure to write is not an error."""
    folder = directory()
    if folder is None:
        return
    with contextlib.suppress(OSError):
        handle, name = tempfile.mkstemp(dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(contents).digest() + contents)
            os.replace(name, folder / f"{key}.{kind}")
        except OSError:
            os.unlink(name)
            raise
        if key.startswith("0"):  # now and then is enough
            _prune(folder, kind)


def directory() -> Path | None:
    """Where entries are, or None if no safe and writable place can be had."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    named = os.environ.get("XDPBATCH_CACHE") or f"{base}/xdpbatch"
    return _usable(Path(named).expanduser())


@cache
def _usable(folder: Path) -> Path | None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError:
        return None
    ours = found.st_uid == os.geteuid() and not found.st_mode & 0o022
    return folder if ours and os.access(folder, os.W_OK) else None


def _prune(folder: Path, kind: str) -> None:
    entries = list(folder.glob(f"*.{kind}"))
    if len(entries) > _LIMIT:
        entries.sort(key=lambda entry: entry.stat().st_mtime)
        for entry in entries[: _LIMIT // 2]:
            entry.unlink(missing_ok=True)
