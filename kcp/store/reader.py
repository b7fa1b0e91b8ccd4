"""Reading a log from the side, in order: the base state, events, decisions, inputs. For replay and tools.

Works on an incident file and on the log of a running or stopped daemon (then the base is empty and comes before
revision 1). Synchronous, read-only, one snapshot for its whole life.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from kcp.store.protocol import Decision, Event, Input, Key, KindRow, Record
from kcp.store.source import open_source, plain_json

PAGE_EVENTS = 2000


class LogReader:
    """`base_rv` is the revision of the base state, `last_rv` the newest one; `about` tells where the file comes from."""

    anchored = True
    """`list_at` answers for any revision of the file."""

    def __init__(self, url_or_path: str | Path) -> None:
        self._source = open_source(url_or_path)
        self.about = self._source.about()
        self.last_rv, self.cluster_uid = self._source.head()
        self.base_rv = int(self.about.get("base_rv", "0"))
        self._kinds = dict(self._source.kinds())
        self._resources = {number: row.resource for number, row in self._kinds.items()}
        self._numbers = {resource: number for number, resource in self._resources.items()}

    @property
    def kinds(self) -> list[KindRow]:
        return list(self._kinds.values())

    def base(self) -> list[Record]:
        """The live objects before the first event."""
        return [record for row in self.kinds for record in self.list_at(row.resource, self.base_rv)]

    def list_at(self, resource: str, rv: int, namespace: str | None = None) -> list[Record]:
        kind = self._numbers.get(resource)
        return [] if kind is None else self._source.list_at(kind, resource, rv, namespace)

    def get_at(self, key: Key, rv: int) -> Record | None:
        kind = self._numbers.get(key.resource)
        if kind is None:
            return None
        return self._source.get_at(kind, key.resource, key.namespace, key.name, rv)

    def events(
        self, after: int | None = None, until: int | None = None, resources: Sequence[str] | None = None
    ) -> Iterator[Event]:
        """Events with after < revision <= until, in order; by default all after the base."""
        position = self.base_rv if after is None else after
        last = self.last_rv if until is None else until
        kinds = None
        if resources is not None:
            kinds = [self._numbers[resource] for resource in resources if resource in self._numbers]
        while position < last:
            page = self._source.events_since(self._resources, position, last, kinds, PAGE_EVENTS)
            yield from page
            if len(page) < PAGE_EVENTS:
                return
            position = page[-1].rv

    def positions(self) -> Iterator[tuple[int, str, str | bytes]]:
        """(id, controller, frontier as JSON text) of every decision, in the order in which they were taken."""
        yield from self._source.fetch(
            "SELECT decision_id, controller, frontier FROM decisions ORDER BY decision_id"
        )

    def decisions(self) -> Iterator[tuple[int, Decision]]:
        """(revision after which it was recorded, decision), in the order in which they were taken."""
        return self._decisions("")

    def decisions_between(self, first_id: int, last_id: int, controller: str = "") -> list[Decision]:
        """Decisions by id, both ends included, of all controllers or of one."""
        condition = f"WHERE decision_id BETWEEN {first_id:d} AND {last_id:d}"
        found = (decision for _, decision in self._decisions(condition))
        return [decision for decision in found if controller in ("", decision.controller)]

    def _decisions(self, condition: str) -> Iterator[tuple[int, Decision]]:
        found = self._source.fetch(
            'SELECT rv_after, decision_id, controller, epoch, "key", "trigger", frontier, now_us, duration_us, effects,'
            f" memo, code_hash, config_hash, first_rv, last_rv FROM decisions {condition} ORDER BY decision_id"
        )
        for (
            rv, number, controller, epoch, key, trigger, frontier, now_us, duration_us, effects, memo, code, config,
            first_rv, last_rv,
        ) in found:  # fmt: skip
            yield rv, Decision(
                number, controller, key, trigger, plain_json(frontier), now_us, plain_json(effects),
                plain_json(memo), code, config, epoch, first_rv, last_rv, duration_us,
            )  # fmt: skip

    def inputs(self, kind: str = "") -> Iterator[tuple[int, int, Input]]:
        """(revision after which it arrived, number among those, input); of one kind (a plain word) or of all."""
        condition = f"WHERE kind = '{kind}'" if kind.isidentifier() else ""
        for rv, seq, name, payload in self._source.fetch(
            f"SELECT rv_after, seq, kind, payload FROM inputs {condition} ORDER BY rv_after, seq"
        ):
            yield rv, seq, Input(name, plain_json(payload))

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> LogReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
