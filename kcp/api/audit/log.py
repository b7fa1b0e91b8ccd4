"""The audit log's file: one event a line, written by a task of its own, turned over by size.

Requests only put lines into a bounded queue: a disk that is slow or full costs events, which are counted, never a
request. Old files keep the moment of their end in their name, as kube-apiserver's do: `audit-2026-01-31T12-00-00.000.log`.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from pathlib import Path
from typing import BinaryIO

import anyio
import anyio.to_thread
import attrs
import structlog

from kcp.base.clock import Clock
from kcp.base.values import frozen

log = structlog.get_logger(__name__)

STDOUT = "-"
QUEUED_EVENTS = 10_000
"""As many as kube-apiserver buffers."""
QUEUED_BYTES = 64 * 1024 * 1024
MIB = 1024 * 1024


@frozen
class Place:
    """Where the lines go, and how much of them is kept. 0 means without a limit."""

    path: str
    max_bytes: int = 100 * MIB
    max_backups: int = 10


@attrs.define(eq=False)
class AuditLog:
    """Lines on their way to the file. `offer` is for requests; `run` owns the file."""

    place: Place
    clock: Clock
    written: int = 0
    lost: int = 0
    """Events that found no room, or that could not be written."""
    _lines: deque[bytes] = attrs.field(factory=deque)
    _queued_bytes: int = 0
    _some: anyio.Event = attrs.field(factory=anyio.Event)
    _file: BinaryIO | None = None
    _size: int = 0
    _failing: bool = False

    def open(self) -> None:
        """Make the file, or go on with the one that is there. Raises OSError, which names it."""
        if self.place.path == STDOUT:
            self._file = sys.stdout.buffer
            return
        path = Path(self.place.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(descriptor, "ab", buffering=0)
        self._size = os.fstat(descriptor).st_size

    def offer(self, line: bytes) -> bool:
        """Queue one event. False, and it is counted as lost, when there is no room."""
        if len(self._lines) >= QUEUED_EVENTS or self._queued_bytes + len(line) > QUEUED_BYTES:
            self.lost += 1
            return False
        self._lines.append(line)
        self._queued_bytes += len(line)
        self._some.set()
        return True

    async def run(self) -> None:
        """Write what comes until cancelled; then what is left."""
        try:
            while True:
                await self._some.wait()
                with anyio.CancelScope(shield=True):  # what was taken is written, whoever cancels
                    await anyio.to_thread.run_sync(self._write, self._take())
        finally:
            self._write(self._take())
            self._close()

    def _take(self) -> list[bytes]:
        lines, self._lines = list(self._lines), deque()
        self._queued_bytes, self._some = 0, anyio.Event()
        return lines

    def _write(self, lines: list[bytes]) -> None:
        """All lines, a new file wherever the old one is full. What fails is lost; the next lines are tried again."""
        batch: list[bytes] = []
        size = self._size
        for line in lines:
            if self.place.max_bytes and size and size + len(line) > self.place.max_bytes:
                self._put(batch)
                self._turn_over()
                batch, size = [], self._size
            batch.append(line)
            size += len(line)
        self._put(batch)

    def _put(self, batch: list[bytes]) -> None:
        if not batch:
            return
        data = b"".join(batch)
        try:
            if self._file is None:
                self.open()
            self._write_all(data)
        except OSError as error:
            self._fail(len(batch), error)
            return
        self.written += len(batch)
        self._failing = False

    def _write_all(self, data: bytes) -> None:
        assert self._file is not None
        view = memoryview(data)
        while view:
            done = self._file.write(view)
            self._size += done
            view = view[done:]
        self._file.flush()

    def _fail(self, events: int, error: OSError) -> None:
        """Said once until it works again."""
        self.lost += events
        if not self._failing:
            log.error("the audit log cannot be written", path=self.place.path, error=str(error))
        self._failing = True
        self._close()

    def _turn_over(self) -> None:
        if self.place.path == STDOUT:
            self._size = 0
            return
        self._close()
        path = Path(self.place.path)
        try:
            path.rename(self._name_of_old(path))
            for old in self._backups(path)[: -self.place.max_backups] if self.place.max_backups else ():
                old.unlink()
        except OSError as error:
            self._fail(0, error)

    def _name_of_old(self, path: Path) -> Path:
        moment = self.clock.now().strftime("%Y-%m-%dT%H-%M-%S.%f")[:-3]
        return path.with_name(f"{path.stem}-{moment}{path.suffix}")

    def _backups(self, path: Path) -> list[Path]:
        """Files of ours that are full, oldest first."""
        return sorted(path.parent.glob(f"{path.stem}-????-??-??T??-??-??.???{path.suffix}"))

    def _close(self) -> None:
        if self._file is not None and self.place.path != STDOUT:
            self._file.close()
        self._file, self._size = None, 0
