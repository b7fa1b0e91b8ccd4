"""ResourceQuota: what a namespace may use, counted in the same transaction as the object that uses it.

The difference an object makes is added to `status.used` of every quota that counts it, as a companion change of the
write; so usage never drifts and two creates never pass the same limit. Where `used` is not known yet, it is summed up.
Source: k8s v1.36 apiserver/pkg/admission/plugin/resourcequota/controller.go, pkg/quota/v1/evaluator/core.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from kcp.api.admission.plugin import Attributes, Companion, refused
from kcp.apis.semantics import pods, volumes
from kcp.apis.semantics import services as service_facts
from kcp.machinery.document import normal
from kcp.machinery.quantity import Quantity, parse
from kcp.store.protocol import Change, Head, Keep, Key, Put, Record

QUOTAS = "resourcequotas"
_ONE, _ZERO = parse("1"), parse("0")
_UNCOUNTED = frozenset({"events", "bindings"})
_PLAIN_COUNTS = frozenset({"configmaps", "secrets", "replicationcontrollers", "resourcequotas", "services", "persistentvolumeclaims"})  # fmt: skip
_CONSTRAINED = ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
_COMPUTE = ("cpu", "memory", "ephemeral-storage")

Json = dict[str, Any]
Usage = dict[str, Quantity]


def _compute(requests: Mapping[str, Quantity], limits: Mapping[str, Quantity]) -> Usage:
    usage: Usage = {}
    for name, amount in requests.items():
        if name in _COMPUTE or name.startswith("hugepages-"):
            usage[name] = usage[f"requests.{name}"] = amount
        else:
            usage[f"requests.{name}"] = amount
    for name, amount in limits.items():
        if name in _COMPUTE:
            usage[f"limits.{name}"] = amount
    return usage


def _pod_usage(pod: Json) -> Usage:
    usage: Usage = {"count/pods": _ONE}
    if not pods.is_terminal(pod):
        usage["pods"] = _ONE
        usage.update(_compute(pods.requests(pod), pods.limits(pod)))
    return usage


def _service_usage(service: Json) -> Usage:
    spec = service.get("spec") or {}
    kind, ports = spec.get("type") or "ClusterIP", spec.get("ports") or ()
    usage: Usage = {"services.nodeports": _ZERO, "services.loadbalancers": _ZERO}
    if service_facts.needs_node_ports(service):
        usage["services.nodeports"] = parse(len(ports))
    elif kind == "LoadBalancer":
        usage["services.nodeports"] = parse(sum(1 for port in ports if port.get("nodePort")))
    if kind == "LoadBalancer":
        usage["services.loadbalancers"] = _ONE
    return usage


def _claim_usage(claim: Json) -> Usage:
    requests = ((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}
    allocated = (claim.get("status") or {}).get("allocatedResources") or {}
    storage = max(parse(requests.get("storage", "0")), parse(allocated.get("storage", "0")))
    storage = parse(storage.value()) if storage.milli_value() % 1000 else storage
    usage: Usage = {"requests.storage": storage}
    name = volumes.claim_class(claim)
    if name:
        prefix = f"{name}.storageclass.storage.k8s.io"
        usage[f"{prefix}/requests.storage"], usage[f"{prefix}/persistentvolumeclaims"] = storage, _ONE
    return usage


_USAGE: Mapping[str, Callable[[Json], Usage]] = {
    "pods": _pod_usage,
    "services": _service_usage,
    "persistentvolumeclaims": _claim_usage,
}


def usage_of(resource: str, obj: Json) -> Usage:
    """What one object counts, by the names a quota may limit."""
    special = _USAGE.get(resource)
    usage = special(obj) if special is not None else {}
    usage.setdefault(f"count/{resource}", _ONE)
    if resource in _PLAIN_COUNTS:
        usage[resource] = _ONE
    return usage


def _is_terminating(pod: Json) -> bool:
    deadline = (pod.get("spec") or {}).get("activeDeadlineSeconds")
    return deadline is not None and deadline >= 0


def _crosses_namespaces(pod: Json) -> bool:
    affinity = (pod.get("spec") or {}).get("affinity") or {}
    for kind in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(kind) or {}
        terms = [*(rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ())]
        terms += [
            w.get("podAffinityTerm") or {}
            for w in rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        ]
        if any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms):
            return True
    return False


_POD_SCOPES: Mapping[str, Callable[[Json], bool]] = {
    "Terminating": _is_terminating,
    "NotTerminating": lambda pod: not _is_terminating(pod),
    "BestEffort": lambda pod: pods.compute_qos_class(pod) == "BestEffort",
    "NotBestEffort": lambda pod: pods.compute_qos_class(pod) != "BestEffort",
    "CrossNamespacePodAffinity": _crosses_namespaces,
    "PriorityClass": lambda pod: bool((pod.get("spec") or {}).get("priorityClassName")),
}
_VALUES: Mapping[tuple[str, str], Callable[[Json], list[str]]] = {
    ("pods", "PriorityClass"): lambda pod: [(pod.get("spec") or {}).get("priorityClassName") or ""],
    ("persistentvolumeclaims", "VolumeAttributesClass"): lambda claim: [
        name
        for name in (
            (claim.get("spec") or {}).get("volumeAttributesClassName"),
            (claim.get("status") or {}).get("currentVolumeAttributesClassName"),
            ((claim.get("status") or {}).get("modifyVolumeStatus") or {}).get(
                "targetVolumeAttributesClassName"
            ),
        )
        if name
    ],
}


def _expression_matches(expression: Json, resource: str, obj: Json) -> bool:
    scope, operator, wanted = (
        expression.get("scopeName", ""),
        expression.get("operator"),
        expression.get("values") or (),
    )
    read = _VALUES.get((resource, scope))
    if read is None:
        simple = _POD_SCOPES.get(scope) if resource == "pods" else None
        return simple is not None and simple(obj)
    values = [value for value in read(obj) if value]
    if operator == "Exists":
        return bool(values)
    if operator == "DoesNotExist":
        return not values
    if operator == "In":
        return any(value in wanted for value in values)
    return not any(value in wanted for value in values)


def in_scope(quota: Json, resource: str, obj: Json) -> bool:
    """Whether a quota's scopes take in this object; kinds without scopes belong to quotas without scopes."""
    spec = quota.get("spec") or {}
    for scope in spec.get("scopes") or ():
        simple = _POD_SCOPES.get(scope) if resource == "pods" else None
        if simple is None or not simple(obj):
            return False
    expressions = (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    return all(_expression_matches(expression, resource, obj) for expression in expressions)


def _counted(quota: Json, resource: str, obj: Json | None) -> Usage:
    """What the quota counts of an object, by the names it limits."""
    if obj is None or not in_scope(quota, resource, obj):
        return {}
    hard = (quota.get("spec") or {}).get("hard") or {}
    return {name: amount for name, amount in usage_of(resource, obj).items() if name in hard}


def _difference(new: Usage, old: Usage) -> Usage:
    delta = {name: new.get(name, _ZERO) - old.get(name, _ZERO) for name in {**new, **old}}
    return {name: amount for name, amount in delta.items() if amount}


def _print(amounts: Mapping[str, Quantity]) -> str:
    return ",".join(f"{name}={amounts[name]}" for name in sorted(amounts))


def _container_misses(container: Json, required: Sequence[str]) -> list[str]:
    resources = container.get("resources") or {}
    stated = _compute(
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


def _base(quota: Json, name: str, resource: str, namespace: str, head: Head) -> Quantity:
    """What is used of one name: as noted, or else summed up over the head."""
    used = (quota.get("status") or {}).get("used") or {}
    if name in used:
        return parse(used[name])
    total = _ZERO
    for record in head.list(resource, namespace):
        total = total + _counted(quota, resource, record.value).get(name, _ZERO)
    return total


def _noting(delta: Usage, resource: str, namespace: str) -> Change:
    """The companion change: `used` moves by `delta`. A name noted for the first time is summed up, this write included."""

    def change(current: Record | None, head: Head) -> Put | Keep:
        if current is None:
            return Keep()
        quota = current.value
        status = quota.get("status") or {}
        used = dict(status.get("used") or {})
        for name in sorted(delta):
            known = name in used
            base = _base(quota, name, resource, namespace, head)
            used[name] = str(base + delta[name] if known else base)
        hard = status.get("hard") or (quota.get("spec") or {}).get("hard") or {}
        value = {**quota, "status": {**status, "hard": hard, "used": used}}
        return Put(normal(value), value)

    return change


@attrs.frozen
class ResourceQuota:
    name: str = "ResourceQuota"

    def handles(self, attributes: Attributes) -> bool:
        return attributes.kind.namespaced and attributes.kind.resource not in _UNCOUNTED

    def settle(self, attributes: Attributes, head: Head) -> Sequence[Companion]:
        quotas = head.list(QUOTAS, attributes.namespace)
        if not quotas:
            return ()
        companions = []
        for record in quotas:
            delta = self._delta(attributes, record, head)
            if delta:
                change = _noting(delta, attributes.kind.resource, attributes.namespace)
                companions.append(Companion(record.key, change))
        return companions

    def _delta(self, attributes: Attributes, record: Record, head: Head) -> Usage:
        quota, resource = record.value, attributes.kind.resource
        if record.key == Key(resource, attributes.namespace, attributes.name):
            return {}
        new = _counted(quota, resource, attributes.object)
        delta = _difference(new, _counted(quota, resource, attributes.old))
        if attributes.operation == "CREATE" and resource == "pods" and new:
            missing = _unstated(quota, attributes.new)
            if missing:
                raise refused(attributes, f"failed quota: {record.key.name}: must specify {missing}")
        self._check(attributes, record, delta, head)
        return delta

    def _check(self, attributes: Attributes, record: Record, delta: Usage, head: Head) -> None:
        """Raises Forbidden when what grows would exceed its limit."""
        quota, resource = record.value, attributes.kind.resource
        hard = (quota.get("spec") or {}).get("hard") or {}
        requested: Usage = {}
        used: Usage = {}
        for name, amount in delta.items():
            if amount <= _ZERO:
                continue
            base = _base(quota, name, resource, attributes.namespace, head)
            if base + amount > parse(hard[name]):
                requested[name], used[name] = amount, base
        if requested:
            limited = {name: parse(hard[name]) for name in requested}
            raise refused(
                attributes,
                f"exceeded quota: {record.key.name}, requested: {_print(requested)},"
                f" used: {_print(used)}, limited: {_print(limited)}",
            )
