"""Why an object is as it is, from the log alone: from its state back to whoever asked for it.

    with history.reader(place) as connection:
        story = why(connection, "pods", "default", "web-5d4f-x2x9z")

A story is told by links, newest first: what the node reported, what the scheduler decided, which controller created the
object and what it had seen, and so on up to a person's request. Each link is one change in the log. What made a
controller act is the newest change before its first write that can have moved it: a wish (spec, labels, a deletion) on
the object that it decided about, or the end of one of that object's dependents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import orjson
import sqlalchemy as sa

from kcp.apis.semantics import pods
from kcp.base.values import frozen
from kcp.controllers.sources import Self
from kcp.controllers.table import by_name
from kcp.machinery import meta
from kcp.machinery.gvk import group_resource
from kcp.store import history, tables
from kcp.store.history import FieldChange, Version
from kcp.store.protocol import Op

Json = dict[str, Any]
MAX_LINKS = 24
MAX_VERSIONS = 2000
"""How far a story goes back in one object's versions; most are reports that no story tells."""
PAGE = 64
"""Versions read at once on the way back."""
LEFT_OUT = "older changes are left out"
ENDS = "the log does not reach further back"
MAX_CHANGES = 3
"""Changed fields that a link names."""
SERVICE_ACCOUNT, NODE = "system:serviceaccount:kube-system:", "system:node:"
objects, kinds, events, decisions, about = (
    tables.objects,
    tables.kinds,
    tables.events,
    tables.decisions,
    tables.about,
)


class NoSuchObject(ValueError):
    """Raised when the log never had the object by that moment; the text is for people."""


@frozen
class Subject:
    """One incarnation of an object. `oid` is the revision that created it."""

    oid: int
    resource: str
    kind: str
    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        place = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind.lower()} {place}{self.name}"


@frozen
class Link:
    """One change and who made it. `what` completes the sentence "<who> …"; `decision` is 0 without one."""

    rv: int
    ts_us: int
    subject: Subject
    who: str
    what: str
    decision: int = 0
    user: str = ""


@frozen
class Story:
    """`state` says what is the case, `links` why, newest first; `missing` what stands behind the last one, "" for nothing."""

    subject: Subject
    state: str
    links: tuple[Link, ...]
    missing: str = ""


@frozen
class Decided:
    """What a decision row says that a story needs. `before` is the revision that it cannot have seen any more."""

    id: int
    controller: str
    key: str
    trigger: str
    effects: Sequence[Json]
    before: int


def why(
    connection: sa.Connection, resource: str, namespace: str, name: str, *, at: int | None = None
) -> Story:
    """The story of the newest incarnation up to revision `at` (default: the end of the log). Raises NoSuchObject."""
    teller = _Teller(connection)
    last = 2**62 if at is None else at
    subject = teller.subject(resource, namespace, name, last)
    if subject is None:
        raise NoSuchObject(f'the log has no {resource} "{name}" at that moment')
    newest = next(teller.back(subject, last))
    links = tuple(_newest_first(teller.tell(subject, last)))
    if teller.left_out or len(links) > MAX_LINKS:
        missing = LEFT_OUT
    else:
        missing = ENDS if teller.begins_late() and teller.is_open(links) else ""
    return Story(subject, _state(subject, newest), links[:MAX_LINKS], missing)


def _newest_first(links: Iterator[Link]) -> list[Link]:
    """Each change once."""
    return sorted({link.rv: link for link in links}.values(), key=lambda link: -link.rv)


@attrs.define
class _Teller:
    connection: sa.Connection
    left_out: bool = False
    """Set when an object has more to tell than a story holds."""

    # --- what the log has ---

    def subject(self, resource: str, namespace: str, name: str, last: int) -> Subject | None:
        found = history.find_kinds(self.connection, resource)
        where = sa.and_(
            objects.c.kind_id == (found[0][0] if found else -1),
            objects.c.ns == namespace,
            objects.c.name == name,
        )
        return self._one(where, last)

    def by_uid(self, uid: str, last: int) -> Subject | None:
        return self._one(objects.c.uid == uid, last)

    def _one(self, where: sa.ColumnElement[bool], last: int) -> Subject | None:
        row = self.connection.execute(
            sa.select(objects, kinds.c.kind, kinds.c.grp, kinds.c.plural)
            .join(kinds, kinds.c.kind_id == objects.c.kind_id)
            .where(where, objects.c.oid <= last)
            .order_by(objects.c.oid.desc())
            .limit(1)
        ).one_or_none()
        if row is None:
            return None
        return Subject(row.oid, group_resource(row.grp, row.plural), row.kind, row.ns, row.name, row.uid)

    def back(self, subject: Subject, last: int) -> Iterator[Version]:
        """The versions of an incarnation up to `last`, newest first."""
        while last >= subject.oid:
            page = history.versions(
                self.connection, subject.resource, subject.namespace, subject.name,
                first=subject.oid, last=last, limit=PAGE,
            )  # fmt: skip
            yield from reversed(page)
            if len(page) < PAGE:
                return
            last = page[0].rv - 1

    def decided(self, version: Version) -> Decided | None:
        if not version.decision_id:
            return None
        row = self.connection.execute(
            sa.select(decisions).where(decisions.c.decision_id == version.decision_id)
        ).one_or_none()
        if row is None:
            return None
        before = min(row.first_rv or version.rv, version.rv)
        return Decided(
            row.decision_id, row.controller, row.key, row.trigger, _json(row.effects) or (), before
        )

    # --- the story ---

    def tell(self, subject: Subject, last: int) -> Iterator[Link]:
        """The milestones of the object up to `last`, what led to the newest of them and what led to the first."""
        milestones = self._milestones(subject, last)
        if subject.resource == "pods" and not any(_ends_it(version) for version in milestones):
            yield from self._refusal(subject, next(self.back(subject, last)), last)
        for version in milestones:
            yield self.link(subject, version)
        for version in milestones[:1] + milestones[1:][-1:]:
            yield from self.behind(subject, version, MAX_LINKS)

    def _milestones(self, subject: Subject, last: int) -> list[Version]:
        """Newest first: how it ended, if it did; else what made it what it is."""
        ended: list[Version] = []
        made: list[Version] = []
        for number, version in enumerate(self.back(subject, last)):
            if _ends_it(version):
                ended.append(version)
                if version.op is not Op.DELETED:
                    break
            elif _is_milestone(subject, version):
                made.append(version)
            if number == MAX_VERSIONS or len(made) > MAX_LINKS:
                self.left_out = not ended
                break
        return ended or made

    def begins_late(self) -> bool:
        """Whether what this log says first is not what happened first: an export of a range, or dropped history."""
        base = sa.select(about.c.value).where(about.c.key == "base_rv")
        return int(self.connection.execute(base).scalar_one_or_none() or 0) > 0

    def is_open(self, links: Sequence[Link]) -> bool:
        """Whether the oldest link is one that somebody else must have moved, or none at all."""
        return not links or bool(links[-1].decision)

    def behind(self, subject: Subject, version: Version, depth: int) -> Iterator[Link]:
        """What moved the maker of a change, then what moved its maker, up to who acted by itself."""
        decided = self.decided(version)
        while decided is not None and depth > 0:
            movers = [*self._wishes(subject, version, decided), *self._ends(subject, version, decided)]
            if not movers:
                return
            subject, version = max(movers, key=lambda pair: pair[1].rv)
            yield self.link(subject, version)
            decided = self.decided(version)
            depth -= 1

    def _wishes(
        self, subject: Subject, version: Version, decided: Decided
    ) -> Iterator[tuple[Subject, Version]]:
        """Of every object that the decision was about, the newest change of what is wanted of it."""
        for concerned in self._concerned(subject, version, decided):
            for found in self.back(concerned, decided.before - 1):
                if decided.controller in _BY_REFERENCE:
                    if _ends_it(found):
                        yield concerned, found
                        break
                    continue
                maker = self.decided(found)
                if maker is not None and maker.controller == decided.controller:
                    continue
                if _is_wish(found) or (concerned.resource in _REPORTING and _is_report(found)):
                    yield concerned, found
                    break

    def _concerned(self, subject: Subject, version: Version, decided: Decided) -> Iterator[Subject]:
        for uid in _uids_behind(version, decided):
            if (found := self.by_uid(uid, decided.before - 1)) is not None:
                yield found
        key = self._key_of(decided)
        if key is not None and decided.controller not in _BY_REFERENCE:
            yield key
        node = (version.object.get("spec") or {}).get("nodeName")
        if subject.resource == "pods" and node and decided.controller in _BY_NODE:
            found = self.subject("nodes", "", node, decided.before - 1)
            if found is not None:
                yield found

    def _key_of(self, decided: Decided) -> Subject | None:
        """The object that the decision was about, where the key names one."""
        try:
            watches = by_name(decided.controller).watches
        except KeyError:
            return None
        for source in watches.values():
            if isinstance(source, Self):
                return self.subject(source.resource, *meta.split_key(decided.key), decided.before - 1)
        return None

    def _ends(
        self, subject: Subject, version: Version, decided: Decided
    ) -> Iterator[tuple[Subject, Version]]:
        """For a creation: the dependent of the same owner that went or finished last, which this one replaces."""
        owner = self._key_of(decided)
        if version.op is not Op.ADDED or owner is None:
            return
        facts = tables.facts_owner
        history.read_dependents(self.connection, owner.uid)
        rows = self.connection.execute(
            sa.select(events.c.rv, objects.c.uid)
            .select_from(
                events.join(objects, objects.c.oid == events.c.oid).join(facts, facts.c.oid == objects.c.oid)
            )
            .where(facts.c.owner_uid == owner.uid, events.c.rv < decided.before, objects.c.oid != subject.oid)
            .order_by(events.c.rv.desc())
            .limit(PAGE)
        ).all()
        for rv, uid in rows:
            dependent = self.by_uid(uid, rv)
            found = None if dependent is None else next(self.back(dependent, rv), None)
            if dependent is None or found is None:
                continue
            if dependent.resource == subject.resource and (_starts_dying(found) or _finishes(found)):
                yield dependent, found
                return

    def _refusal(self, subject: Subject, newest: Version, last: int) -> Iterator[Link]:
        """The scheduler's last word on a pod that has no node; the pod's condition has the text."""
        condition = meta.condition(newest.object, "PodScheduled")
        if (newest.object.get("spec") or {}).get("nodeName") or condition is None:
            return
        for version in self.back(subject, last):
            if version.op is Op.ADDED or any(_names_scheduling(change) for change in version.changes):
                who, text = _who(version, self.decided(version)), condition.get("message", "")
                held = condition.get("reason") == "SchedulingGated"
                what = f"holds it: {text}" if held else f"finds no place for it: {text}"
                yield Link(
                    version.rv, version.ts_us, subject, who, what, version.decision_id or 0, version.username
                )
                return

    # --- words ---

    def link(self, subject: Subject, version: Version) -> Link:
        decided = self.decided(version)
        what = self._what(subject, version, decided)
        return Link(
            version.rv, version.ts_us, subject, _who(version, decided), what, version.decision_id or 0, version.username
        )  # fmt: skip

    def _what(self, subject: Subject, version: Version, decided: Decided | None) -> str:
        if version.op is Op.ADDED:
            return f"created {subject}{self._wanted(decided)}"
        if version.op is Op.DELETED:
            return f"removed {subject}"
        if _starts_dying(version):
            return f"asked for the deletion of {subject}{self._wanted(decided)}"
        if _path(version, "spec.nodeName") is not None and decided is not None:
            return _placed(subject, version, decided)
        if subject.resource == "pods" and version.username.startswith(NODE):
            return f"reported {subject} {_pod_state(version.object)}"
        return f"changed {subject}: {_changes(version)}"

    def _wanted(self, decided: Decided | None) -> str:
        """What the owner wanted and had, where it counts what it owns."""
        owner = None if decided is None else self._key_of(decided)
        if owner is None or decided is None:
            return ""
        at = next(self.back(owner, decided.before - 1), None)
        want = None if at is None else (at.object.get("spec") or {}).get("replicas")
        if owner.resource not in _COUNTING or want is None:
            return f" for {owner}{', whose time had come' if decided.trigger == 'timer' else ''}"
        return f" for {owner}, which wanted {want} and had {self._living(owner, decided.before - 1)}"

    def _living(self, owner: Subject, rv: int) -> int:
        """Pods of an owner as of a revision that neither end nor have ended."""
        owned, facts = tables.facts_owner, tables.facts_pod
        newer = facts.alias()
        newest = sa.select(sa.func.max(newer.c.rv)).where(newer.c.oid == facts.c.oid, newer.c.rv <= rv)
        query = (
            sa.select(sa.func.count(sa.distinct(objects.c.oid)))
            .select_from(
                objects.join(owned, owned.c.oid == objects.c.oid).join(facts, facts.c.oid == objects.c.oid)
            )
            .where(
                owned.c.owner_uid == owner.uid, objects.c.oid <= rv,
                sa.or_(objects.c.delete_rv.is_(None), objects.c.delete_rv > rv),
                facts.c.rv == newest.scalar_subquery(),
                sa.func.coalesce(facts.c.deleting, 0) == 0,
                sa.func.coalesce(facts.c.phase, "").not_in(("Succeeded", "Failed")),
            )
        )  # fmt: skip
        return int(self.connection.execute(query).scalar_one())


_BY_REFERENCE = frozenset({"garbage-collector-controller"})
"""They decide about the object itself; what moves them are the owners it names."""
_BY_NODE = frozenset(
    {"taint-eviction-controller", "pod-garbage-collector-controller", "node-lifecycle-controller"}
)
_REPORTING = frozenset({"pods", "nodes"})
_COUNTING = frozenset({"replicasets.apps", "replicationcontrollers", "statefulsets.apps"})


def _json(value: Any) -> Any:
    return orjson.loads(value) if isinstance(value, (str, bytes)) else value


def _uids_behind(version: Version, decided: Decided) -> Iterator[str]:
    """Uids that a change names as its reason: absent owners, the pods whose endpoints changed."""
    if decided.controller in _BY_REFERENCE:
        yield from (reference["uid"] for reference in meta.owner_references(version.object))
    for change in version.changes:
        for side in (change.new, change.old):
            yield from _targets(side)


def _targets(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        uid = (value.get("targetRef") or {}).get("uid")
        if uid:
            yield uid
        for part in value.values():
            yield from _targets(part)
    elif isinstance(value, list):
        for part in value:
            yield from _targets(part)


def _path(version: Version, path: str) -> FieldChange | None:
    return next((change for change in version.changes if change.path == path), None)


def _ends_it(version: Version) -> bool:
    return version.op is Op.DELETED or _starts_dying(version)


def _starts_dying(version: Version) -> bool:
    change = _path(version, "metadata.deletionTimestamp")
    return version.op is Op.MODIFIED and change is not None and not change.had


def _finishes(version: Version) -> bool:
    change = _path(version, "status.phase")
    return version.op is Op.DELETED or (change is not None and change.new in ("Succeeded", "Failed"))


_NO_WISH = (
    "status",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.resourceVersion",
    'metadata.annotations."deployment.kubernetes.io',
)


def _is_wish(version: Version) -> bool:
    if version.op is not Op.MODIFIED:
        return True
    return any(
        not change.path.startswith(_NO_WISH) and not _only_bookkeeping(change) for change in version.changes
    )


def _only_bookkeeping(change: FieldChange) -> bool:
    """The first annotations, when all of them are a controller's own notes."""
    return (
        change.path == "metadata.annotations"
        and not change.had
        and all(key.startswith("deployment.kubernetes.io/") for key in change.new)
    )


def _is_report(version: Version) -> bool:
    """A change of readiness, which controllers follow."""
    return any(".conditions[type=Ready].status" in change.path for change in version.changes)


def _names_scheduling(change: FieldChange) -> bool:
    return "PodScheduled" in change.path or (change.path == "status.conditions" and not change.had)


def _is_milestone(subject: Subject, version: Version) -> bool:
    if version.op is Op.ADDED:
        return True
    if subject.resource == "pods":
        return _path(version, "spec.nodeName") is not None or _path(version, "status.phase") is not None
    return _is_wish(version)


def _who(version: Version, decided: Decided | None) -> str:
    if decided is not None:
        return "the scheduler" if decided.controller.endswith("-scheduler") else decided.controller
    user = version.username
    if user.startswith(NODE):
        return user.removeprefix(NODE)
    if user.startswith("system:serviceaccount:kube-system:"):
        return user.removeprefix(SERVICE_ACCOUNT)
    tool = version.manager or version.user_agent.partition("/")[0]
    return f"{user or 'somebody'} through {tool}" if tool and tool != user else user or "somebody"


def _placed(subject: Subject, version: Version, decided: Decided) -> str:
    node = version.object["spec"]["nodeName"]
    effect = decided.effects[0] if decided.effects else {}
    feasible, total = effect.get("feasible"), effect.get("total")
    if feasible == 1:
        reason = ", the only one that could take it"
    elif feasible and total is not None:
        reason = f": score {total} was the highest of {feasible} nodes that could take it"
    else:
        reason = ""
    return f"put {subject} on {node}{reason}"


def _changes(version: Version) -> str:
    shown = [change for change in version.changes if not change.path.startswith(_NO_WISH[1:])]
    wishes = [change for change in shown if not change.path.startswith("status")]
    named = ", ".join(str(change) for change in (wishes or shown)[:MAX_CHANGES])
    more = len(wishes or shown) - MAX_CHANGES
    return f"{named} and {more} more" if more > 0 else named or "nothing that shows"


def _pod_state(pod: Json) -> str:
    status = pod.get("status") or {}
    phase = status.get("phase", "Pending")
    ready = " and ready" if pods.is_ready(pod) else ""
    reason = f" ({status['reason']})" if status.get("reason") else ""
    return f"{phase}{ready}{reason}"


def _state(subject: Subject, newest: Version) -> str:
    """What is the case: one line."""
    if newest.op is Op.DELETED:
        return f"{subject} is gone since revision {newest.rv}"
    obj = newest.object
    if meta.is_deleting(obj):
        return f"{subject} is being deleted"
    if subject.resource == "pods":
        node = (obj.get("spec") or {}).get("nodeName")
        return f"{subject} is {_pod_state(obj)}{f' on {node}' if node else ''}"
    status = obj.get("status") or {}
    want = (obj.get("spec") or {}).get("replicas")
    if want is not None:
        return f"{subject} has {status.get('readyReplicas', 0)} of {want} replicas ready"
    for kind in ("Complete", "Failed", "Ready"):
        condition = meta.condition(obj, kind)
        if condition is not None and (condition["status"] == "True" or kind == "Ready"):
            return f"{subject} is {'' if condition['status'] == 'True' else 'not '}{kind.lower()}"
    return f"{subject} is there"
