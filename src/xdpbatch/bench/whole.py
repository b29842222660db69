"""The whole poll: receive, run, split, act, flush, and the other end's counting.

Analogous to what a driver's NAPI poll costs per packet. Synthetic packets are drawn anew for each
poll, from a sequence of 2**20; a capture is read from its start in every turn.
"""

from __future__ import annotations

from xdpbatch.bench.method import Sample, enough, timed
from xdpbatch.bench.subject import Subject
from xdpbatch.session import Session

TARGETS = range(2, 10)  # loop ports that redirects may go to


class Whole:
    """The program at an address behind a Session: `single` for one by one."""

    def __init__(
        self,
        subject: Subject,
        prog: int,
        batch_size: int = 64,
        *,
        single: bool = False,
        owner: object = None,
    ) -> None:
        self._subject, self._prog, self._single, self._owner = subject, prog, single, owner
        self._batch_size = batch_size
        self._session = self._open()
        self._count = 0
        if subject.read is None:
            self._count = 1024 * enough(lambda n: self._run(1024 * n))

    def turn(self) -> Sample:
        """Some milliseconds, or a whole capture."""
        if self._subject.read is None:
            return timed(lambda: self._run(self._count))
        self._session.source.close()
        self._session = self._open()
        return timed(lambda: self._run(None))

    def _run(self, count: int | None) -> int:
        return self._session.driver.run(self._prog, count, self._single)

    def _open(self) -> Session:
        return Session(
            self._subject.port(),
            batch_size=self._batch_size,
            targets=TARGETS,
        )
