"""Recorded requests, asked again: what somebody from outside had changed, of a cluster that may have become another.

A creation is a POST of what was created. A change is made of what is there now, field by field and item by item, so that
what others have changed meanwhile stays theirs. What was applied is applied. Every request comes from who had made it,
under the same field manager, through the same door.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import anyio
import attrs
import orjson

from kcp.api.auth.protocol import MASTERS, UserInfo
from kcp.client.client import Client
from kcp.machinery import meta
from kcp.machinery.errors import ApiError
from kcp.machinery.patch.merge_patch import diff_merge_patch
from kcp.machinery.paths import SELF
from kcp.replay.equality import UID
from kcp.replay.outside import Asked
from kcp.store.protocol import Actor, Key, Store

Json = dict[str, Any]
TIMEOUT_S = 30.0
PODS = "pods"
UID_LENGTH = 36
_SERVERS_OWN = frozenset(
    {"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink",
     "deletionTimestamp", "deletionGracePeriodSeconds"}
)  # fmt: skip
_PROPAGATION = {"foregroundDeletion": "Foreground", "orphan": "Orphan"}
_DERIVED_LABELS = frozenset(
    {"controller-uid", "batch.kubernetes.io/controller-uid", "job-name", "batch.kubernetes.io/job-name"}
)
_KEYS = (
    "uid",
    "name",
    "type",
    "key",
    "ip",
    "containerPort",
    "port",
    "mountPath",
    "devicePath",
    "topologyKey",
)
"""What tells the items of a list apart, in the order in which they are tried."""


@attrs.define
class Asking:
    """`client_for` gives a client under an identity and a user agent. `said` has a line per request that was refused."""

    client_for: Callable[[UserInfo, str], Client]
    store: Callable[[], Store]
    uids: Mapping[str, Key]
    """Where the recorded objects of these uids are."""
    said: list[str] = attrs.field(factory=list)
    asked: int = 0

    async def ask(self, asked: Asked) -> None:
        """A refusal is an answer, as it was for whoever asked; it is noted."""
        self.asked += 1
        client = self.client_for(user_of(asked.actor), asked.actor.user_agent or "kcp")
        try:
            with anyio.fail_after(TIMEOUT_S):
                await self._send(client, self._translated(asked))
        except ApiError as error:
            self.said.append(f"{asked.key} by {_who(asked.actor)}: {error.reason}: {error.message}")
        except TimeoutError:
            self.said.append(f"{asked.key} by {_who(asked.actor)}: no answer")

    async def _send(self, client: Client, asked: Asked) -> None:
        before, after = asked.before, asked.after
        if after is None and before is not None and not meta.is_deleting(before):
            await _delete(client, asked, before, at_once=asked.key.resource == PODS)
        elif after is None or before is None:
            await (_create(client, asked) if after is not None else _without_finalizers(client, asked))
        elif meta.is_deleting(after) and not meta.is_deleting(before):
            await (_evict if _is_evicted(before, after) else _delete)(client, asked, after)
        elif asked.key.resource == PODS and _node(after) and not _node(before):
            await _bind(client, asked)
        else:
            await _change(client, asked)

    def _translated(self, asked: Asked) -> Asked:
        """With the uids that the objects have now, also where they are part of a name."""
        key = attrs.evolve(asked.key, name=self._text(asked.key.name))
        after = None if asked.after is None else _replaced(asked.after, self._text)
        return attrs.evolve(asked, key=key, after=after)

    def _text(self, text: str) -> str:
        return UID.sub(lambda found: self._uid(found[0]), text) if len(text) >= UID_LENGTH else text

    def _uid(self, uid: str) -> str:
        key = self.uids.get(uid)
        record = None if key is None else self.store().get(key)
        return uid if record is None else record.uid


def _who(actor: Actor) -> str:
    return actor.username or "somebody"


def user_of(actor: Actor) -> UserInfo:
    """Of whom no groups are known, it is not known either that anything was forbidden to them."""
    return UserInfo(actor.username, groups=actor.groups or (MASTERS,))


def _node(pod: Json) -> Any:
    return (pod.get("spec") or {}).get("nodeName")


def _replaced(value: Any, text: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, dict):
        return {name: _replaced(item, text) for name, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, text) for item in value]
    return value


# --- one kind of request each ---


async def _create(client: Client, asked: Asked) -> None:
    after = asked.last
    entry = _entry_of(None, after, asked.actor)
    own = {after["metadata"].get("uid")} | ({asked.key.name} if asked.key.resource == "jobs.batch" else set())
    body = _without_own(_without(after, _SERVERS_OWN), own)
    if entry is not None and entry.get("operation") == "Apply":
        await _apply(client, asked, entry)
        return
    await client.create(
        asked.key.resource, body, asked.key.namespace, field_manager=asked.actor.field_manager
    )


async def _apply(client: Client, asked: Asked, entry: Json) -> None:
    after = asked.last
    mentioned = extract(after, entry.get("fieldsV1") or {})
    name = {field: after["metadata"][field] for field in ("name", "namespace") if field in after["metadata"]}
    body = {
        "apiVersion": entry.get("apiVersion") or after["apiVersion"],
        "kind": after["kind"],
        **mentioned,
        "metadata": {**mentioned.get("metadata", {}), **name},
    }
    await client.patch(
        asked.key.resource, asked.key.name, body, "apply", asked.key.namespace, force=True,
        field_manager=str(entry.get("manager") or asked.actor.field_manager), subresource=entry.get("subresource") or "",
    )  # fmt: skip


async def _delete(client: Client, asked: Asked, state: Json, at_once: bool = False) -> None:
    metadata = state["metadata"]
    found = (_PROPAGATION[each] for each in meta.finalizers(state) if each in _PROPAGATION)
    propagation = next(found, "Background")
    grace_s = 0 if at_once else metadata.get("deletionGracePeriodSeconds")
    if asked.key.resource != PODS:
        grace_s = None
    await client.delete(
        asked.key.resource, asked.key.name, asked.key.namespace, propagation=propagation, grace_s=grace_s
    )


def _is_evicted(before: Json, after: Json) -> bool:
    new, old = meta.condition(after, "DisruptionTarget"), meta.condition(before, "DisruptionTarget")
    return old is None and new is not None and new.get("reason") == "EvictionByEvictionAPI"


async def _evict(client: Client, asked: Asked, after: Json) -> None:
    del after
    name, namespace = asked.key.name, asked.key.namespace
    metadata = {"name": name, "namespace": namespace}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    await client.create(PODS, eviction, namespace, name=name, subresource="eviction")


async def _bind(client: Client, asked: Asked) -> None:
    name, namespace = asked.key.name, asked.key.namespace
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name, "namespace": namespace},
        "target": {"apiVersion": "v1", "kind": "Node", "name": _node(asked.last)},
    }
    await client.create(PODS, binding, namespace, name=name, subresource="binding")


async def _without_finalizers(client: Client, asked: Asked) -> None:
    """The object went because its last finalizer was taken away."""
    patch = {"metadata": {"finalizers": None}}
    await _patch(client, asked, patch, "finalize" if asked.key.resource == "namespaces" else "")


async def _change(client: Client, asked: Asked) -> None:
    before, after = asked.before, asked.last
    assert before is not None, "a change has two sides"
    entry = _entry_of(before, after, asked.actor)
    if entry is not None and entry.get("operation") == "Apply":
        await _apply(client, asked, entry)
        return
    subresource = str(entry.get("subresource") or "") if entry is not None else _subresource(before, after)
    current = await client.get(asked.key.resource, asked.key.name, asked.key.namespace)
    patch = patch_of(before, after, current)
    if subresource == "scale":
        patch = {"spec": {"replicas": (after.get("spec") or {}).get("replicas")}}
    elif subresource == "status":
        patch = {name: patch[name] for name in ("status", "metadata") if name in patch}
    if patch:
        await _patch(client, asked, patch, subresource)


def patch_of(before: Json, after: Json, current: Json) -> Json:
    """The merge patch that does to `current` what was done to `before`; {} for nothing."""
    old, new, now = (_without(obj, _SERVERS_OWN) for obj in (before, after, current))
    patch: Json = diff_merge_patch(now, rebased(old, new, now))
    return patch


async def _patch(client: Client, asked: Asked, patch: Json, subresource: str) -> None:
    key = asked.key
    await client.patch(
        key.resource, key.name, patch, "merge", key.namespace, subresource=subresource,
        field_manager=asked.actor.field_manager,
    )  # fmt: skip


def _subresource(before: Json, after: Json) -> str:
    """Without managed fields to tell it: what changed only in the status was changed there."""
    changed = [
        name for name in {**before, **after} if name != "metadata" and before.get(name) != after.get(name)
    ]
    return "status" if changed == ["status"] else ""


def _entry_of(before: Json | None, after: Json, actor: Actor) -> Json | None:
    """The entry of managedFields that the request has written: of its manager, and other than before."""
    known = [] if before is None else before["metadata"].get("managedFields") or []
    news = [entry for entry in after["metadata"].get("managedFields") or [] if entry not in known]
    own = [entry for entry in news if entry.get("manager") == actor.field_manager]
    return next(iter(own), None)


def _without(obj: Json, fields: frozenset[str]) -> Json:
    metadata = {name: value for name, value in obj["metadata"].items() if name not in fields}
    return {**obj, "metadata": metadata}


def _without_own(value: Any, own: AbstractSet[Any]) -> Any:
    """Without what the server derives from an object itself, such as the selector and the labels of a Job."""
    if isinstance(value, dict):
        kept = {
            name: _without_own(item, own)
            for name, item in value.items()
            if name not in _DERIVED_LABELS or item not in own
        }
        return {name: item for name, item in kept.items() if item or not value[name]}
    if isinstance(value, list):
        return [_without_own(item, own) for item in value]
    return value


# --- what was changed, of something else ---


def rebased(before: Any, after: Any, current: Any) -> Any:
    """What `current` becomes when it is changed as `before` was changed into `after`."""
    if before == after:
        return current
    if isinstance(after, dict) and isinstance(before, dict) and isinstance(current, dict):
        found = dict(current)
        for name in {**before, **after}:
            if name not in after:
                found.pop(name, None)
            elif before.get(name) != after[name] or name not in before:
                found[name] = rebased(before.get(name), after[name], current.get(name))
        return found
    if (
        isinstance(after, list)
        and isinstance(before, list)
        and isinstance(current, list)
        and current != before
    ):
        return _rebased_list(before, after, current)
    return after


def _rebased_list(before: list[Any], after: list[Any], current: list[Any]) -> list[Any]:
    key = _key_of([*before, *after, *current])
    if key is None:
        return after
    old, new = ({_id(item, key): item for item in items} for items in (before, after))
    found = []
    for item in current:
        known = _id(item, key)
        if known in new:
            found.append(rebased(old.get(known), new[known], item) if known in old else new[known])
        elif known not in old:
            found.append(item)
    have = {_id(item, key) for item in current}
    return found + [item for known, item in new.items() if known not in have and known not in old]


def _key_of(items: Sequence[Any]) -> str | None:
    """What tells the items apart: a field that all have, "" for plain values, None for nothing."""
    if not any(isinstance(item, (dict, list)) for item in items):
        return ""
    if not all(isinstance(item, dict) for item in items):
        return None
    return next((key for key in _KEYS if all(key in item for item in items)), None)


def _id(item: Any, key: str) -> str:
    return orjson.dumps(item[key] if key else item).decode()


# --- what was applied ---

_ABSENT: Any = object()


def extract(value: Any, fields: Json) -> Any:
    """The part of a value that a field set (fieldsV1) names: what its manager had applied. `{}` names all of it."""
    if not fields:
        return value
    inner = {element: child for element, child in fields.items() if element != SELF}
    if isinstance(value, list):
        found = [_extract_item(item, inner) for item in value]
        return [item for item in found if item is not _ABSENT]
    if not isinstance(value, dict):
        return value
    names = {element[2:]: child for element, child in inner.items() if element.startswith("f:")}
    return {name: extract(value[name], child) for name, child in names.items() if name in value}


def _extract_item(item: Any, inner: Json) -> Any:
    for element, child in inner.items():
        kind, _, text = element.partition(":")
        wanted: Any = orjson.loads(text) if kind in ("k", "v") else None
        if kind == "v" and item == wanted:
            return item
        if kind == "k" and isinstance(item, dict) and all(item.get(n) == v for n, v in wanted.items()):
            return {**{name: item[name] for name in wanted if name in item}, **extract(item, child)}
    return _ABSENT
