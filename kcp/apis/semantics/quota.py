"""What a ResourceQuota counts: pure functions of one object, used by admission and by the controller alike.

Source: k8s v1.36 pkg/quota/v1/evaluator/core, apiserver/pkg/quota/v1/generic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from kcp.apis.semantics import pods, volumes
from kcp.apis.semantics import services as service_facts
from kcp.machinery.quantity import Quantity, parse
from kcp.machinery.times import parse_time

_ONE, _ZERO = parse("1"), parse("0")
UNCOUNTED = frozenset({"events", "bindings"})
_PLAIN_COUNTS = frozenset({"configmaps", "secrets", "replicationcontrollers", "resourcequotas", "services", "persistentvolumeclaims"})  # fmt: skip
_COMPUTE = ("cpu", "memory", "ephemeral-storage")

Json = dict[str, Any]
Usage = dict[str, Quantity]


def compute(requests: Mapping[str, Quantity], limits: Mapping[str, Quantity]) -> Usage:
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


def stuck_at(pod: Json) -> datetime | None:
    """When a pod that is being deleted stops counting though it is still there: its node may be lost."""
    metadata = pod.get("metadata") or {}
    deleted, grace_s = metadata.get("deletionTimestamp"), metadata.get("deletionGracePeriodSeconds")
    if not deleted or grace_s is None:
        return None
    return parse_time(deleted) + timedelta(seconds=grace_s)


def _counts(pod: Json, now: datetime) -> bool:
    """Whether anything but the object itself counts."""
    if pods.is_terminal(pod):
        return False
    limit = stuck_at(pod)
    return limit is None or now <= limit


def _pod_usage(pod: Json, now: datetime) -> Usage:
    usage: Usage = {"count/pods": _ONE}
    if _counts(pod, now):
        usage["pods"] = _ONE
        usage.update(compute(pods.requests(pod), pods.limits(pod)))
    return usage


def _service_usage(service: Json, now: datetime) -> Usage:
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


def _claim_usage(claim: Json, now: datetime) -> Usage:
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


_USAGE: Mapping[str, Callable[[Json, datetime], Usage]] = {
    "pods": _pod_usage,
    "services": _service_usage,
    "persistentvolumeclaims": _claim_usage,
}


def usage_of(resource: str, obj: Json, now: datetime) -> Usage:
    """What one object counts, by the names a quota may limit."""
    special = _USAGE.get(resource)
    usage = special(obj, now) if special is not None else {}
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


def counted(quota: Json, resource: str, obj: Json | None, now: datetime) -> Usage:
    """What the quota counts of an object, by the names it limits."""
    if obj is None or not in_scope(quota, resource, obj):
        return {}
    hard = (quota.get("spec") or {}).get("hard") or {}
    return {name: amount for name, amount in usage_of(resource, obj, now).items() if name in hard}


def resource_of(name: str) -> str | None:
    """The resource whose objects count for a name that a quota limits; None for a name that nothing counts for."""
    if name.startswith("count/"):
        return name.removeprefix("count/")
    if name in _PLAIN_COUNTS:
        return name
    if name.startswith("services."):
        return "services"
    if name == "requests.storage" or ".storageclass.storage.k8s.io/" in name:
        return "persistentvolumeclaims"
    if name in ("pods", *_COMPUTE) or name.startswith(("requests.", "limits.", "hugepages-")):
        return "pods"
    return None


def total_usage(quota: Json, resource: str, objects: Iterable[Json], now: datetime) -> Usage:
    """What the objects of one resource use of the names that the quota limits, zeros included."""
    hard = (quota.get("spec") or {}).get("hard") or {}
    total: Usage = {name: _ZERO for name in hard if resource_of(name) == resource}
    for obj in objects:
        for name, amount in counted(quota, resource, obj, now).items():
            total[name] = total.get(name, _ZERO) + amount
    return total
