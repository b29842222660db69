"""A source of bytes: a file, standard input or a file object, gzip-compressed or not."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from typing import BinaryIO, cast

from xdpbatch.errors import CaptureError

_GZIP = b"\x1f\x8b"
_HEAD = 8192  # bytes that telling gzip apart may have read


class Source:
    """Bytes in order. `name` is what errors call it."""

    def __init__(self, origin: str | BinaryIO) -> None:
        """`origin`: a path, `-` for standard input, or a binary file object, which stays open.

        Raises CaptureError if the file cannot be opened or read.
        """
        self.name = origin if isinstance(origin, str) else getattr(origin, "name", "stream")
        self.name = "standard input" if origin == "-" else str(self.name)
        self._owned = isinstance(origin, str) and origin != "-"
        try:
            self._raw = _open(origin)
            self._buffered = io.BufferedReader(cast(io.RawIOBase, self._raw))
            is_gzip = self._buffered.peek(2)[:2] == _GZIP
            self._head = b"" if is_gzip else self._buffered.read1(_HEAD)
        except OSError as error:
            raise self._unreadable(error) from None
        self._gzip = gzip.GzipFile(fileobj=self._buffered) if is_gzip else None

    def read_into(self, memory: memoryview) -> int:
        """What is there now, at least one byte, or 0 at the end. Raises CaptureError."""
        if self._head:
            n = min(len(self._head), len(memory))
            memory[:n] = self._head[:n]
            self._head = self._head[n:]
            return n
        try:
            # Not through the BufferedReader: it would wait for a full buffer.
            return self._gzip.readinto1(memory) if self._gzip else _read(self._raw, memory)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise CaptureError.of(
                "capture-damaged",
                f"the gzip stream is damaged: {str(error).rstrip('.')}",
                where=self.name,
                suggestion="`gzip -t` tells where; fetch the file again",
            ) from None
        except OSError as error:
            raise self._unreadable(error) from None

    def close(self) -> None:
        """Close what was opened here."""
        self._buffered.detach()
        if self._owned:
            self._raw.close()

    def _unreadable(self, error: OSError) -> CaptureError:
        return CaptureError.of(
            "capture-unreadable",
            f"the capture cannot be read: {error.strerror or error}",
            where=self.name,
        )


def _open(origin: str | BinaryIO) -> BinaryIO:
    """Unbuffered, so that a slow stream is handed on as it comes."""
    if not isinstance(origin, str):
        return origin
    if origin == "-":
        return cast(BinaryIO, getattr(sys.stdin.buffer, "raw", sys.stdin.buffer))
    return open(origin, "rb", buffering=0)


def _read(raw: BinaryIO, memory: memoryview) -> int:
    return cast(io.RawIOBase, raw).readinto(memory) or 0
