"""Garbage collector: objects whose owners are all gone go too; deletion orders the graph asks for are kept.

The graph is an incremental index over the metadata of every resource: uid -> object, owner uid -> dependents. A key is
the uid of an object. An owner that the cache does not know under these coordinates is read live once before anything
is deleted, so neither a lagging cache nor a mistyped reference costs an object its life.
Source: k8s v1.36 pkg/controller/garbagecollector/{garbagecollector,graph_builder}.go.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Literal

from kcp.base.values import frozen
from kcp.controllers import effects as fx
from kcp.controllers.sources import Controller, Everything
from kcp.machinery import meta
from kcp.machinery.gvk import GroupVersion, group_resource

Json = dict[str, Any]
Steps = Generator[fx.Effect, fx.Outcome, None]
ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    obj = next(iter(view.meta.index("uid", key)), None)
    if obj is None:
        return
    graph = Graph(view.meta, {(r["group"], r["kind"]): r for r in env.settings["resources"]})
    if meta.is_deleting(obj):
        yield from _finish_deletion(obj, graph)
    elif meta.owner_references(obj):
        yield from _collect(obj, graph)


@frozen
class Graph:
    """The owner graph at the view's frontier. `kinds` maps (group, kind) to its discovery row."""

    reader: fx.Reader
    kinds: Mapping[tuple[str, str], Json]

    def dependents(self, uid: str) -> Sequence[Json]:
        return self.reader.index("owner", uid)

    def row(self, api_version: str, kind: str) -> Json | None:
        return self.kinds.get((GroupVersion.parse(api_version).group, kind))

    def resource(self, obj: Json) -> str:
        row = self.row(obj["apiVersion"], obj["kind"])
        assert row is not None, f"an object of an unwatched kind: {obj['kind']}"
        return group_resource(row["group"], row["plural"])

    def owner(self, ref: Json, namespace: str) -> Json | None:
        """The owner in the cache, if the reference names it truly: uid, kind, name and namespace."""
        for obj in self.reader.index("uid", ref["uid"]):
            same_kind = obj["kind"] == ref["kind"] and group_of(obj["apiVersion"]) == group_of(
                ref["apiVersion"]
            )
            if same_kind and meta.name(obj) == ref["name"] and meta.namespace(obj) in ("", namespace):
                return obj
        return None


def group_of(api_version: str) -> str:
    return GroupVersion.parse(api_version).group


def _finish_deletion(obj: Json, graph: Graph) -> Steps:
    """An object that is going: let its dependents go first, or set them free, as its finalizers say."""
    finalizers = meta.finalizers(obj)
    if ORPHAN in finalizers:
        drops = [_drop_owners(d, graph, [meta.uid(obj)]) for d in graph.dependents(meta.uid(obj))]
        outcome = yield fx.All(drops)
        if all(part.ok or (part.error and part.error.code in (404, 422)) for part in outcome.all):
            yield _drop_finalizer(obj, graph, ORPHAN)
    elif FOREGROUND in finalizers and not any(_blocks(d, obj) for d in graph.dependents(meta.uid(obj))):
        yield _drop_finalizer(obj, graph, FOREGROUND)


def _blocks(dependent: Json, owner: Json) -> bool:
    uid = meta.uid(owner)
    return any(
        ref["uid"] == uid and ref.get("blockOwnerDeletion") for ref in meta.owner_references(dependent)
    )


OwnerState = Literal["solid", "dangling", "waiting"]


def _collect(obj: Json, graph: Graph) -> Steps:
    states: dict[OwnerState, list[str]] = {"solid": [], "dangling": [], "waiting": []}
    for ref in meta.owner_references(obj):
        state = yield from _state_of(ref, obj, graph)
        if state is None:
            return
        states[state].append(ref["uid"])
    dangling, waiting = states["dangling"], states["waiting"]
    if states["solid"]:
        if dangling or waiting:
            yield _drop_owners(obj, graph, [*dangling, *waiting])
    elif waiting and graph.dependents(meta.uid(obj)):
        yield from _break_circles(obj, graph)
        yield _delete(obj, graph, "Foreground")
    else:
        yield _delete(obj, graph, _own_policy(obj))


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
        outcome = yield fx.Live(group_resource(row["group"], row["plural"]), at, ref["name"])
        if outcome.error is not None:
            return None
        owner = outcome.object
        if owner is None or meta.uid(owner) != ref["uid"]:
            if row["namespaced"] and any(
                meta.namespace(o) not in ("", namespace) for o in graph.reader.index("uid", ref["uid"])
            ):
                yield fx.Event(obj, "Warning", "OwnerRefInvalidNamespace", _invalid_text(ref, namespace))
            return "dangling"
    return "waiting" if meta.is_deleting(owner) and FOREGROUND in meta.finalizers(owner) else "solid"


def _invalid_text(ref: Json, namespace: str) -> str:
    what = (
        f"[{ref['apiVersion']}/{ref['kind']}, namespace: {namespace}, name: {ref['name']}, uid: {ref['uid']}]"
    )
    return f'ownerRef {what} does not exist in namespace "{namespace}"'


def _break_circles(obj: Json, graph: Graph) -> Steps:
    """A dependent that waits for this object in turn would block it for ever: unblock those references."""
    if not any(
        meta.is_deleting(d) and FOREGROUND in meta.finalizers(d) for d in graph.dependents(meta.uid(obj))
    ):
        return
    refs = [{**ref, "blockOwnerDeletion": False} for ref in meta.owner_references(obj)]
    yield _patch(obj, graph, {"metadata": {"ownerReferences": refs, "uid": meta.uid(obj)}})


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
    """Which objects a change concerns: itself, owners it no longer blocks, dependents of what goes."""
    if new is None:
        assert old is not None
        return [*_dependents(readers, meta.uid(old)), *_waiting_owners(readers, old)]
    keys: list[str] = []
    if old is not None and meta.uid(old) != meta.uid(new):
        keys += affected(old, None, readers)
        old = None
    if old is not None and _same_links(old, new):
        return []
    if meta.owner_references(new) or meta.is_deleting(new):
        keys.append(meta.uid(new))
    if old is not None and meta.owner_references(old) != meta.owner_references(new):
        keys += _waiting_owners(readers, old)
    if _starts_foreground(old, new):
        keys += _dependents(readers, meta.uid(new))
    return keys


def _same_links(old: Json, new: Json) -> bool:
    """Most updates concern nobody in the graph: same owners, same finalizers, still not (or already) going."""
    before, after = old["metadata"], new["metadata"]
    return all(before.get(f) == after.get(f) for f in ("ownerReferences", "finalizers", "deletionTimestamp"))


def _starts_foreground(old: Json | None, new: Json) -> bool:
    def waits(obj: Json) -> bool:
        return meta.is_deleting(obj) and FOREGROUND in meta.finalizers(obj)

    return waits(new) and not (old is not None and waits(old))


def _dependents(readers: Mapping[str, Any], uid: str) -> list[str]:
    return [meta.uid(obj) for obj in readers["meta"].index("owner", uid)]


def _waiting_owners(readers: Mapping[str, Any], obj: Json) -> list[str]:
    uids = [ref["uid"] for ref in meta.owner_references(obj)]
    return [uid for uid in uids if any(meta.is_deleting(o) for o in readers["meta"].index("uid", uid))]


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
