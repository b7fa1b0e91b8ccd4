"""Run planners without a loop: objects in, effects out.

    world = World(deployment("web", replicas=3))
    effects = world.plan(CONTROLLER, "default/web")
    world.get("replicasets.apps", "default/web-abc")

The world applies writes the simplest way that keeps a planner honest (uids, resourceVersions, generations); admission,
defaulting and garbage collection are other people's tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from kcp.apis.catalog import build_catalog
from kcp.client.cache.indexer import Indexer, Tally
from kcp.controllers import effects as fx
from kcp.controllers.sources import Controller, Everything, Timer, indexes_of, tallies_of
from kcp.controllers.view import IndexReader, ManyReader, Readers
from kcp.machinery import meta
from kcp.machinery.errors import AlreadyExists, ApiError, Conflict, NotFound
from kcp.machinery.patch.merge_patch import apply_merge_patch

Json = dict[str, Any]
CATALOG = build_catalog()
START = datetime(2026, 1, 1, tzinfo=UTC)


def rows() -> list[Json]:
    """The served resources as controllers get them in their settings."""
    return [
        {
            "resource": kind.resource,
            "group": kind.group,
            "version": kind.version,
            "kind": kind.kind,
            "plural": kind.plural,
            "namespaced": kind.namespaced,
            "verbs": list(kind.verbs),
        }
        for kind in CATALOG.kinds()
        if kind.stored
    ]


def resource_of(obj: Json) -> str:
    group, _, version = obj["apiVersion"].rpartition("/")
    kind = CATALOG.by_kind(group, version, obj["kind"])
    assert kind is not None, obj["kind"]
    return kind.resource


class World:
    """Objects by resource and key, a clock that tests move, and memos that live between plans."""

    def __init__(self, *objects: Json) -> None:
        self.now = START
        self.rv = 0
        self.objects: dict[str, dict[str, Json]] = {}
        self.memos: dict[tuple[str, str], Json] = {}
        self.fail: dict[type, ApiError] = {}
        self.answers: dict[str, Json | ApiError] = {}
        """What `provider/call` of an External and `METHOD path` of a Request give."""
        for obj in objects:
            self.put(obj)

    def put(self, obj: Json) -> Json:
        """Insert or replace; fills in what the server would."""
        self.rv += 1
        metadata = {
            "uid": f"uid-{self.rv}",
            "creationTimestamp": (self.now + timedelta(seconds=self.rv)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "generation": 1,
            **obj["metadata"],
            "resourceVersion": str(self.rv),
        }
        if "name" not in metadata:
            metadata["name"] = f"{metadata.pop('generateName')}{self.rv:05d}"
        stored = {**obj, "metadata": metadata}
        self.objects.setdefault(resource_of(obj), {})[meta.key_of(stored)] = stored
        return stored

    def get(self, resource: str, key: str) -> Json:
        return self.objects[resource][key]

    def all(self, resource: str) -> list[Json]:
        return [obj for _, obj in sorted(self.objects.get(resource, {}).items())]

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def plan(
        self, controller: Controller, key: str, settings: Mapping[str, Any] | None = None
    ) -> list[fx.Effect]:
        """One decision; the effects in order, those inside All flattened."""
        merged = {**controller.settings, **(settings or {})}
        if "resources" in merged:
            merged["resources"] = rows()
        env = fx.Env(self.now, self.memos.get((controller.name, key)), merged, controller.name)
        plan = controller.plan(key, self.view(controller), env)
        done: list[fx.Effect] = []
        effect = fx.advance(plan, None)
        while effect is not None:
            outcome = self.perform(controller, key, effect)
            done.extend(flatten(effect, outcome))
            effect = fx.advance(plan, outcome)
        return done

    def view(self, controller: Controller) -> Readers:
        readers: dict[str, Any] = {}
        for name, source in controller.watches.items():
            if isinstance(source, Timer):
                continue
            if isinstance(source, Everything):
                parts = {r["resource"]: self._reader(r["resource"], source.indexes) for r in rows()}
                readers[name] = ManyReader(parts)
                continue
            readers[name] = self._reader(source.resource, indexes_of(source, ""), tallies_of(source, ""))
        return Readers(readers)

    def _reader(
        self, resource: str, indexes: Mapping[str, Any], tallies: Mapping[str, Tally] = {}
    ) -> IndexReader:
        indexer = Indexer(indexes)
        indexer.add_tallies(tallies)
        indexer.replace(self.all(resource), self.rv)
        return IndexReader(indexer, "")

    def perform(self, controller: Controller, key: str, effect: fx.Effect) -> fx.Outcome:
        if isinstance(effect, fx.All):
            return fx.Outcome(all=[self.perform(controller, key, part) for part in effect.effects])
        if type(effect) in self.fail:
            return fx.Outcome(error=self.fail[type(effect)])
        if isinstance(effect, fx.Memo):
            if effect.value is None:
                self.memos.pop((controller.name, key), None)
            else:
                self.memos[(controller.name, key)] = effect.value
            return fx.Outcome()
        try:
            return self._write(effect)
        except ApiError as error:
            return fx.Outcome(error=error)

    def _write(self, effect: fx.Effect) -> fx.Outcome:
        if isinstance(effect, fx.Create):
            return self._create(effect)
        if isinstance(effect, fx.Update):
            return self._changed(self._replace(effect.resource, effect.object, effect.subresource))
        if isinstance(effect, fx.Status):
            if effect.object.get("status") == effect.status:
                return fx.Outcome(object=effect.object)
            return self._changed(
                self._replace(effect.resource, {**effect.object, "status": effect.status}, "status")
            )
        if isinstance(effect, fx.Patch):
            return self._patch(effect)
        if isinstance(effect, fx.Delete):
            self.objects.get(effect.resource, {}).pop(_key(effect.namespace, effect.name), None)
            self.rv += 1
            return fx.Outcome(rv=self.rv)
        if isinstance(effect, fx.Live):
            return fx.Outcome(
                object=self.objects.get(effect.resource, {}).get(_key(effect.namespace, effect.name))
            )
        if isinstance(effect, (fx.External, fx.Request)):
            return self._answer(effect)
        if isinstance(effect, fx.LiveList):
            items = [o for o in self.all(effect.resource) if effect.namespace in ("", meta.namespace(o))]
            return fx.Outcome(items=items)
        return fx.Outcome()

    def _answer(self, effect: fx.External | fx.Request) -> fx.Outcome:
        if isinstance(effect, fx.External):
            name = f"{effect.provider}/{effect.call}"
        else:
            name = f"{effect.method} {effect.path}"
        answer = self.answers.get(name)
        if isinstance(answer, ApiError):
            raise answer
        return fx.Outcome(object=answer)

    def _create(self, effect: fx.Create) -> fx.Outcome:
        metadata = {**effect.object["metadata"]}
        if effect.namespace:
            metadata["namespace"] = effect.namespace
        obj = {**effect.object, "metadata": metadata}
        if "name" in metadata and meta.key_of(obj) in self.objects.get(effect.resource, {}):
            raise AlreadyExists.of("", effect.resource, metadata["name"])
        return self._changed(self.put(obj))

    def _replace(self, resource: str, obj: Json, subresource: str) -> Json:
        current = self.objects.get(resource, {}).get(meta.key_of(obj))
        if current is None:
            raise NotFound.of("", resource, meta.name(obj))
        if current["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
            raise Conflict.of("", resource, meta.name(obj))
        if subresource == "status":
            merged = {**current, "status": obj["status"], "metadata": obj["metadata"]}
        else:
            merged = {**obj, **({"status": current["status"]} if "status" in current else {})}
        if merged.get("spec") != current.get("spec"):
            generation = current["metadata"]["generation"] + 1
            merged = {**merged, "metadata": {**merged["metadata"], "generation": generation}}
        return self.put(merged)

    def _patch(self, effect: fx.Patch) -> fx.Outcome:
        current = self.objects.get(effect.resource, {}).get(_key(effect.namespace, effect.name))
        if current is None:
            raise NotFound.of("", effect.resource, effect.name)
        if effect.rv and effect.rv != current["metadata"]["resourceVersion"]:
            raise Conflict.of("", effect.resource, effect.name)
        if effect.type == "strategic":
            return self._changed(self.put(_strategic(current, effect.patch)))
        return self._changed(self.put(apply_merge_patch(current, effect.patch)))

    def _changed(self, obj: Json) -> fx.Outcome:
        return fx.Outcome(object=obj, rv=int(obj["metadata"]["resourceVersion"]))


def _strategic(current: Json, patch: Json) -> Json:
    from kcp.machinery.gvk import GroupVersion, GroupVersionKind
    from kcp.machinery.patch.strategic import strategic_merge
    from kcp.machinery.schema.compile import schema_for

    gv = GroupVersion.parse(current["apiVersion"])
    schema = schema_for(GroupVersionKind(gv.group, gv.version, current["kind"]))
    assert schema is not None
    merged: Json = strategic_merge(current, patch, schema)
    return merged


def _key(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


def flatten(effect: fx.Effect, outcome: fx.Outcome) -> Iterator[fx.Effect]:
    if isinstance(effect, fx.All):
        for part, part_outcome in zip(effect.effects, outcome.all, strict=True):
            yield from flatten(part, part_outcome)
    else:
        yield effect


def of_type(effects: Sequence[fx.Effect], kind: type) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, kind)]


def writes(effects: Sequence[fx.Effect]) -> list[fx.Effect]:
    """Effects that change something (a Status equal to what is there is none)."""
    changing = (fx.Create, fx.Update, fx.Patch, fx.Delete)
    return [
        e
        for e in effects
        if isinstance(e, changing) or (isinstance(e, fx.Status) and e.object.get("status") != e.status)
    ]


def events(effects: Sequence[fx.Effect]) -> list[tuple[str, str]]:
    return [(e.reason, e.message) for e in effects if isinstance(e, fx.Event)]
