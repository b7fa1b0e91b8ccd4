"""Garbage collector: objects whose owners are all gone go too; deletion orders the graph asks for are kept.

The graph is an incremental index over the metadata of every resource: uid -> object, owner uid -> dependents. A key is
the uid of an object, or of one that is gone: then its dependents are looked at together. An owner that the cache does not
know under these coordinates is read live once before anything is deleted, so neither a lagging cache nor a mistyped
reference costs an object its life.
Source: k8s v1.36 pkg/controller/garbagecollector/{garbagecollector,graph_builder}.go.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Literal

import attrs

from kcp.base.values import frozen
from kcp.controllers import effects as fx
from kcp.controllers.sources import Controller, Everything
from kcp.machinery import meta
from kcp.machinery.gvk import GroupVersion, group_resource

Json = dict[str, Any]
Steps = Generator[fx.Effect, fx.Outcome, None]
ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
BURST = 500
"""How many objects one plan deletes or sets free at most."""


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    """All changes of a plan are asked for together, at the end: an owner has as many dependents as it likes."""
    obj = next(iter(view.meta.index("uid", key)), None)
    graph = Graph(view.meta, {(r["group"], r["kind"]): r for r in env.settings["resources"]})
    if obj is None:
        yield from _collect(graph.dependents(key), graph)
    elif meta.is_deleting(obj):
        yield from _finish_deletion(obj, graph)
    elif meta.owner_references(obj):
        yield from _collect([obj], graph)


@frozen
class Graph:
    """The owner graph at the view's frontier. `kinds` maps (group, kind) to its discovery row.

    `found` are the objects of each uid that this plan has looked for, `asked` the owners that it has read live, by
    resource, namespace and name: many dependents have the same owner.
    """

    reader: fx.Reader
    kinds: Mapping[tuple[str, str], Json]
    found: dict[str, Sequence[Json]] = attrs.field(factory=dict)
    asked: dict[tuple[str, str, str], fx.Outcome] = attrs.field(factory=dict)

    def dependents(self, uid: str) -> Sequence[Json]:
        return self.reader.index("owner", uid)

    def row(self, api_version: str, kind: str) -> Json | None:
        return self.kinds.get((GroupVersion.parse(api_version).group, kind))

    def resource(self, obj: Json) -> str:
        row = self.row(obj["apiVersion"], obj["kind"])
        assert row is not None, f"an object of an unwatched kind: {obj['kind']}"
        return group_resource(row["group"], row["plural"])

    def of_uid(self, uid: str) -> Sequence[Json]:
        if uid not in self.found:
            self.found[uid] = self.reader.index("uid", uid)
        return self.found[uid]

    def owner(self, ref: Json, namespace: str) -> Json | None:
        """The owner in the cache, if the reference names it truly."""
        return named(ref, namespace, self.of_uid(ref["uid"]))

    def live(self, row: Json, namespace: str, name: str) -> Generator[fx.Effect, fx.Outcome, fx.Outcome]:
        """The owner past the cache; asked for once in a plan."""
        at = (group_resource(row["group"], row["plural"]), namespace, name)
        if at not in self.asked:
            self.asked[at] = yield fx.Live(*at)
        return self.asked[at]


def named(ref: Json, namespace: str, objects: Sequence[Json]) -> Json | None:
    """The one of these objects, all of the reference's uid, that has its kind, name and namespace too."""
    for obj in objects:
        same_kind = obj["kind"] == ref["kind"] and group_of(obj["apiVersion"]) == group_of(ref["apiVersion"])
        if same_kind and meta.name(obj) == ref["name"] and meta.namespace(obj) in ("", namespace):
            return obj
    return None


def group_of(api_version: str) -> str:
    return GroupVersion.parse(api_version).group


def _finish_deletion(obj: Json, graph: Graph) -> Steps:
    """An object that is going: let its dependents go first, or set them free, as its finalizers say."""
    finalizers, dependents = meta.finalizers(obj), graph.dependents(meta.uid(obj))
    if ORPHAN in finalizers:
        drops = [_drop_owners(d, graph, [meta.uid(obj)]) for d in dependents[:BURST]]
        outcome = yield fx.All(drops)
        freed = all(part.ok or (part.error and part.error.code in (404, 422)) for part in outcome.all)
        if freed and len(dependents) > BURST:
            yield fx.RequeueAfter(0)
        elif freed:
            yield _drop_finalizer(obj, graph, ORPHAN)
    elif FOREGROUND in finalizers:
        if any(_blocks(d, obj) for d in dependents):
            yield from _collect(dependents, graph)
        else:
            yield _drop_finalizer(obj, graph, FOREGROUND)


def _blocks(dependent: Json, owner: Json) -> bool:
    uid = meta.uid(owner)
    return any(
        ref["uid"] == uid and ref.get("blockOwnerDeletion") for ref in meta.owner_references(dependent)
    )


OwnerState = Literal["solid", "dangling", "waiting"]


def _collect(objects: Sequence[Json], graph: Graph) -> Steps:
    """Do with each of these what its owners demand; nothing with those that go already."""
    changes: list[fx.Patch | fx.Delete] = []
    for obj in objects:
        if not meta.is_deleting(obj):
            changes += yield from _demanded(obj, graph)
        if len(changes) >= BURST:
            break
    for kind in (fx.Patch, fx.Delete):
        if some := [change for change in changes if isinstance(change, kind)]:
            yield fx.All(some)
    if len(changes) >= BURST:
        yield fx.RequeueAfter(0)


def _demanded(obj: Json, graph: Graph) -> Generator[fx.Effect, fx.Outcome, Sequence[fx.Patch | fx.Delete]]:
    states: dict[OwnerState, list[str]] = {"solid": [], "dangling": [], "waiting": []}
    for ref in meta.owner_references(obj):
        state = yield from _state_of(ref, obj, graph)
        if state is None:
            return ()
        states[state].append(ref["uid"])
    dangling, waiting = states["dangling"], states["waiting"]
    if states["solid"]:
        return (_drop_owners(obj, graph, [*dangling, *waiting]),) if dangling or waiting else ()
    if waiting and (dependents := graph.dependents(meta.uid(obj))):
        return (*_break_circles(obj, dependents, graph), _delete(obj, graph, "Foreground"))
    return (_delete(obj, graph, _own_policy(obj)),)


def _state_of(ref: Json, obj: Json, graph: Graph) -> Generator[fx.Effect, fx.Outcome, OwnerState | None]:
    """What a reference points to; None when that cannot be told and the object has to stay."""
    namespace = meta.namespace(obj)
    owner = graph.owner(ref, namespace)
    if owner is None:
        row = graph.row(ref["apiVersion"], ref["kind"])
        if row is None:
            return None
        if row["namespaced"] and not namespace:
            yield fx.Event(obj, "Warning", "OwnerRefInvalidNamespace", _invalid_text(ref, namespace))
            return None
        at = namespace if row["namespaced"] else ""
        outcome = yield from graph.live(row, at, ref["name"])
        if outcome.error is not None:
            return None
        owner = outcome.object
        if owner is None or meta.uid(owner) != ref["uid"]:
            if row["namespaced"] and any(
                meta.namespace(o) not in ("", namespace) for o in graph.of_uid(ref["uid"])
            ):
                yield fx.Event(obj, "Warning", "OwnerRefInvalidNamespace", _invalid_text(ref, namespace))
            return "dangling"
    return "waiting" if waits(owner) else "solid"


def waits(obj: Json) -> bool:
    """Whether the object is going once its dependents are gone."""
    return meta.is_deleting(obj) and FOREGROUND in meta.finalizers(obj)


def _invalid_text(ref: Json, namespace: str) -> str:
    what = (
        f"[{ref['apiVersion']}/{ref['kind']}, namespace: {namespace}, name: {ref['name']}, uid: {ref['uid']}]"
    )
    return f'ownerRef {what} does not exist in namespace "{namespace}"'


def _break_circles(obj: Json, dependents: Sequence[Json], graph: Graph) -> Sequence[fx.Patch]:
    """A dependent that waits for this object in turn would block it for ever: unblock those references."""
    if not any(waits(dependent) for dependent in dependents):
        return ()
    refs = [{**ref, "blockOwnerDeletion": False} for ref in meta.owner_references(obj)]
    return (_patch(obj, graph, {"metadata": {"ownerReferences": refs, "uid": meta.uid(obj)}}),)


def _own_policy(obj: Json) -> Literal["Orphan", "Foreground", "Background"]:
    finalizers = meta.finalizers(obj)
    if ORPHAN in finalizers:
        return "Orphan"
    return "Foreground" if FOREGROUND in finalizers else "Background"


def _delete(obj: Json, graph: Graph, policy: Literal["Orphan", "Foreground", "Background"]) -> fx.Delete:
    return fx.Delete(
        graph.resource(obj),
        meta.namespace(obj),
        meta.name(obj),
        uid=meta.uid(obj),
        rv=obj["metadata"]["resourceVersion"],
        propagation=policy,
    )


def _drop_owners(obj: Json, graph: Graph, uids: Iterable[str]) -> fx.Patch:
    gone = frozenset(uids)
    refs = [ref for ref in meta.owner_references(obj) if ref["uid"] not in gone]
    return _patch(obj, graph, {"metadata": {"ownerReferences": refs or None, "uid": meta.uid(obj)}})


def _drop_finalizer(obj: Json, graph: Graph, finalizer: str) -> fx.Patch:
    kept = [f for f in meta.finalizers(obj) if f != finalizer]
    return _patch(obj, graph, {"metadata": {"finalizers": kept or None, "uid": meta.uid(obj)}})


def _patch(obj: Json, graph: Graph, patch: Json) -> fx.Patch:
    """A merge patch that replaces a whole list is only sound on the version it was read from."""
    rv = obj["metadata"]["resourceVersion"]
    return fx.Patch(graph.resource(obj), meta.namespace(obj), meta.name(obj), patch, uid=meta.uid(obj), rv=rv)


def affected(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """Whom a change concerns: the object itself, owners that it no longer blocks; after its end it stands for its dependents."""
    reader: fx.Reader = readers["meta"]
    if new is None:
        assert old is not None
        uid = meta.uid(old)
        return [*([uid] if reader.index("owner", uid) else []), *_waiting_owners(reader, old)]
    keys: list[str] = []
    if old is not None and meta.uid(old) != meta.uid(new):
        keys += affected(old, None, readers)
        old = None
    if old is not None and _same_links(old, new):
        return keys
    if _is_unsettled(new, reader):
        keys.append(meta.uid(new))
    if old is not None and meta.owner_references(old) != meta.owner_references(new):
        keys += _waiting_owners(reader, old)
    return keys


def _same_links(old: Json, new: Json) -> bool:
    """Most updates concern nobody in the graph: same owners, same finalizers, still not (or already) going."""
    before, after = old["metadata"], new["metadata"]
    return all(before.get(f) == after.get(f) for f in ("ownerReferences", "finalizers", "deletionTimestamp"))


def _is_unsettled(obj: Json, reader: fx.Reader) -> bool:
    """Whether there may be something to do: for one that goes, with its dependents; else one of its owners is not plainly there."""
    if meta.is_deleting(obj):
        return ORPHAN in meta.finalizers(obj) or FOREGROUND in meta.finalizers(obj)
    for ref in meta.owner_references(obj):
        owner = named(ref, meta.namespace(obj), reader.index("uid", ref["uid"]))
        if owner is None or waits(owner):
            return True
    return False


def _waiting_owners(reader: fx.Reader, obj: Json) -> list[str]:
    uids = [ref["uid"] for ref in meta.owner_references(obj)]
    return [uid for uid in uids if any(waits(owner) for owner in reader.index("uid", uid))]


CONTROLLER = Controller(
    name="garbage-collector-controller",
    identity="generic-garbage-collector",
    plan=plan,
    watches={
        "meta": Everything(
            keys=affected,
            indexes={
                "uid": lambda obj: [meta.uid(obj)],
                "owner": lambda obj: [ref["uid"] for ref in meta.owner_references(obj)],
            },
        )
    },
    workers=20,
    settings={"resources": ()},
)
