"""A replay as a place to work: stand at a decision, step, go back, run to a break, look at what its controller saw.

    with Incident.open(file) as incident:
        session = Session(incident)
        session.run_to_break()            # after session.breaks.append(Break(text))
        session.decision.key
        session.cache("pods").get("default/web-0")

To stand at a decision is to stand before its first effect: caches are at its frontier. Moving is random access: nothing is
run again from the start, so back costs what step costs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import attrs

from kcp.base.clock import Clock, SystemClock, microseconds
from kcp.base.values import frozen
from kcp.client.cache.indexer import Indexer
from kcp.controllers.driver import controlled_by
from kcp.controllers.sources import Controller, Everything, Fan, Owned, Self, Source, Timer
from kcp.controllers.table import by_name
from kcp.machinery import meta
from kcp.replay import compare
from kcp.replay.breaking import Condition, condition, flat
from kcp.replay.cursor import Caches, Fold
from kcp.replay.decisions import Remaker, Result
from kcp.replay.incident import IDS_PER_RUN, Incident
from kcp.replay.placement import remake_placement
from kcp.scheduler.remake import WATCHED
from kcp.store.history import FieldChange, diff
from kcp.store.protocol import Decision, Event, Op
from kcp.store.query import QueryFailed, ResultTable, parse_at
from kcp.store.query import Session as SqlSession

Json = dict[str, Any]
MAX_WAITING = 20
LOOK_AHEAD = 500
"""So many decisions are searched for the next ones of a controller."""


@frozen
class Break:
    text: str
    holds: Condition = attrs.field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "holds", condition(self.text))


@frozen
class Waiting:
    """A key that its controller takes up after this decision. `brought_by` is the change that queues it, None: it waits."""

    key: str
    trigger: str
    decision: int
    brought_by: int | None


@attrs.define
class Session:
    """One reader's place in a log; not for two threads. `at` indexes `ids`; None when there is no decision at all."""

    incident: Incident
    only: Collection[str] = ()
    clock: Clock = attrs.field(factory=SystemClock)
    breaks: list[Break] = attrs.field(factory=list)
    ids: list[int] = attrs.field(init=False)
    at: int = 0
    _standing: tuple[Decision, dict[str, int]] | None = None
    _remakers: dict[str, Remaker] = attrs.field(factory=dict)
    _of_schedulers: Caches | None = None
    _listeners: list[Callable[[Session], None]] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.ids = self.incident.ids(self.incident.named(self.only))
        if not self.ids:
            raise ValueError("the log has no decisions to stand at")

    # --- where it stands ---

    @property
    def decision(self) -> Decision:
        return self._placed()[0]

    @property
    def frontier(self) -> dict[str, int]:
        return self._placed()[1]

    @property
    def rv(self) -> int:
        """The newest revision that the decision had seen."""
        return max(self.frontier.values(), default=0)

    def _placed(self) -> tuple[Decision, dict[str, int]]:
        if self._standing is None or self._standing[0].id != self.ids[self.at]:
            self._standing = self.incident.decision(self.ids[self.at])
        return self._standing

    def on_move(self, listener: Callable[[Session], None]) -> None:
        """Call `listener` after every move."""
        self._listeners.append(listener)

    # --- moving; each tells whether it came where it was to ---

    def step(self, count: int = 1) -> bool:
        """`count` decisions on, backwards when it is negative; as far as the log goes."""
        wanted = self.at + count
        self._stand(min(max(wanted, 0), len(self.ids) - 1))
        return self.at == wanted

    def run_to_break(self, backwards: bool = False) -> bool:
        """To the next decision at which a break holds. False: at none; then it stands at the end."""
        for at in range(self.at - 1, -1, -1) if backwards else range(self.at + 1, len(self.ids)):
            if self.breaks and self._breaks_at(at):
                self._stand(at)
                return True
        self._stand(0 if backwards else len(self.ids) - 1)
        return False

    def breaks_here(self) -> bool:
        return self._breaks_at(self.at)

    def _breaks_at(self, at: int) -> bool:
        placed = self.incident.decision(self.ids[at])
        return any(each.holds(*placed) for each in self.breaks)

    def go(self, text: str) -> None:
        """To a decision by its id, or to the first one that had seen a revision, or that came at or after a time.

        Raises ValueError for what is none of these.
        """
        self._stand(self.find(text))

    def find(self, text: str) -> int:
        """The place that `go` would go to."""
        if text in ("first", "start"):
            return 0
        if text in ("last", "end"):
            return len(self.ids) - 1
        if text.isdigit() and int(text) >= IDS_PER_RUN:
            at = bisect_left(self.ids, int(text))
            if at == len(self.ids) or self.ids[at] != int(text):
                raise ValueError(f"there is no decision {text} here")
            return at
        try:
            when = parse_at(text, self.clock)
        except QueryFailed as error:
            raise ValueError(f"{error}, nor a decision") from None
        wanted = when if isinstance(when, int) else microseconds(when)
        measure = self._rv_at if isinstance(when, int) else self._time_at
        return min(bisect_left(range(len(self.ids)), wanted, key=measure), len(self.ids) - 1)

    def _rv_at(self, at: int) -> int:
        return max(self.incident.decision(self.ids[at])[1].values(), default=0)

    def _time_at(self, at: int) -> int:
        """A search looks here and there: it reads single rows, not pages."""
        number = self.ids[at]
        return self.incident.reader.decisions_between(number, number)[0].now_us

    def _stand(self, at: int) -> None:
        if at == self.at:
            return
        self.at = at
        for listener in self._listeners:
            listener(self)

    # --- looking ---

    @property
    def controller(self) -> Controller | None:
        """None for a scheduler."""
        try:
            return by_name(self.decision.controller)
        except KeyError:
            return None

    def nearby(self, before: int = 5, after: int = 10) -> list[Decision]:
        """Decisions around this one, in order."""
        low, high = max(0, self.at - before), min(len(self.ids), self.at + after + 1)
        wanted = self.ids[low:high]
        found = self.incident.reader.decisions_between(wanted[0], wanted[-1])
        return [decision for decision in found if decision.id in wanted]

    def caches(self) -> Mapping[str, Fold]:
        """What the decider had in its caches, by resource."""
        caches = self._caches_of_the_decider()
        caches.move_to(self.frontier)
        return caches.folds

    def _caches_of_the_decider(self) -> Caches:
        remaker = self._remaker()
        if remaker is not None:
            return remaker.caches
        if self._of_schedulers is None:
            self._of_schedulers = Caches(_SCHEDULER, self.incident.log, self.incident.resources)
        return self._of_schedulers

    def cache(self, resource: str) -> Indexer:
        """By its group resource or, where that is clear, by its plural alone. Raises ValueError."""
        folds = self.caches()
        found = [name for name in folds if resource in (name, name.partition(".")[0])]
        if len(found) != 1:
            known = ", ".join(sorted(folds))
            raise ValueError(f"{self.decision.controller} has no cache of {resource!r}; it has {known}")
        return folds[found[0]].indexer

    def remake(self) -> Result:
        """Make the decision again, now."""
        remaker = self._remaker()
        if remaker is None:
            return remake_placement(self.incident, self.decision.id)
        return remaker.remake(self.decision, self.frontier)

    def _remaker(self) -> Remaker | None:
        """That of the controller; None for a scheduler."""
        controller = self.controller
        if controller is None:
            return None
        if controller.name not in self._remakers:
            self._remakers[controller.name] = Remaker(self.incident, controller)
        return self._remakers[controller.name]

    def changes(self) -> list[tuple[Event, list[FieldChange]]]:
        """What the decision wrote, and the fields that each write changed."""
        found = []
        for effect in flat(self.decision.effects):
            event = self.incident.log.event(effect.get("rv", 0))
            if event is not None:
                before = event.previous.value if event.previous is not None else {}
                fields = [] if event.op is Op.DELETED else diff(before, event.record.value)
                found.append((event, fields))
        return found

    def why(self) -> list[str]:
        """The chain of causes of what the decision is about, newest first."""
        return compare.about(self.incident, self.decision, self.frontier)

    def sql(self, query: str) -> ResultTable:
        """Rows of a statement whose views show this moment. Raises QueryFailed."""
        if not self.incident.place:
            raise QueryFailed("a log in memory takes no SQL")
        with SqlSession(self.incident.place, self.clock, at=str(self.rv)) as session:
            return session.run(query)

    # --- the queue ---

    def queue(self) -> list[Waiting]:
        """The keys that this controller decides about next, in that order, and what brings those that do not wait yet.

        The log has no queue. It has what was taken from it, and the changes that put keys into it: a key whose change the
        caches have seen here was waiting. Keys that came to nothing left no decision and are not here.
        """
        self.caches()
        found: dict[str, Waiting] = {}
        for number in self.ids[self.at + 1 : self.at + 1 + LOOK_AHEAD]:
            if len(found) >= MAX_WAITING:
                break
            decision, frontier = self.incident.decision(number)
            if decision.controller == self.decision.controller and decision.key not in found:
                brought = self._brings(decision.key, frontier) if decision.trigger == "event" else None
                found[decision.key] = Waiting(decision.key, decision.trigger, number, brought)
        return list(found.values())

    def _brings(self, key: str, until: Mapping[str, int]) -> int | None:
        """The first change between here and there that queues a key."""
        readers = self._caches_of_the_decider().view
        watched = (self.controller or _SCHEDULER).watches.values()
        sources: list[Source] = [Self("pods")] if self.controller is None else list(watched)
        revisions = []
        for source in sources:
            if not isinstance(source, (Self, Owned, Fan)):
                continue
            for event in self._events(source.resource, until):
                if key in keys_of(source, event, readers):
                    revisions.append(event.rv)
                    break
        return min(revisions, default=None)

    def _events(self, resource: str, until: Mapping[str, int]) -> Iterator[Event]:
        log, start = self.incident.log, self.frontier.get(resource, 0)
        for step in log.between(resource, start, until.get(resource, start)):
            event = log.event(step.rv)
            if event is not None:
                yield event


def keys_of(source: Any, event: Event, readers: Any) -> list[str]:
    """Which keys a change queues, by the controller's own declaration."""
    old = None if event.previous is None else event.previous.value
    new = None if event.op is Op.DELETED else event.record.value
    if isinstance(source, Self):
        return [meta.key_of(event.record.value)]
    if isinstance(source, Owned):
        keys = [controlled_by(obj, source.owner_kind, source.owner_group) for obj in (old, new)]
        orphans = list(source.orphans(old, new, readers)) if source.orphans is not None else []
        return [key for key in (*keys, *orphans) if key is not None]
    if isinstance(source, (Fan, Everything)) and source.keys is not None:
        return list(source.keys(old, new, readers))
    assert isinstance(source, (Fan, Timer))
    return []


def _decides_nothing(key: str, view: Any, env: Any) -> Any:
    del key, view, env
    yield from ()


_SCHEDULER = Controller(
    "scheduler", "system:kube-scheduler", _decides_nothing, {name: Fan(name) for name in WATCHED}
)
"""What a scheduler keeps in its caches, in the words of a controller."""
