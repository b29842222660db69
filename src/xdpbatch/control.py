"""The maps of a running program, from outside: a socket that `xdpbatch map` asks.

Analogous to bpf(2) on a loaded program's maps. There is one abstract Unix socket per interface, so
that nothing is left of it when the process ends; it is known within the interface's network
namespace. A question and its answer are one JSON object each. Root may ask, and who started the
run. Compiled code pauses while maps are read or written, so that nothing is seen half done.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from xdpbatch import map_file
from xdpbatch.btf import Btf
from xdpbatch.errors import XdpBatchError
from xdpbatch.live import Live
from xdpbatch.map_view import MapView

PATIENCE_S = 10.0
_CHUNK = 1 << 16
Json = Any


class Running(Protocol):
    """The program that runs, which a reload changes."""

    @property
    def views(self) -> Mapping[str, MapView]: ...

    @property
    def btf(self) -> Btf | None: ...


class Control:
    """Answers while entered. An interface whose name is taken by another run is left to that."""

    def __init__(self, live: Live, running: Running) -> None:
        self._live, self._running = live, running
        self._uids = {0, os.getuid()}
        listeners = (_listener(interface.name) for interface in live.interfaces)
        self._sockets = [one for one in listeners if one]
        self._threads = [
            threading.Thread(target=self._serve, args=(one,), daemon=True) for one in self._sockets
        ]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        for one in self._sockets:
            one.shutdown(socket.SHUT_RDWR)  # wakes accept()
            one.close()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _serve(self, listener: socket.socket) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    connection.settimeout(PATIENCE_S)
                    connection.sendall(json.dumps(self._answer(connection)).encode() + b"\n")

    def _answer(self, connection: socket.socket) -> Json:
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        if struct.unpack("=3i", peer)[1] not in self._uids:
            return {"error": "error[denied]: only root and who started the run may ask"}
        try:
            question = json.loads(_line(connection))
            with self._live.paused():
                return {"maps": apply(self._running, question)}
        except XdpBatchError as error:
            return {"error": str(error)}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return {"error": f"error[usage]: not a question: {error}"}


def apply(running: Running, question: Json) -> Json:
    """Enter `fills` (name and contents), remove `removals` (name and keys), then dump if asked."""
    views = running.views
    for name, contents in question["fills"]:
        map_file.fill(_view(views, name), contents, name)
    for name, keys in question["removals"]:
        remove(_view(views, name), keys)
    if not question["dump"]:
        return None
    changing = {name: view for name, view in views.items() if not view.spec.frozen}
    return {name: map_file.dump(view, running.btf) for name, view in changing.items()}


def remove(view: MapView, keys: Sequence[Json]) -> None:
    """Remove elements. Raises XdpBatchError for a key that the map does not have."""
    for key in keys:
        try:
            del view.map[view.key(key)]
        except KeyError:
            raise XdpBatchError.of(
                "no-such-key", f"map {view.spec.name} has no key {json.dumps(key)}"
            ) from None


def ask(
    interface: str,
    fills: Sequence[tuple[str, Json]] = (),
    removals: Sequence[tuple[str, Json]] = (),
    dump: bool = False,
) -> Json:
    """What the run on an interface answers: the maps' contents if asked for. XdpBatchError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(PATIENCE_S)
        try:
            asking.connect(_address(interface))
        except OSError:
            raise XdpBatchError.of(
                "not-running",
                f"no program of xdpbatch runs on {interface}",
                reason="in this network namespace",
                suggestion="xdpbatch run PROG.o -i " + interface,
            ) from None
        question = {"fills": fills, "removals": removals, "dump": dump}
        asking.sendall(json.dumps(question).encode() + b"\n")
        answer = json.loads(_line(asking))
    if "error" in answer:
        raise RefusedError(answer["error"])
    return answer["maps"]


class RefusedError(XdpBatchError):
    """What the running process said, in its own words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def __str__(self) -> str:
        return self.text


def _view(views: Mapping[str, MapView], name: str) -> MapView:
    if name not in views:
        raise XdpBatchError.of(
            "no-such-map",
            f"the program that runs has no map {name}",
            suggestion="it has " + (", ".join(views) or "none"),
        )
    return views[name]


def _address(interface: str) -> bytes:
    return b"\0xdpbatch/" + os.fsencode(interface)


def _listener(interface: str) -> socket.socket | None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(_address(interface))
    except OSError:
        listener.close()
        return None
    listener.listen()
    return listener


def _line(connection: socket.socket) -> bytes:
    """Everything up to a newline."""
    data = bytearray()
    while not data.endswith(b"\n"):
        some = connection.recv(_CHUNK)
        if not some:
            break
        data += some
    return bytes(data)
