"""Whether two logs tell the same: byte for byte, or modulo what chance and the order of independent writes decide.

    first_difference(one, other)     of two runs of a seed: the first event that is not the same
    compare(one, other)              of a recorded log and its second run

`compare` follows both logs and pairs their objects as they appear: by name, and where chance had made the name by what it
begins with, in the order of creation. Times, resourceVersions and managedFields are no part of an object then; a uid, a made-up
name or a pod's address stands for the object that it belongs to. Writes of different objects commute. Of one object two
things are told apart:

    wishes     spec, labels, annotations, owners, finalizers, deletion; of a pod also node, phase and readiness
    reports    status, and objects that only report, such as EndpointSlices: these depend on what was seen at once

Objects whose wishes follow each other alike are `alike`; those that end alike after other wishes came to it `otherwise`: a
rollout takes two steps where it took three. What ends in another state is `different`. Leases and Events are left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from itertools import zip_longest
from typing import Any

import attrs
import orjson

from kcp.api.own_writes import IDENTITY
from kcp.base.values import frozen
from kcp.machinery import meta
from kcp.store.history import diff
from kcp.store.protocol import Event, Key, Op
from kcp.store.reader import LogReader
from kcp.store.redaction import is_purged

Json = dict[str, Any]
LEFT_OUT = frozenset({"leases.coordination.k8s.io", "events", "events.events.k8s.io"})
REPORTING = frozenset({"endpoints", "endpointslices.discovery.k8s.io", "controllerrevisions.apps"})
SHOWN_CHANGES = 3
SERVER = IDENTITY.name
_NO_PART = frozenset(
    {"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink",
     "deletionTimestamp", "deletionGracePeriodSeconds", "name", "generateName"}
)  # fmt: skip
_NEVER_ALIKE = frozenset(
    {"machineID", "systemUUID", "bootID", "observedGeneration", "containerID", "imageID", "images", "resourceVersion"}
)  # fmt: skip
_PLACE = frozenset({"nodeName", "hostIP", "hostIPs", "nodeAffinity", "volume.kubernetes.io/selected-node"})
UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_MADE_UP = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)|(?<=^kube-api-access-)[a-z0-9]{5}$"
)
"""Moments, and the names of the volumes that pods get their tokens from."""


# --- byte for byte ---


@frozen
class Difference:
    """The first event at which two logs part; a side is None when that log had ended."""

    one: Event | None
    other: Event | None


def first_difference(one: LogReader, other: LogReader, until: int | None = None) -> Difference | None:
    """Up to a revision. Of redacted Secrets only the names are compared."""
    redacted = any(reader.about.get("redacted", "0") != "0" for reader in (one, other))
    first, second = _events(one, until), _events(other, until)
    while True:
        a, b = next(first, None), next(second, None)
        if a is None or b is None:
            return None if a is b else Difference(a, b)
        if _told(a, redacted) != _told(b, redacted):
            return Difference(a, b)


def _events(reader: LogReader, until: int | None) -> Iterator[Event]:
    """A renewal is told once, where the newest one lies: it has no place among the events."""
    return (event for event in reader.events(until=until) if event.op is not Op.RENEWED)


def _told(event: Event, redacted: bool) -> tuple[Any, ...]:
    masked = redacted and event.key.resource == "secrets"
    body = b"" if masked else event.record.document.encoded
    return event.rv, event.op, event.key, event.ts_us, event.cause, event.record.uid, body


def without_counterpart(one: LogReader, other: LogReader) -> Difference:
    """The first event of either log that the other one does not have, at whatever time and revision."""
    called = {key: str(key) for key in _keys(one) & _keys(other)}
    known = _counted(one, called), _counted(other, called)
    return Difference(_first_unknown(one, called, known[1]), _first_unknown(other, called, known[0]))


def _keys(reader: LogReader) -> AbstractSet[Key]:
    based = (record.key for record in reader.base())
    return {*based, *(event.key for event in reader.events() if event.op is Op.ADDED)}


def _counted(reader: LogReader, called: Mapping[Key, str]) -> dict[tuple[Any, ...], int]:
    counts: dict[tuple[Any, ...], int] = {}
    for _, told in _plain_events(reader, called):
        counts[told] = counts.get(told, 0) + 1
    return counts


def _first_unknown(
    reader: LogReader, called: Mapping[Key, str], counts: dict[tuple[Any, ...], int]
) -> Event | None:
    for event, told in _plain_events(reader, called):
        if not counts.get(told):
            return event
        counts[told] -= 1
    return None


def _plain_events(reader: LogReader, called: Mapping[Key, str]) -> Iterator[tuple[Event, tuple[Any, ...]]]:
    """Events with what they say when names, times and revisions are taken away."""
    follower = follow(reader, called)
    for event in _events(reader, None):
        if event.key.resource in LEFT_OUT or is_purged(event.record.value):
            continue
        follower.see(event)
        if event.cause.actor.username == SERVER:
            continue
        plain = orjson.dumps(follower.known[event.record.uid].last, option=orjson.OPT_SORT_KEYS)
        place = follower.called(event.record.uid)
        yield event, (event.op, place, hashlib.sha256(plain).digest())


# --- modulo names, times, and the order of independent writes ---


@attrs.define
class Course:
    """What became of one object of a log. `end` is None when it is gone."""

    key: Key
    born_rv: int
    base: str = ""
    """Its generateName."""
    called: str = ""
    """What it is called in both logs, where its name follows from what it belongs to."""
    wishes: list[Any] = attrs.field(factory=list)
    end: Json | None = None
    last: Json = attrs.field(factory=dict)
    """Its last state, also when it is gone."""
    by_server: bool = False
    """The API server made it by itself, as it does at its start."""

    def __str__(self) -> str:
        return str(self.key)


@frozen
class Pair:
    """An object of both logs. `changes` are the fields in which its ends differ."""

    one: Course
    other: Course
    changes: tuple[str, ...] = ()


@frozen
class Comparison:
    """See the module. `elsewhere` are different only in where they run. `passing` are objects of one log alone that came and went, `only_*` those that are still
    there; `by_server` those of one log alone that every API server of a version makes by itself: they do not count.
    """

    alike: int = 0
    otherwise: tuple[Pair, ...] = ()
    elsewhere: tuple[Pair, ...] = ()
    different: tuple[Pair, ...] = ()
    passing: tuple[Course, ...] = ()
    only_one: tuple[Course, ...] = ()
    only_other: tuple[Course, ...] = ()
    by_server: tuple[Course, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether both come to the same."""
        return not self.elsewhere and self.equal_but_for_places

    @property
    def equal_but_for_places(self) -> bool:
        """The same, if it does not matter which node a pod runs on: that depends on what ran there at the very moment."""
        return not (self.different or self.only_one or self.only_other)


def compare(one: LogReader, other: LogReader, until: int | None = None) -> Comparison:
    """`until` is a revision of the first log."""
    called = {key: str(key) for key in _keys(one) & _keys(other)}
    first = courses(one, called, until)
    result = _compared(first, courses(other, called))
    swapped = _swapped((*result.otherwise, *result.elsewhere, *result.different))
    if not swapped:
        return result
    return _compared(first, courses(other, {**called, **swapped}))


def _compared(first: Sequence[Course], second: Sequence[Course]) -> Comparison:
    pairs, only_one, only_other = _paired(first, second)
    alike = 0
    otherwise: list[Pair] = []
    elsewhere: list[Pair] = []
    different: list[Pair] = []
    for pair in pairs:
        changes = _changes(pair)
        if changes:
            kind = elsewhere if _placeless(pair.one.end) == _placeless(pair.other.end) else different
            kind.append(attrs.evolve(pair, changes=changes))
        elif pair.one.wishes == pair.other.wishes:
            alike += 1
        else:
            otherwise.append(pair)
    by_server = [course for course in (*only_one, *only_other) if course.by_server]
    only_one, only_other = ([c for c in found if not c.by_server] for found in (only_one, only_other))
    passing = [course for course in (*only_one, *only_other) if course.end is None]
    return Comparison(
        alike,
        tuple(otherwise),
        tuple(elsewhere),
        tuple(different),
        tuple(passing),
        tuple(course for course in only_one if course.end is not None),
        tuple(course for course in only_other if course.end is not None),
        tuple(by_server),
    )


def _swapped(pairs: Sequence[Pair]) -> dict[Key, str]:
    """Made-up names are only names: which objects of the second log have the course of which of the first one, by name.

    Those with the same course first, then those with the same end wherever they are, then those that are there or gone alike.
    """
    groups: dict[tuple[str, ...], list[Pair]] = {}
    for pair in pairs:
        if pair.one.base:
            key = pair.one.key
            groups.setdefault((key.resource, key.namespace, pair.one.base), []).append(pair)
    found: dict[Key, str] = {}
    for group in groups.values():
        ones, others = [pair.one for pair in group], [pair.other for pair in group]
        for measure in _MEASURES:
            taken, ones, others = _match(ones, others, measure)
            found.update((pair.other.key, pair.one.called) for pair in taken)
    return found if any(str(key) != called for key, called in found.items()) else {}


def _nameless(course: Course, value: Any) -> bytes:
    told = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return told.replace(course.called.encode(), b"(itself)")


_MEASURES: Sequence[Callable[[Course], Any]] = (
    lambda course: _nameless(course, [course.wishes, course.end]),
    lambda course: _nameless(course, _placeless(course.end)),
    lambda course: course.end is None,
    lambda course: None,
)
"""What two objects have in common of which one can stand for the other, whatever their names; the last: nothing."""


def _changes(pair: Pair) -> tuple[str, ...]:
    one, other = pair.one.end, pair.other.end
    if one is None or other is None:
        if one is other:
            return ()
        return ("gone then, there now" if one is None else "there then, gone now",)
    return tuple(str(change) for change in diff(one, other, noise=True)[:SHOWN_CHANGES])


def _placeless(value: Any) -> Any:
    """Without what says which node it is on."""
    if isinstance(value, dict):
        return {name: _placeless(item) for name, item in value.items() if name not in _PLACE}
    if isinstance(value, list):
        return [_placeless(item) for item in value]
    return value


def _paired(one: Sequence[Course], other: Sequence[Course]) -> tuple[list[Pair], list[Course], list[Course]]:
    """Pairs, and those of either side that have no counterpart."""
    pairs, rest, free = _match(one, other, lambda course: course.called)
    more, rest, free = _match(rest, free, _kind_of_name)
    return [*pairs, *more], rest, free


def _kind_of_name(course: Course) -> tuple[Any, ...]:
    place = (course.key.resource, course.key.namespace)
    return (*place, course.base) if course.base else (*place, "", course.called)


def _match(
    one: Sequence[Course], other: Sequence[Course], by: Any
) -> tuple[list[Pair], list[Course], list[Course]]:
    """The n-th of one side belongs to the n-th of the other that is called the same."""
    waiting: dict[Any, list[Course]] = {}
    for course in reversed(other):
        waiting.setdefault(by(course), []).append(course)
    pairs, rest = [], []
    for course in one:
        candidates = waiting.get(by(course))
        if candidates:
            pairs.append(Pair(course, candidates.pop()))
        else:
            rest.append(course)
    left = {id(course) for courses_ in waiting.values() for course in courses_}
    return pairs, rest, [course for course in other if id(course) in left]


# --- one log ---


def courses(reader: LogReader, called: Mapping[Key, str], until: int | None = None) -> list[Course]:
    """Every object that the log has events of, in the order in which they came. `called`: what they are called."""
    follower = follow(reader, called)
    for event in _events(reader, until):
        if event.key.resource not in LEFT_OUT and not is_purged(event.record.value):
            follower.see(event)
    return [course for course in follower.known.values() if course.born_rv or len(course.wishes) > 1]


def follow(reader: LogReader, called: Mapping[Key, str]) -> Follower:
    """A follower that knows the base of a log."""
    follower = Follower(called)
    for record in reader.base():
        follower.meet(record.uid, record.key, record.value, 0)
    return follower


@attrs.define
class Follower:
    """By uid. What stands for what: uids, made-up names that only one log has, addresses of pods."""

    names: Mapping[Key, str]
    known: dict[str, Course] = attrs.field(factory=dict)
    _stands_for: dict[str, str] = attrs.field(factory=dict)
    _made: dict[tuple[str, str, str], int] = attrs.field(factory=dict)

    def meet(self, uid: str, key: Key, value: Json, rv: int) -> Course:
        base = value["metadata"].get("generateName") or ""
        course = self.known[uid] = Course(key, rv, base, self.names.get(key, ""))
        if not course.called and base:
            place = (key.resource, key.namespace, base)
            self._made[place] = number = self._made.get(place, 0) + 1
            course.called = f"{key.resource}/{key.namespace}/{base}#{number}"
        elif not course.called:
            course.called = f"{key.resource}/{key.namespace}/{self._text(key.name)}"
        if base:
            self._stands_for[key.name] = f"name of {course.called}"
        self._stands_for[uid] = f"uid of {course.called}"
        self._note(course, value)
        return course

    def see(self, event: Event) -> None:
        uid, value = event.record.uid, event.record.value
        course = self.known.get(uid)
        if course is None:
            course = self.meet(uid, event.key, value, event.rv)
            course.by_server = event.cause.actor.username == SERVER
        else:
            self._note(course, value)
        if event.op is Op.DELETED:
            course.end = None
            course.wishes.append("gone")

    def called(self, uid: str) -> str:
        """What an object is called in both logs."""
        return self.known[uid].called

    def _note(self, course: Course, value: Json) -> None:
        ip = (value.get("status") or {}).get("podIP")
        if ip and course.key.resource == "pods" and not (value.get("spec") or {}).get("hostNetwork"):
            self._stands_for[ip] = f"address of {self._stands_for[value['metadata']['uid']]}"
        course.end = course.last = self.plain(value)
        wish = _wish(course, value, course.end)
        if not course.wishes or course.wishes[-1] != wish:
            course.wishes.append(wish)

    def plain(self, value: Json) -> Json:
        """The object without what two runs never have in common."""
        metadata = {name: item for name, item in value["metadata"].items() if name not in _NO_PART}
        plain: Json = self._plain({**value, "metadata": metadata})
        if value.get("kind") == "Secret":
            plain.pop("data", None)
        if "deletionTimestamp" in value["metadata"]:
            plain["metadata"]["deleting"] = True
        return plain

    def _plain(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._stands_for.get(value) or self._text(value)
        if isinstance(value, dict):
            return {name: self._plain(item) for name, item in value.items() if name not in _NEVER_ALIKE}
        if isinstance(value, list):
            return [self._plain(item) for item in value]
        return value

    def _text(self, text: str) -> str:
        """What is left of a text when uids, moments and the like are taken out of it."""
        text = (
            UID.sub(lambda found: f"({self._stands_for.get(found[0], 'uid')})", text)
            if "-4" in text
            else text
        )
        return _without_made_up(text)


@lru_cache(maxsize=16_384)
def _without_made_up(text: str) -> str:
    return _MADE_UP.sub("(made up)", text)


def _wish(course: Course, value: Json, plain: Json) -> Json | None:
    if course.key.resource in REPORTING:
        return None
    wanted = {name: item for name, item in plain.items() if name != "status"}
    if course.key.resource == "pods":
        wanted["phase"] = (value.get("status") or {}).get("phase")
        wanted["ready"] = meta.condition_is(value, "Ready")
    return wanted


def first_other_step(pair: Pair) -> str:
    """Where the wishes of both part, in a few words."""
    for one, other in zip_longest(pair.one.wishes, pair.other.wishes):
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            return "; ".join(str(change) for change in diff(one, other, noise=True)[:SHOWN_CHANGES])
        return f"{_step_word(one)} then, {_step_word(other)} now"
    return ""


def _step_word(wish: Any) -> str:
    return wish if isinstance(wish, str) else "nothing more" if wish is None else "a change"
