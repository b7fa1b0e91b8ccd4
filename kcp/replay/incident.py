"""An incident: a log with its decisions, opened for replay. A file made by `kcp export`, or a daemon's own log."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, overload

from kcp.controllers.sources import Controller
from kcp.replay.cursor import Log
from kcp.store.log import DECISIONS_PER_LIFE
from kcp.store.protocol import Decision, Event, Input, Key, Record
from kcp.store.reader import LogReader
from kcp.store.source import plain_json

Json = dict[str, Any]
IDS_PER_RUN = DECISIONS_PER_LIFE
"""Decision ids are the store's epoch times this, plus a counter."""


class Reader(Protocol):
    """A log to read from: a LogReader over a file, or the recording of a simulation in memory."""

    def base(self) -> Iterable[Record]: ...

    def events(self, after: int | None = None, until: int | None = None) -> Iterator[Event]: ...

    def decisions(self) -> Iterator[tuple[int, Decision]]: ...

    def inputs(self) -> Iterator[tuple[int, int, Input]]: ...

    def get_at(self, key: Key, rv: int) -> Record | None: ...

    def close(self) -> None: ...


class Held:
    """A Reader that keeps everything in memory, with the face of a LogReader."""

    anchored = False

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._base = list(reader.base())
        self._decisions = sorted((decision for _, decision in reader.decisions()), key=lambda d: d.id)
        self.base_rv = 0
        self.last_rv = max((event.rv for event in reader.events()), default=0)
        self.base, self.events, self.inputs = reader.base, reader.events, reader.inputs
        self.get_at, self.close = reader.get_at, reader.close

    def list_at(self, resource: str, rv: int) -> list[Record]:
        """The base is all that it is asked for."""
        del rv
        return [record for record in self._base if record.key.resource == resource]

    def positions(self) -> list[tuple[int, str, Json]]:
        return [(decision.id, decision.controller, decision.frontier) for decision in self._decisions]

    def decisions_between(self, first_id: int, last_id: int, controller: str = "") -> list[Decision]:
        return [
            d for d in self._decisions if first_id <= d.id <= last_id and controller in ("", d.controller)
        ]


PAGE_DECISIONS = 256


class Positions:
    """The decisions of one controller: their ids, and how their frontiers follow from each other.

    A row carries what changed since the row written before it in its run (`#` counts them); one with `*` has it all.
    """

    def __init__(self) -> None:
        self.ids: list[int] = []
        self._frontiers: list[bytes | Json] = []
        self._order: list[int] = []
        """Indexes into `ids` in the order in which the rows were written, run by run."""
        self._whole: list[int] = []
        """For each place in that order the nearest place before it with a whole frontier; -1: the file has none."""
        self._place: dict[int, int] = {}
        self._last: tuple[int, dict[str, int]] = (-2, {})

    def add(self, number: int, frontier: Any) -> None:
        self.ids.append(number)
        self._frontiers.append(frontier)

    @property
    def placed(self) -> list[int]:
        """Ids of those whose frontier the file tells, ascending."""
        self._arrange()
        return [number for index, number in enumerate(self.ids) if self._whole[self._place[index]] >= 0]

    @property
    def skipped(self) -> int:
        self._arrange()
        return sum(1 for place in self._whole if place < 0)

    def frontier(self, number: int) -> dict[str, int]:
        """Raises KeyError when the file does not tell it."""
        self._arrange()
        index = bisect_left(self.ids, number)
        if index == len(self.ids) or self.ids[index] != number or self._whole[self._place[index]] < 0:
            raise KeyError(number)
        place = self._place[index]
        start, current = self._last
        if not self._whole[place] <= start <= place:
            start, current = self._whole[place] - 1, {}
        for at in range(start + 1, place + 1):
            changes = self._row(self._order[at])
            whole = "*" in changes
            changes = {name: rv for name, rv in changes.items() if name not in ("#", "*")}
            current = changes if whole else {**current, **changes}
        self._last = place, current
        return current

    def _row(self, index: int) -> dict[str, int]:
        return _json(self._frontiers[index])

    def _arrange(self) -> None:
        if self._order or not self.ids:
            return
        rows = [self._row(index) for index in range(len(self.ids))]
        runs = [(number // IDS_PER_RUN, row.get("#", 0)) for number, row in zip(self.ids, rows, strict=True)]
        self._order = sorted(range(len(rows)), key=runs.__getitem__)
        whole, run = -1, -1
        for place, index in enumerate(self._order):
            if runs[index][0] != run:
                whole, run = -1, runs[index][0]
            if "*" in rows[index]:
                whole = place
            self._whole.append(whole)
            self._place[index] = place


def _json(value: Any) -> dict[str, int]:
    found: dict[str, int] = plain_json(value) if isinstance(value, (str, bytes)) else value
    return found


class PlacedDecisions(Sequence[tuple[Decision, dict[str, int]]]):
    """What `Incident.decisions_of` gives; a page at a time is in memory."""

    def __init__(self, incident: Incident, controller: str) -> None:
        self._reader = incident.reader
        self._controller = controller
        self._positions = incident.positions[controller]
        self._ids = self._positions.placed
        self._page: list[Decision] = []
        self._page_number = -1

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> tuple[Decision, dict[str, int]]: ...

    @overload
    def __getitem__(self, index: slice) -> list[tuple[Decision, dict[str, int]]]: ...

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        number, at = divmod(index, PAGE_DECISIONS)
        if number != self._page_number:
            self._page, self._page_number = self._read(number), number
        decision = self._page[at]
        return decision, self._positions.frontier(decision.id)

    def _read(self, number: int) -> list[Decision]:
        ids = self._ids[number * PAGE_DECISIONS : (number + 1) * PAGE_DECISIONS]
        wanted = frozenset(ids)
        found = self._reader.decisions_between(ids[0], ids[-1], self._controller)
        return [decision for decision in found if decision.id in wanted]


class Incident:
    """`log` has every event; `skipped` counts decisions whose frontier the file does not tell.

    Opening reads next to nothing. `place` is where the log lies, "" for one in memory.
    """

    def __init__(self, reader: Reader, place: str = "") -> None:
        self.reader: LogReader | Held = reader if isinstance(reader, LogReader) else Held(reader)
        self.place = place
        self.log = Log(self.reader)
        self._starts: dict[int, Json] = {}
        for _, _, given in (
            self.reader.inputs("start") if isinstance(self.reader, LogReader) else reader.inputs()
        ):
            if given.kind == "start":
                self._starts.setdefault(given.payload["epoch"], {}).update(given.payload)
        self._index: dict[str, Positions] | None = None
        self._page: tuple[int, dict[int, Decision]] = (-1, {})

    @classmethod
    def open(cls, path: str | Path) -> Incident:
        """Raises StoreError when there is no log there."""
        return cls(LogReader(path), str(path))

    @property
    def positions(self) -> Mapping[str, Positions]:
        """Where the decisions of each controller are; read at the first question."""
        if self._index is None:
            self._index = {}
            for number, controller, frontier in self.reader.positions():
                self._index.setdefault(controller, Positions()).add(number, frontier)
        return self._index

    @property
    def skipped(self) -> int:
        return sum(positions.skipped for positions in self.positions.values())

    @property
    def controllers(self) -> list[str]:
        return sorted(self.positions)

    def named(self, names: Iterable[str]) -> list[str]:
        """The full names of controllers of this log, which may be said without `-controller`. Raises ValueError."""
        found: list[str] = []
        unknown: list[str] = []
        for name in names:
            full = next((each for each in (name, f"{name}-controller") if each in self.positions), None)
            (unknown if full is None else found).append(name if full is None else full)
        if unknown:
            has = (
                f"it has those of {', '.join(self.controllers)}" if self.controllers else "it has none at all"
            )
            raise ValueError(f"the log has no decisions of {', '.join(unknown)}; {has}")
        return found

    def count(self, controller: str) -> int:
        return len(self.positions[controller].ids) if controller in self.positions else 0

    def ids(self, only: Collection[str] = ()) -> list[int]:
        """Ids of all decisions that can be placed, of all or of some controllers, in the order in which they began."""
        chosen = [p for name, p in self.positions.items() if not only or name in only]
        return sorted(number for positions in chosen for number in positions.placed)

    def decision(self, number: int) -> tuple[Decision, dict[str, int]]:
        """A decision and its whole frontier. Raises KeyError when there is none, or its frontier is not told."""
        page = number // PAGE_DECISIONS
        if page != self._page[0]:
            first = page * PAGE_DECISIONS
            found = self.reader.decisions_between(first, first + PAGE_DECISIONS - 1)
            self._page = page, {decision.id: decision for decision in found}
        decision = self._page[1][number]
        return decision, self.positions[decision.controller].frontier(number)

    @property
    def resources(self) -> list[Json]:
        """The served resources as the recording process knew them; the newest start counts."""
        known = [epoch for epoch, start in self._starts.items() if "resources" in start]
        found: list[Json] = self._starts[max(known)]["resources"] if known else []
        return found

    def settings_of(self, decision: Decision, controller: Controller) -> dict[str, Any]:
        """The settings the planner had: those recorded at the start of its process."""
        start = self._starts.get(decision.id // IDS_PER_RUN, {})
        settings = {**controller.settings, **start.get("settings", {}).get(controller.name, {})}
        if "resources" in settings:
            settings["resources"] = start.get("resources", [])
        return settings

    def scheduler_of(self, decision: Decision) -> Json | None:
        """What the scheduler's process was configured with: {"configuration": …, "base": …}; None: with nothing."""
        return self._starts.get(decision.id // IDS_PER_RUN, {}).get("scheduler")

    def decisions_of(self, controller: str) -> Sequence[tuple[Decision, dict[str, int]]]:
        """Decisions with their whole frontiers, in the order in which they began; read as they are looked at."""
        if controller not in self.positions:
            return ()
        return PlacedDecisions(self, controller)

    def close(self) -> None:
        self.reader.close()

    def __enter__(self) -> Incident:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
