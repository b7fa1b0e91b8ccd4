"""Everything that a simulated cluster wrote, as it was written: for digests, invariants and replay.

Has the face of a LogReader over the events of a memory store, so that decisions can be re-made without a file.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterator, Sequence

import attrs
import orjson

from kcp.base.clock import EPOCH_OF_SIMULATION, Clock, microseconds
from kcp.replay.invariants import Invariant, Violation
from kcp.store.memory import MemoryDriver
from kcp.store.protocol import Decision, Event, Input, Key, Op, Record

MAX_VIOLATIONS = 20
_BACKGROUND = frozenset({"leases.coordination.k8s.io", "events", "events.events.k8s.io", "nodes"})
"""Changes of these go on in a cluster at rest: heartbeats, and the record of what was."""


@attrs.define
class Recording:
    """A listener of the store. `see` must be listening before the first write."""

    driver: MemoryDriver | None
    invariants: list[Invariant]
    clock: Clock
    events_seen: list[Event] = attrs.field(factory=list)
    violations: list[Violation] = attrs.field(factory=list)
    moved_s: float = 0.0
    """When something last changed that does not change at rest."""
    _lives: dict[Key, list[Event]] = attrs.field(factory=dict)

    def see(self, batch: Sequence[Event]) -> None:
        now_s = self.clock.monotonic()
        now_us = microseconds(EPOCH_OF_SIMULATION) + round(now_s * 1e6)
        for event in batch:
            self.events_seen.append(event)
            if event.op is not Op.RENEWED:
                self._lives.setdefault(event.key, []).append(event)
                if event.key.resource not in _BACKGROUND:
                    self.moved_s = now_s
            timed = event if event.ts_us == now_us else attrs.evolve(event, ts_us=now_us)
            for invariant in self.invariants:
                for text in invariant.see(event if invariant.as_stamped else timed):
                    self.broken(invariant.name, event.rv, text)

    def broken(self, invariant: str, rv: int, text: str) -> None:
        if len(self.violations) < MAX_VIOLATIONS:
            self.violations.append(Violation(invariant, rv, text))

    def base(self) -> list[Record]:
        return []

    def events(self, after: int | None = None, until: int | None = None) -> Iterator[Event]:
        """As the log tells it: renewals of Leases have no events."""
        seen = self.events_seen
        low = bisect.bisect_right(seen, after or 0, key=_rv)
        high = len(seen) if until is None else bisect.bisect_right(seen, until, lo=low, key=_rv)
        for event in seen[low:high]:
            if event.op is not Op.RENEWED:
                yield event

    def decisions(self) -> Iterator[tuple[int, Decision]]:
        assert self.driver is not None
        yield from sorted(self.driver.decisions, key=lambda row: row[1].id)

    def inputs(self) -> Iterator[tuple[int, int, Input]]:
        assert self.driver is not None
        yield from self.driver.inputs

    def get_at(self, key: Key, rv: int) -> Record | None:
        lives = self._lives.get(key, [])
        at = bisect.bisect_right(lives, rv, key=_rv)
        if not at or lives[at - 1].op is Op.DELETED:
            return None
        return lives[at - 1].record

    def close(self) -> None: ...


def _rv(event: Event) -> int:
    return event.rv


def digest_of(
    events: Sequence[Event],
    decisions: Iterator[tuple[int, Decision]],
    inputs: Iterator[tuple[int, int, Input]],
) -> str:
    """SHA-256 over every event with its bytes and cause, every decision, every input."""
    running = hashlib.sha256()

    def add(*parts: object) -> None:
        running.update(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS))

    for event in events:
        cause = event.cause
        add(event.rv, event.op.name, str(event.key), event.record.oid, event.ts_us)
        add(cause.actor.username, cause.actor.user_agent, cause.request_id, cause.decision_id)
        running.update(event.record.document.encoded)
    for rv, decision in decisions:
        add(rv, attrs.asdict(decision, recurse=False))
    for rv, number, given in inputs:
        add(rv, number, given.kind, given.payload)
    return running.hexdigest()
