"""ResourceQuota: what a namespace may use, counted in the same transaction as the object that uses it.

The difference an object makes is added to `status.used` of every quota that counts it, as a companion change of the
write; so usage never drifts and two creates never pass the same limit. Where `used` is not known yet, it is summed up.
Source: k8s v1.36 apiserver/pkg/admission/plugin/resourcequota/controller.go, pkg/quota/v1/evaluator/core.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from kcp.api.admission.plugin import Attributes, Companion, refused
from kcp.apis.semantics import pods
from kcp.apis.semantics.quota import UNCOUNTED, Usage, compute, counted
from kcp.base.values import frozen
from kcp.machinery.document import normal
from kcp.machinery.quantity import Quantity, parse
from kcp.store.protocol import Change, Head, Keep, Key, Put, Record

QUOTAS = "resourcequotas"
_ZERO = parse("0")
_CONSTRAINED = ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")

Json = dict[str, Any]


def _difference(new: Usage, old: Usage) -> Usage:
    delta = {name: new.get(name, _ZERO) - old.get(name, _ZERO) for name in {**new, **old}}
    return {name: amount for name, amount in delta.items() if amount}


def _print(amounts: Mapping[str, Quantity]) -> str:
    return ",".join(f"{name}={amounts[name]}" for name in sorted(amounts))


def _container_misses(container: Json, required: Sequence[str]) -> list[str]:
    resources = container.get("resources") or {}
    stated = compute(
        pods.resource_list(resources.get("requests")), pods.resource_list(resources.get("limits"))
    )
    return [name for name in required if name not in stated]


def _unstated(quota: Json, pod: Json) -> str | None:
    """`must specify cpu for: c1,c2; memory for: c1` when the quota makes every container state what it needs."""
    hard = (quota.get("spec") or {}).get("hard") or {}
    required = sorted(name for name in _CONSTRAINED if name in hard)
    if not required or pods.has_pod_level_requests(pod):
        return None
    missing: dict[str, list[str]] = {}
    for container in [*pods.containers(pod), *pods.init_containers(pod)]:
        for name in _container_misses(container, required):
            missing.setdefault(name, []).append(container.get("name", ""))
    if not missing:
        return None
    return "; ".join(f"{name} for: {','.join(sorted(missing[name]))}" for name in sorted(missing))


def _base(quota: Json, name: str, resource: str, namespace: str, head: Head, now: datetime) -> Quantity:
    """What is used of one name: as noted, or else summed up over the head."""
    used = (quota.get("status") or {}).get("used") or {}
    if name in used:
        return parse(used[name])
    total = _ZERO
    for record in head.list(resource, namespace):
        total = total + counted(quota, resource, record.value, now).get(name, _ZERO)
    return total


def _noting(delta: Usage, resource: str, namespace: str, now: datetime) -> Change:
    """The companion change: `used` moves by `delta`. A name noted for the first time is summed up, this write included."""

    def change(current: Record | None, head: Head) -> Put | Keep:
        if current is None:
            return Keep()
        quota = current.value
        status = quota.get("status") or {}
        used = dict(status.get("used") or {})
        for name in sorted(delta):
            known = name in used
            base = _base(quota, name, resource, namespace, head, now)
            used[name] = str(base + delta[name] if known else base)
        hard = status.get("hard") or (quota.get("spec") or {}).get("hard") or {}
        value = {**quota, "status": {**status, "hard": hard, "used": used}}
        return Put(normal(value), value)

    return change


@frozen
class ResourceQuota:
    """`now` tells whether a pod that is being deleted should be gone by now."""

    now: Callable[[], datetime]
    name: str = "ResourceQuota"

    def handles(self, attributes: Attributes) -> bool:
        return attributes.kind.namespaced and attributes.kind.resource not in UNCOUNTED

    def settle(self, attributes: Attributes, head: Head) -> Sequence[Companion]:
        quotas = head.list(QUOTAS, attributes.namespace)
        if not quotas:
            return ()
        companions, now = [], self.now()
        for record in quotas:
            delta = self._delta(attributes, record, head, now)
            if delta:
                change = _noting(delta, attributes.kind.resource, attributes.namespace, now)
                companions.append(Companion(record.key, change))
        return companions

    def _delta(self, attributes: Attributes, record: Record, head: Head, now: datetime) -> Usage:
        quota, resource = record.value, attributes.kind.resource
        if record.key == Key(resource, attributes.namespace, attributes.name):
            return {}
        new = counted(quota, resource, attributes.object, now)
        delta = _difference(new, counted(quota, resource, attributes.old, now))
        if attributes.operation == "CREATE" and resource == "pods" and new:
            missing = _unstated(quota, attributes.new)
            if missing:
                raise refused(attributes, f"failed quota: {record.key.name}: must specify {missing}")
        self._check(attributes, record, delta, head, now)
        return delta

    def _check(self, attributes: Attributes, record: Record, delta: Usage, head: Head, now: datetime) -> None:
        """Raises Forbidden when what grows would exceed its limit."""
        quota, resource = record.value, attributes.kind.resource
        hard = (quota.get("spec") or {}).get("hard") or {}
        requested: Usage = {}
        used: Usage = {}
        for name, amount in delta.items():
            if amount <= _ZERO:
                continue
            base = _base(quota, name, resource, attributes.namespace, head, now)
            if base + amount > parse(hard[name]):
                requested[name], used[name] = amount, base
        if requested:
            limited = {name: parse(hard[name]) for name in requested}
            raise refused(
                attributes,
                f"exceeded quota: {record.key.name}, requested: {_print(requested)},"
                f" used: {_print(used)}, limited: {_print(limited)}",
            )
