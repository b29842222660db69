"""Contents of maps as JSON: read before a run, written after it, in bpftool's shape.

Analogous to `bpftool -j map dump`. A file holds a list of entries, each with `key` and `value` (or
`values`: `cpu` and `value`), as lists of byte texts or as BTF describes them; what `dump` writes,
`fill` takes. A short form is one object, keys to values.

    [{"key": {"saddr": "10.0.0.1"}, "value": 1}, {"key": ["0x0a", "0x00"], "value": ["0x01"]}]
    {"10.0.0.1": 1}

A file of several maps is an object of these by name of map.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from xdpbatch.btf import Btf
from xdpbatch.btf_json import formatter
from xdpbatch.errors import Diagnostic, MapError, XdpBatchError
from xdpbatch.map_view import MapView
from xdpbatch.maps import CPUS

Json = Any
_HEX = [f"0x{byte:02x}" for byte in range(256)]


def read(path: str) -> Json:
    """The JSON of a file, `-` for stdin."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text()
        return json.loads(text)
    except (OSError, UnicodeError) as error:
        raise XdpBatchError.of("unreadable", f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise XdpBatchError.of("bad-json", f"{path} is not JSON: {error}") from None


def write(contents: Json, path: str) -> None:
    """Write JSON to a file, `-` for stdout."""
    text = json.dumps(contents) + "\n"
    try:
        if path == "-":
            sys.stdout.write(text)
        else:
            Path(path).write_text(text)
    except OSError as error:
        raise XdpBatchError.of("unwritable", f"{path}: {error.strerror}") from None


def assignments(texts: Iterable[str]) -> list[tuple[str, str]]:
    """NAME and FILE of each NAME=FILE; of a FILE that holds several maps, the name is ""."""
    pairs = [text.partition("=") if "=" in text else ("", "=", text) for text in texts]
    if not all(path for _, _, path in pairs):
        raise XdpBatchError.of("usage", "--map names no file", suggestion="--map NAME=FILE.json")
    return [(name, path) for name, _, path in pairs]


def by_name(contents: Json, where: str) -> list[tuple[str, Json]]:
    """The contents of several maps, as `--dump-maps` writes them."""
    if not isinstance(contents, dict):
        raise _bad("without a map's name, it must be an object by name of map", where)
    return list(contents.items())


def fill(view: MapView, contents: Json, where: str = "") -> None:
    """Enter all that a file holds into a map. Raises MapError with the entry that does not fit."""
    if isinstance(contents, dict) and contents.keys() == {"error"}:
        return  # it could not be dumped
    for i, (key, value) in enumerate(_entries(contents, where)):
        try:
            view.map.put(view.key(key) if view.spec.key_size else b"", view.value(value))
        except MapError as error:
            first = error.diagnostics[0]
            raise MapError(
                error.errno,
                Diagnostic(
                    "bad-map-file", f"entry {i}: {first.message}", where, reason=first.reason
                ),
            ) from None


def fill_all(
    views: Mapping[str, MapView], fills: Iterable[tuple[str, str]], owner: str
) -> set[str]:
    """Enter the contents of files (map's name, or "" for several, and path); the maps' names."""
    filled: set[str] = set()
    for name, path in fills:
        contents = read(path)
        for each, entries in by_name(contents, path) if not name else [(name, contents)]:
            if each not in views:
                raise XdpBatchError.of(
                    "no-such-map",
                    f"{owner} has no map {each}",
                    where=path,
                    suggestion="it has " + (", ".join(views) or "none"),
                )
            fill(views[each], entries, path)
            filled.add(each)
    return filled


def dump(view: MapView, btf: Btf | None) -> Json:
    """All entries of a map; {"error": …} where the kernel could not list them either."""
    try:
        keys = list(view.map)
    except MapError as error:
        return {"error": os.strerror(error.errno)}
    writer = _Writer(view, btf)
    return [writer.entry(key) for key in keys]


def dump_all(views: Mapping[str, MapView], btf: Btf | None) -> dict[str, Json]:
    """The contents of all maps that can change, by name."""
    return {name: dump(view, btf) for name, view in views.items() if not view.spec.frozen}


def _entries(contents: Json, where: str) -> Iterator[tuple[Any, Any]]:
    if isinstance(contents, Mapping):
        yield from contents.items()
        return
    if not isinstance(contents, list):
        raise _bad("it is not a list of entries", where)
    for i, entry in enumerate(contents):
        if not isinstance(entry, dict) or not entry.keys() & {"value", "values"}:
            raise _bad(f"entry {i} is not an object with key and value", where)
        yield entry.get("key"), _each_cpu(entry, i, where) if "values" in entry else entry["value"]


def _each_cpu(entry: dict[str, Any], i: int, where: str) -> list[Any]:
    """The values by CPU; of CPUs that this runtime does not have, none may be given."""
    try:
        values = {int(one["cpu"]): one["value"] for one in entry["values"]}
    except (TypeError, KeyError, ValueError):
        raise _bad(f"values of entry {i} are not objects with cpu and value", where) from None
    if sorted(values) != list(range(CPUS)):
        raise _bad(f"entry {i} has not one value for each of {CPUS} CPUs", where)
    return [values[cpu] for cpu in range(CPUS)]


def _bad(what: str, where: str) -> XdpBatchError:
    return XdpBatchError.of(
        "bad-map-file",
        f"not the contents of a map: {what}",
        where=where,
        suggestion='[{"key": …, "value": …}], as `bpftool -j map dump` writes it',
    )


class _Writer:
    """Writes entries of one map. Most values of a large array are the same: each is made once."""

    def __init__(self, view: MapView, btf: Btf | None) -> None:
        spec = view.spec
        self._view = view
        self._typed = bool(btf and spec.key_type and spec.value_type)
        if btf and self._typed:
            self._key, self._value = formatter(btf, spec.key_type), formatter(btf, spec.value_type)
        self._made: dict[bytes, tuple[Json, Json]] = {}

    def entry(self, key: bytes) -> Json:
        """One entry; an `error` where there is no value."""
        entry: dict[str, Any] = {"key": _bytes(key)}
        try:
            raw = self._view.map[key]
        except (KeyError, MapError) as error:
            number = error.errno if isinstance(error, MapError) else errno.ENOENT
            return {**entry, "value": {"error": os.strerror(number)}}
        if raw not in self._made:
            self._made[raw] = self._values(raw)
        name = "values" if self._view.map.kind.per_cpu else "value"
        entry[name], nice = self._made[raw]
        return {**entry, "formatted": {"key": self._key(key), name: nice}} if self._typed else entry

    def _values(self, raw: bytes) -> tuple[Json, Json]:
        """In bytes, and as the type describes it."""
        if not self._view.map.kind.per_cpu:
            return _bytes(raw), self._value(raw) if self._typed else None
        copies = list(enumerate(self._view.copies(raw)))
        plain = [{"cpu": cpu, "value": _bytes(one)} for cpu, one in copies]
        nice = [{"cpu": cpu, "value": self._value(one)} for cpu, one in copies if self._typed]
        return plain, nice


def _bytes(data: bytes) -> list[str]:
    return [_HEX[byte] for byte in data]
