"""An incident: a log with its decisions, opened for replay. A file made by `kcp export`, or a daemon's own log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from kcp.controllers.sources import Controller
from kcp.replay.cursor import Log
from kcp.store.protocol import Decision, Event, Input, Key, Record
from kcp.store.reader import LogReader

Json = dict[str, Any]
IDS_PER_RUN = 10**12
"""Decision ids are the store's epoch times this, plus a counter."""


class Reader(Protocol):
    """A log to read from: a LogReader over a file, or the recording of a simulation in memory."""

    def base(self) -> Iterable[Record]: ...

    def events(self, after: int | None = None, until: int | None = None) -> Iterator[Event]: ...

    def decisions(self) -> Iterator[tuple[int, Decision]]: ...

    def inputs(self) -> Iterator[tuple[int, int, Input]]: ...

    def get_at(self, key: Key, rv: int) -> Record | None: ...

    def close(self) -> None: ...


class Incident:
    """`log` holds every event; `skipped` counts decisions whose frontier the file does not tell."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.log = Log(reader.base(), reader.events())
        self.skipped = 0
        self._starts: dict[int, Json] = {}
        for _, _, given in reader.inputs():
            if given.kind == "start":
                self._starts[given.payload["epoch"]] = given.payload
        self._rows: dict[str, list[Decision]] = {}
        for _, decision in reader.decisions():
            self._rows.setdefault(decision.controller, []).append(decision)

    @classmethod
    def open(cls, path: str | Path) -> Incident:
        """Raises StoreError when there is no log there."""
        return cls(LogReader(path))

    @property
    def controllers(self) -> list[str]:
        return sorted(self._rows)

    def count(self, controller: str) -> int:
        return len(self._rows.get(controller, ()))

    @property
    def resources(self) -> list[Json]:
        """The served resources as the recording process knew them; the newest start counts."""
        return self._starts[max(self._starts)]["resources"] if self._starts else []

    def settings_of(self, decision: Decision, controller: Controller) -> dict[str, Any]:
        """The settings the planner had: those recorded at the start of its process."""
        start = self._starts.get(decision.id // IDS_PER_RUN, {})
        settings = {**controller.settings, **start.get("settings", {}).get(controller.name, {})}
        if "resources" in settings:
            settings["resources"] = start.get("resources", [])
        return settings

    def decisions_of(self, controller: str) -> list[tuple[Decision, dict[str, int]]]:
        """Decisions with their whole frontiers, in the order in which they began."""
        runs: dict[int, list[Decision]] = {}
        for decision in self._rows.get(controller, ()):
            runs.setdefault(decision.id // IDS_PER_RUN, []).append(decision)
        found: list[tuple[Decision, dict[str, int]]] = []
        for _, rows in sorted(runs.items()):
            found += self._with_frontiers(rows)
        return found

    def _with_frontiers(self, rows: list[Decision]) -> list[tuple[Decision, dict[str, int]]]:
        """Rows carry what changed since the row written before; a row with `*` has it all."""
        found = []
        current: dict[str, int] | None = None
        for decision in sorted(rows, key=lambda d: d.frontier.get("#", 0)):
            changes = {k: v for k, v in decision.frontier.items() if k not in ("#", "*")}
            if "*" in decision.frontier:
                current = changes
            elif current is not None:
                current = {**current, **changes}
            else:
                self.skipped += 1
                continue
            found.append((decision, current))
        return sorted(found, key=lambda pair: pair[0].id)

    def close(self) -> None:
        self.reader.close()

    def __enter__(self) -> Incident:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
