"""What kcp's controllers would have decided, for a log whose decisions nobody recorded. Inferred, and said to be so.

    writes of a known controller        by user name or user agent, as kube-controller-manager gives them
    → pseudo-decisions                  same controller, same key, in quick succession
    → a frontier for each               the latest plausible one is all that was there just before its first write; earlier
                                        ones go back to the newest version that one of its writes replaced
    → the planner on that frontier      is what it would do what was written?

A real cache may have been older than the latest plausible frontier, the clock of its process is not known, and what the
source does not tell cannot be seen. So the answer is "kcp's controller would have decided X", never that a decision was
re-made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from kcp.base.clock import moment
from kcp.base.values import frozen
from kcp.controllers import effects as fx
from kcp.controllers.sources import Controller, Everything, Fan, Self, Timer
from kcp.controllers.table import CONTROLLERS, OFF_BY_DEFAULT, by_name
from kcp.machinery import meta
from kcp.machinery.labels import parse_selector
from kcp.machinery.patch.merge_patch import apply_merge_patch
from kcp.replay.compare import part_of
from kcp.replay.cursor import Caches
from kcp.replay.importers.formats import ABOUT_FORMAT, TITLES
from kcp.replay.incident import Incident
from kcp.replay.inferred_keys import KEYS, served
from kcp.replay.inferred_scheduling import Chooser, is_binding
from kcp.replay.pace import place_of
from kcp.replay.session import keys_of
from kcp.scheduler.profiles import DEFAULT_NAME as SCHEDULER
from kcp.store.history import diff
from kcp.store.protocol import Actor, Event, Key, Op
from kcp.store.reader import LogReader
from kcp.store.redaction import is_purged

Json = dict[str, Any]

BURST_US = 1_000_000
"""Writes of one controller for one key that are further apart are decisions of their own."""
MAX_EFFECTS = 2000
EARLIER_TRIED = 24
"""So many older frontiers are tried before a decision counts as another."""
_ACCOUNT = "system:serviceaccount:kube-system:"
_IGNORED = frozenset(
    {"resourceVersion", "managedFields", "generation", "uid", "creationTimestamp", "name", "generateName"}
)


@frozen
class Planned:
    """A write that the planner asked for. `written`: the event that has it; `changes`: where that says something else."""

    effect: fx.Effect | None
    written: Event | None
    changes: tuple[str, ...] = ()
    text: str = ""
    """What it is, where no effect says it."""


@frozen
class Guess:
    """What the planner would have done at a frontier: all of the log up to `rv`."""

    rv: int
    planned: tuple[Planned, ...]
    unclear: str = ""

    @property
    def written(self) -> list[Event]:
        return [each.written for each in self.planned if each.written is not None]

    @property
    def agrees(self) -> bool:
        same = all(each.written is not None and not each.changes for each in self.planned)
        return bool(self.planned) and same and not self.unclear


@frozen
class Inference:
    """`verdict`: `same` at the latest plausible frontier, `older`: at one before it, `other`, `unclear`."""

    controller: str
    key: str
    ts_us: int
    writes: tuple[Event, ...]
    earliest_rv: int
    latest_rv: int
    guess: Guess
    verdict: str


def imported_from(incident: Incident) -> str:
    """The title of the format that a log was imported from; "" for a log of kcp itself."""
    if not isinstance(incident.reader, LogReader):
        return ""
    found = incident.reader.about.get(ABOUT_FORMAT, "")
    return TITLES.get(found, found)


# --- from writes to pseudo-decisions ---


def _writers() -> dict[str, list[Controller]]:
    """By the name of their service account; several controllers may share one."""
    found: dict[str, list[Controller]] = {}
    for controller in (*CONTROLLERS, *OFF_BY_DEFAULT):
        found.setdefault(controller.username, []).append(controller)
    return found


def writer_of(actor: Actor) -> str:
    """The user name of the controller behind a write: its own, or the one that its user agent ends with."""
    if actor.username.startswith(_ACCOUNT):
        return actor.username
    last = actor.user_agent.rpartition("/")[2]
    if actor.username in ("system:kube-controller-manager", "") and last:
        return last if last.startswith(_ACCOUNT) else _ACCOUNT + last
    return actor.username


@attrs.define
class _Inferring:
    """Walks the log once; decides about a burst when it is over."""

    incident: Incident
    only: Sequence[str]
    caches: dict[str, Caches] = attrs.field(factory=dict)
    resources: Sequence[Json] = ()
    chooser: Chooser | None = None
    open: dict[tuple[str, str], list[Event]] = attrs.field(factory=dict)
    unattributed: dict[str, int] = attrs.field(factory=dict)
    untold: frozenset[str] = frozenset()
    """Resources of which the source leaves bodies out; then it may leave out whole objects."""

    def run(self) -> Iterator[Inference]:
        writers = _writers()
        if isinstance(self.incident.reader, LogReader):
            self.resources = served(self.incident.reader)
        events = self.incident.reader.events()
        self.untold = frozenset(e.key.resource for e in events if is_purged(e.record.value))
        for event in self.incident.reader.events():
            for place in self._over(event):
                yield from self._decide(place)
            if is_binding(event) and (not self.only or SCHEDULER in self.only):
                yield self._choose(event)
            controllers = writers.get(writer_of(event.cause.actor), ())
            if not controllers or event.key.resource == "events":
                continue
            found = self._place(controllers, event)
            if found is None:
                name = controllers[0].name
                self.unattributed[name] = self.unattributed.get(name, 0) + 1
            elif not self.only or found[0] in self.only:
                self.open.setdefault(found, []).append(event)
        for place in list(self.open):
            yield from self._decide(place)

    def _choose(self, event: Event) -> Inference:
        if self.chooser is None:
            self.chooser = Chooser(self.incident)
        choice, verdict = self.chooser.choices(event)
        planned = Planned(None, event, choice.changes, choice.told)
        guess = Guess(choice.rv, (planned,) if choice.told else (), choice.unclear)
        key = f"{event.key.namespace}/{event.key.name}"
        earliest = event.previous.rv if event.previous is not None else event.rv - 1
        return Inference(SCHEDULER, key, event.ts_us, (event,), earliest, event.rv - 1, guess, verdict)

    def _over(self, event: Event) -> list[tuple[str, str]]:
        return [place for place, writes in self.open.items() if event.ts_us - writes[-1].ts_us > BURST_US]

    def _place(self, controllers: Sequence[Controller], event: Event) -> tuple[str, str] | None:
        """Which controller wrote this, about which key; by what each says that it watches."""
        for controller in controllers:
            caches = self._caches(controller)
            if controller.name in KEYS:
                caches.move_to(dict.fromkeys(caches.folds, event.rv - 1))
                return controller.name, KEYS[controller.name](event, caches.view)
            for source in controller.watches.values():
                if isinstance(source, (Timer, Everything)) or source.resource != event.key.resource:
                    continue
                if isinstance(source, Fan):
                    caches.move_to(dict.fromkeys(caches.folds, event.rv - 1))
                keys = keys_of(source, event, caches.view)
                if keys:
                    own = meta.key_of(event.record.value)
                    return controller.name, own if own in keys else keys[0]
        return None

    def _caches(self, controller: Controller) -> Caches:
        if controller.name not in self.caches:
            self.caches[controller.name] = Caches(controller, self.incident.log, self.resources)
        return self.caches[controller.name]

    def _decide(self, place: tuple[str, str]) -> Iterator[Inference]:
        writes = self.open.pop(place)
        controller = by_name(place[0])
        while writes:
            found = self._infer(controller, place[1], writes)
            taken = {event.rv for event in found.writes}
            writes = [event for event in writes if event.rv not in taken]
            yield found

    def _infer(self, controller: Controller, key: str, writes: Sequence[Event]) -> Inference:
        """Of the first of `writes`, and of those that the planner makes together with it."""
        latest = writes[0].rv - 1
        earliest = max((event.previous.rv for event in writes if event.previous and event.previous.rv <= latest), default=self.incident.log.first_rv)  # fmt: skip
        first = self._guess(controller, key, writes, latest)
        guess, verdict = first, "same"
        if not first.agrees or writes[0] not in first.written:
            guess, verdict = self._older(controller, key, writes, earliest, first)
        done = guess.written if verdict != "other" and guess.written else list(writes)
        if verdict == "unclear":
            done = list(writes)
        return Inference(controller.name, key, writes[0].ts_us, tuple(done), earliest, latest, guess, verdict)

    def _older(
        self, controller: Controller, key: str, writes: Sequence[Event], earliest: int, first: Guess
    ) -> tuple[Guess, str]:
        caches = self._caches(controller)
        revisions: set[int] = set()
        for resource in caches.folds:
            revisions.update(step.rv - 1 for step in self.incident.log.between(resource, earliest, first.rv))
        for rv in sorted(revisions, reverse=True)[:EARLIER_TRIED]:
            guess = self._guess(controller, key, writes, rv)
            if guess.agrees and writes[0] in guess.written:
                return guess, "older"
        return first, "unclear" if first.unclear else "other"

    def _guess(self, controller: Controller, key: str, writes: Sequence[Event], rv: int) -> Guess:
        caches = self._caches(controller)
        caches.move_to(dict.fromkeys(caches.folds, rv))
        settings = dict(controller.settings)
        if "resources" in settings:
            settings["resources"] = self.resources
        env = fx.Env(moment(writes[0].ts_us), None, settings, controller.name)
        maker = _Maker(self.incident, list(writes), rv)
        try:
            maker.make(controller.plan(key, caches.view, env))
        except _Unclear as unclear:
            return Guess(rv, tuple(maker.planned), str(unclear))
        except Exception as bug:  # noqa: BLE001 - what a planner makes of a state that is not whole
            return Guess(rv, tuple(maker.planned), f"the planner raised {bug!r} on what the log tells")
        guess = Guess(rv, tuple(maker.planned))
        if guess.agrees:
            return guess
        return attrs.evolve(guess, unclear=self._blind(controller, key, caches, writes))

    def _blind(self, controller: Controller, key: str, caches: Caches, writes: Sequence[Event]) -> str:
        """Why the planner could not know enough; "" when nothing is known to be missing."""
        for event in writes:
            if event.previous is None and event.op is not Op.ADDED:
                return f"the source does not tell what {event.key} was before"
        if caches.purged or self.untold.intersection(caches.folds):
            return "the source has no body of some of what the controller watches"
        for source in controller.watches.values():
            if isinstance(source, Self):
                fold = caches.folds[source.resource]
                return (
                    ""
                    if fold.indexer.get(key) is not None
                    else f"the source does not tell {source.resource} {key} as of then"
                )
        return ""


class _Unclear(Exception):
    """Raised when a plan needs what no log has."""


# --- the planner against what was written ---


@attrs.define
class _Maker:
    """Runs one plan; answers its effects with what was written, or with what would have been."""

    incident: Incident
    left: list[Event]
    rv: int
    planned: list[Planned] = attrs.field(factory=list)
    since: dict[str, int] = attrs.field(factory=dict)
    """By resource: the revision of the last write of this plan, which a read past the cache sees."""

    def make(self, plan: fx.Plan) -> None:
        effect = fx.advance(plan, None)
        while effect is not None:
            if len(self.planned) > MAX_EFFECTS:
                raise _Unclear(f"the planner would have made more than {MAX_EFFECTS} writes")
            effect = fx.advance(plan, self._outcome(effect))

    def _outcome(self, effect: fx.Effect) -> fx.Outcome:
        if isinstance(effect, fx.All):
            return fx.Outcome(all=[self._outcome(part) for part in effect.effects])
        if isinstance(effect, fx.Live):
            return fx.Outcome(object=self._get(effect.resource, effect.namespace, effect.name))
        if isinstance(effect, fx.LiveList):
            return fx.Outcome(items=self._list(effect))
        if isinstance(effect, fx.Request):
            return self._request(effect)
        if isinstance(effect, fx.External):
            raise _Unclear("it asks for something that no log tells")
        if isinstance(effect, (fx.Event, fx.RequeueAfter, fx.Memo)):
            return fx.Outcome()
        return self._write(effect)

    def _request(self, effect: fx.Request) -> fx.Outcome:
        """Of those that planners make: a collection deleted, a namespace finalized."""
        place = place_of(effect.path)
        if place is None:
            raise _Unclear("it asks for something that no log tells")
        resource, namespace, name = place
        if effect.method == "DELETE" and not name:
            for obj in self._list(fx.LiveList(resource, namespace)):
                if not meta.is_deleting(obj):
                    self._write(fx.Delete(resource, namespace, meta.name(obj), uid=meta.uid(obj)))
            return fx.Outcome()
        for event in self.left:
            if event.key == Key(resource, namespace, name):
                self._take(event, Planned(None, event, (), f"{effect.method} {effect.path}"))
                return fx.Outcome(object=event.record.value, rv=event.rv)
        self.planned.append(Planned(None, None, (), f"{effect.method} {effect.path}"))
        return fx.Outcome(object=effect.body, rv=self.rv)

    def _take(self, event: Event, planned: Planned) -> None:
        """What comes next looks at what was there after this write."""
        self.left.remove(event)
        self.planned.append(planned)
        self.since[event.key.resource] = max(event.rv, self.since.get(event.key.resource, 0))

    def _write(self, effect: fx.Create | fx.Update | fx.Status | fx.Patch | fx.Delete) -> fx.Outcome:
        resource, namespace, name = target_of(effect)
        current = self._get(resource, namespace, name) if name else None
        for event in self.left:
            if _is_of(effect, event):
                self._take(event, Planned(effect, event, _changes(effect, event)))
                return fx.Outcome(object=event.record.value, rv=event.rv)
        wanted = _wanted(effect, current)
        if wanted is not None and wanted == current:
            return fx.Outcome(object=current)
        self.planned.append(Planned(effect, None))
        return fx.Outcome(object=wanted, rv=self.rv)

    def _get(self, resource: str, namespace: str, name: str) -> Json | None:
        at = max(self.rv, self.since.get(resource, 0))
        record = self.incident.reader.get_at(Key(resource, namespace, name), at)
        return None if record is None or is_purged(record.value) else record.value

    def _list(self, effect: fx.LiveList) -> list[Json]:
        if effect.field_selector:
            raise _Unclear("it lists by fields, past its cache")
        selector = parse_selector(effect.label_selector)
        at = max(self.rv, self.since.get(effect.resource, 0))
        found = [record.value for record in self.incident.reader.list_at(effect.resource, at)]
        return [
            obj for obj in found
            if effect.namespace in ("", obj["metadata"].get("namespace"))
            and selector.matches(obj["metadata"].get("labels") or {})
        ]  # fmt: skip


def target_of(effect: fx.Create | fx.Update | fx.Status | fx.Patch | fx.Delete) -> tuple[str, str, str]:
    """(resource, namespace, name); no name where the server makes it."""
    if isinstance(effect, (fx.Patch, fx.Delete)):
        return effect.resource, effect.namespace, effect.name
    metadata = effect.object.get("metadata") or {}
    namespace = effect.namespace if isinstance(effect, fx.Create) else metadata.get("namespace") or ""
    return effect.resource, namespace, metadata.get("name") or ""


def _is_of(effect: fx.Create | fx.Update | fx.Status | fx.Patch | fx.Delete, event: Event) -> bool:
    """Whether an event may be what came of an effect."""
    resource, namespace, name = target_of(effect)
    key = event.key
    if key.resource != resource or key.namespace != namespace or (name and key.name != name):
        return False
    if isinstance(effect, fx.Create):
        prefix = (effect.object.get("metadata") or {}).get("generateName") or ""
        return event.previous is None and event.op is not Op.DELETED and key.name.startswith(prefix)
    if isinstance(effect, fx.Delete):
        return event.op is Op.DELETED or bool(event.record.value["metadata"].get("deletionTimestamp"))
    going = event.previous is not None and meta.is_deleting(event.previous.value)
    return event.op is not Op.DELETED or (going and isinstance(effect, (fx.Patch, fx.Update)))


def _wanted(
    effect: fx.Create | fx.Update | fx.Status | fx.Patch | fx.Delete, current: Json | None
) -> Json | None:
    """The object as it would be; as far as this can be told without a server."""
    if isinstance(effect, fx.Status):
        return {**(current or effect.object), "status": effect.status}
    if isinstance(effect, fx.Patch):
        if effect.type == "merge" and current is not None:
            merged: Json = apply_merge_patch(current, effect.patch)
            return merged
        return current if effect.type == "json" else {**(current or {})}
    return None if isinstance(effect, fx.Delete) else effect.object


def said_by(effect: fx.Effect) -> Json | None:
    """The fields that an effect sets; None where its form does not tell."""
    if isinstance(effect, (fx.Create, fx.Update)):
        return effect.object
    if isinstance(effect, fx.Status):
        return {"status": effect.status}
    if isinstance(effect, fx.Patch) and isinstance(effect.patch, dict) and effect.type in ("merge", "apply"):
        patch: Json = effect.patch
        return patch
    return None


def _changes(effect: fx.Effect, event: Event) -> tuple[str, ...]:
    """Where the object that was written says something else than the effect; times and what servers set aside."""
    said = said_by(effect)
    if said is None or event.op is Op.DELETED or is_purged(event.record.value):
        return ()
    ours = _plain(said)
    theirs = _plain(part_of(event.record.value, said))
    return tuple(str(change) for change in diff(theirs, ours))


def _plain(value: Any, inside: str = "") -> Any:
    """Without times, which no inference can know, without what the server fills in, and without what is empty."""
    if isinstance(value, dict):
        named = {
            name: _plain(item, name)
            for name, item in value.items()
            if not name.endswith(("Time", "Timestamp")) and not (inside == "metadata" and name in _IGNORED)
        }
        return {name: item for name, item in named.items() if item not in (None, {}, [], "", 0, False)}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def infer(incident: Incident, only: Sequence[str] = ()) -> Iterator[Inference]:
    """Every pseudo-decision of the log and what kcp's controller would have decided, in the order in which they ended.

    Raises ValueError for a name that is none of a controller.
    """
    return _Inferring(incident, [_full(name) for name in only]).run()


def _full(name: str) -> str:
    if name in (SCHEDULER, "scheduler"):
        return SCHEDULER
    try:
        return by_name(name).name
    except KeyError:
        names = [controller.name for controller in (*CONTROLLERS, *OFF_BY_DEFAULT)]
        raise ValueError(
            f"there is no controller {name}; there are {', '.join([*names, SCHEDULER])}"
        ) from None


def by_controller(found: Sequence[Inference]) -> Mapping[str, Sequence[Inference]]:
    grouped: dict[str, list[Inference]] = {}
    for each in found:
        grouped.setdefault(each.controller, []).append(each)
    order = [*(controller.name for controller in (*CONTROLLERS, *OFF_BY_DEFAULT)), SCHEDULER]
    return {name: grouped[name] for name in order if name in grouped}
