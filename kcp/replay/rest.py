"""What must hold once nobody does anything any more: a cluster at rest.

Whether it has come to rest at all says `settled.py`; here is what finds faults in one that has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kcp.api.context import Server
from kcp.client.cache.shared_informer import InformerFactory
from kcp.controllers import effects as fx
from kcp.controllers.decisions import describe
from kcp.controllers.driver import ControllerRun, controlled_by
from kcp.controllers.sources import Everything, Fan, Owned, Self, Timer
from kcp.machinery import meta
from kcp.replay.incident import Incident
from kcp.replay.run import remake_all
from kcp.replay.settled import everything
from kcp.store.log import EventLog
from kcp.store.protocol import Key, Store

Json = dict[str, Any]


def dependents_of_nobody(store: EventLog) -> Iterator[str]:
    """Objects whose owners are all gone; one that is being deleted is on its way (`unsettled` knows what holds it)."""
    uids = {record.uid for record in everything(store)}
    for record in everything(store):
        owners = meta.owner_references(record.value)
        if owners and not meta.is_deleting(record.value) and not any(ref["uid"] in uids for ref in owners):
            yield f"{record.key} outlives {', '.join(ref['kind'] + ' ' + ref['name'] for ref in owners)}"


def stale_caches(store: Store, informers: InformerFactory) -> Iterator[str]:
    """Caches that differ from the log."""
    for watched, informer in informers.informers.items():
        if watched.namespace or watched.label_selector or watched.field_selector:
            continue
        have = {meta.key_of(o): o["metadata"]["resourceVersion"] for o in informer.indexer}
        real = {meta.key_of(r.value): str(r.rv) for r in store.list(watched.resource)}
        wrong = sorted(k for k in {**have, **real} if have.get(k) != real.get(k))
        if wrong:
            first = wrong[0]
            yield f"the cache of {watched.resource} has {first} at {have.get(first)}, the log at {real.get(first)}"


def unfinished_plans(server: Server, runs: Sequence[ControllerRun]) -> Iterator[str]:
    """Decisions that would change something although everything is as it should be."""
    for run in runs:
        for key in keys_of(run):
            for effect in dry_plan(server, run, key):
                target = {k: v for k, v in describe(effect).items() if k != "digest"}
                yield f"{run.controller.name} {key} would {target}"


def keys_of(run: ControllerRun) -> list[str]:
    """Every key that the controller has something to say about, in order of its sources."""
    keys: list[str] = []
    for name, source in run.controller.watches.items():
        if isinstance(source, Timer):
            keys.append(source.key)
            continue
        for obj in run.view[name].list():
            if isinstance(source, Self):
                keys.append(meta.key_of(obj))
            elif isinstance(source, Owned):
                key = controlled_by(obj, source.owner_kind, source.owner_group)
                keys += [key] if key is not None else []
            elif isinstance(source, Everything) or (isinstance(source, Fan) and source.keys is not None):
                assert source.keys is not None
                keys += source.keys(None, obj, run.readers)
    return list(dict.fromkeys(keys))


def dry_plan(server: Server, run: ControllerRun, key: str) -> list[fx.Effect]:
    """What the controller would change now; nothing is written, live reads are answered from the log."""
    env = run.environment(key)
    plan = run.controller.plan(key, run.view, env)
    changes: list[fx.Effect] = []
    effect = fx.advance(plan, None)
    while effect is not None:
        changes += [part for part in _parts(effect) if _changes(part)]
        effect = fx.advance(plan, _answer(server.store, effect))
    return changes


def _parts(effect: fx.Effect) -> Sequence[fx.Effect]:
    return effect.effects if isinstance(effect, fx.All) else (effect,)


def _changes(effect: fx.Effect) -> bool:
    if isinstance(effect, fx.Status):
        return bool(effect.object.get("status") != effect.status)
    return isinstance(effect, (fx.Create, fx.Update, fx.Patch, fx.Delete, fx.Request))


def _answer(store: Store, effect: fx.Effect) -> fx.Outcome:
    if isinstance(effect, fx.All):
        return fx.Outcome(all=[_answer(store, part) for part in effect.effects])
    if isinstance(effect, fx.Live):
        record = store.get(Key(effect.resource, effect.namespace, effect.name))
        return fx.Outcome(object=record.value if record else None)
    if isinstance(effect, fx.LiveList):
        return fx.Outcome(items=[r.value for r in store.list(effect.resource, effect.namespace or None)])
    if isinstance(effect, fx.Status):
        return fx.Outcome(object={**effect.object, "status": effect.status})
    if isinstance(effect, fx.Update):
        return fx.Outcome(object=effect.object)
    return fx.Outcome()


def diverging_decisions(incident: Incident) -> Iterator[str]:
    """Decisions of the run that its own log does not explain."""
    for result in remake_all(incident):
        if result.divergence is not None:
            d = result.divergence
            yield (
                f"decision {d.decision.id} of {d.decision.controller} for {d.decision.key}, effect {d.index}: "
                f"recorded {_short(d.recorded)}, re-made {_short(d.ours)} {d.error}"
            )


def _short(effect: Mapping[str, Any] | None) -> str:
    if effect is None:
        return "nothing"
    return str(
        {k: effect[k] for k in ("kind", "resource", "namespace", "name", "digest", "args") if k in effect}
    )
