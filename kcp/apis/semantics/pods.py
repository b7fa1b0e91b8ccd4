"""Questions about pods that several components ask: readiness, phase, QoS, effective requests, host ports.

All functions are pure and take the pod as a document. Amounts are `Quantity`; `amounts` turns them into the integers
that scheduling and quota count with.
Source: k8s v1.36 component-helpers/resource/helpers.go, pkg/api/v1/pod/util.go, pkg/apis/core/v1/helper/qos.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from kcp.machinery.quantity import Quantity, parse
from kcp.machinery.times import parse_time

Json = dict[str, Any]
Resources = dict[str, Quantity]

DEFAULT_MILLI_CPU_REQUEST = 100
DEFAULT_MEMORY_REQUEST = 200 * 1024 * 1024
"""What a container without a request counts as when nodes are scored. Source: pkg/scheduler/util/pod_resources.go."""

DELETION_COST_ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"
DEFAULT_GRACE_S = 30

_NON_ZERO: Resources = {"cpu": parse("100m"), "memory": parse("200Mi")}
_ZERO = parse("0")
_INT32 = 2**31


def phase(pod: Json) -> str:
    """The phase; empty for a pod whose status nobody wrote yet."""
    value: str = (pod.get("status") or {}).get("phase", "")
    return value


def condition(pod: Json, kind: str) -> Json | None:
    for entry in (pod.get("status") or {}).get("conditions") or ():
        if entry.get("type") == kind:
            found: Json = entry
            return found
    return None


def condition_is_true(pod: Json, kind: str) -> bool:
    entry = condition(pod, kind)
    return entry is not None and entry.get("status") == "True"


def is_ready(pod: Json) -> bool:
    return condition_is_true(pod, "Ready")


def ready_since(pod: Json) -> datetime | None:
    """When the pod became ready; None while it is not, or when the condition carries no time."""
    entry = condition(pod, "Ready")
    if entry is None or entry.get("status") != "True" or not entry.get("lastTransitionTime"):
        return None
    return parse_time(entry["lastTransitionTime"])


def is_available(pod: Json, min_ready_s: int, now: datetime) -> bool:
    """Ready for at least `min_ready_s` seconds."""
    if not is_ready(pod):
        return False
    if min_ready_s == 0:
        return True
    since = ready_since(pod)
    return since is not None and since + timedelta(seconds=min_ready_s) <= now


def seconds_until_available(pod: Json, min_ready_s: int, now: datetime) -> float | None:
    """How long until a ready pod counts as available: 0 when it does, None when it is not ready."""
    since = ready_since(pod)
    if since is None:
        return 0.0 if min_ready_s == 0 and is_ready(pod) else None
    return max(0.0, min_ready_s - (now - since).total_seconds())


def is_terminal(pod: Json) -> bool:
    """Succeeded or Failed: no container will ever run again."""
    return phase(pod) in ("Succeeded", "Failed")


def is_deleting(pod: Json) -> bool:
    return bool(pod.get("metadata", {}).get("deletionTimestamp"))


def is_active(pod: Json) -> bool:
    """Neither finished nor being deleted: what controllers count as a replica, of each pod in each plan."""
    if pod.get("metadata", {}).get("deletionTimestamp"):
        return False
    return (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def is_terminating(pod: Json) -> bool:
    """Being deleted while containers may still run."""
    return is_deleting(pod) and not is_terminal(pod)


def is_assigned(pod: Json) -> bool:
    return bool((pod.get("spec") or {}).get("nodeName"))


def node_name(pod: Json) -> str:
    name: str = (pod.get("spec") or {}).get("nodeName") or ""
    return name


def node_names(pod: Json) -> list[str]:
    """The node it is bound to, as the values of an index."""
    name = pod["spec"].get("nodeName")
    return [name] if name else []


def is_mirror(pod: Json) -> bool:
    """Whether the pod mirrors a static pod of its node."""
    return "kubernetes.io/config.mirror" in (pod.get("metadata", {}).get("annotations") or {})


def restart_policy(pod: Json) -> str:
    policy: str = (pod.get("spec") or {}).get("restartPolicy") or "Always"
    return policy


def grace_period_s(pod: Json) -> int:
    """The pod's own grace period; what a deletion without one uses."""
    seconds = (pod.get("spec") or {}).get("terminationGracePeriodSeconds")
    return DEFAULT_GRACE_S if seconds is None else int(seconds)


def is_sidecar(container: Json) -> bool:
    """An init container that keeps running: restartPolicy Always."""
    return container.get("restartPolicy") == "Always"


def containers(pod: Json) -> list[Json]:
    found: list[Json] = (pod.get("spec") or {}).get("containers") or []
    return found


def init_containers(pod: Json) -> list[Json]:
    found: list[Json] = (pod.get("spec") or {}).get("initContainers") or []
    return found


def all_containers(pod: Json) -> Iterator[tuple[str, Json]]:
    """Every container with the list it stands in: initContainers, containers, ephemeralContainers."""
    spec = pod.get("spec") or {}
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(field) or ():
            yield field, container


def container_status(pod: Json, name: str) -> Json | None:
    status = pod.get("status") or {}
    for field in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for entry in status.get(field) or ():
            if entry.get("name") == name:
                found: Json = entry
                return found
    return None


def restarts(pod: Json) -> tuple[int, int]:
    """The highest restart count among regular containers, and among sidecars."""
    status = pod.get("status") or {}
    sidecars = {container.get("name") for container in init_containers(pod) if is_sidecar(container)}
    regular = max(
        (entry.get("restartCount", 0) for entry in status.get("containerStatuses") or ()), default=0
    )
    initial = [
        entry.get("restartCount", 0)
        for entry in status.get("initContainerStatuses") or ()
        if entry.get("name") in sidecars
    ]
    return regular, max(initial, default=0)


def deletion_cost(pod: Json) -> int:
    """The pod's deletion cost as int32; 0 when absent or malformed."""
    text = (pod.get("metadata", {}).get("annotations") or {}).get(DELETION_COST_ANNOTATION)
    if not text or not _is_canonical_int(text):
        return 0
    cost = int(text)
    return cost if -_INT32 <= cost < _INT32 else 0


def _is_canonical_int(text: str) -> bool:
    """Kubernetes rejects a leading plus sign and leading zeros."""
    digits = text[1:] if text.startswith("-") else text
    if not (digits.isascii() and digits.isdigit()):
        return False
    return text == "0" or digits[0] != "0"


def host_ports(pod: Json) -> list[tuple[str, str, int]]:
    """(host IP, protocol, port) of every host port that containers and sidecars bind; `0.0.0.0` is any address."""
    ports: list[tuple[str, str, int]] = []
    for container in (*containers(pod), *filter(is_sidecar, init_containers(pod))):
        for port in container.get("ports") or ():
            if port.get("hostPort"):
                protocol = port.get("protocol") or "TCP"
                ports.append((port.get("hostIP") or "0.0.0.0", protocol, int(port["hostPort"])))
    return ports


def pod_ips(pod: Json) -> list[str]:
    status = pod.get("status") or {}
    found = [entry["ip"] for entry in status.get("podIPs") or () if entry.get("ip")]
    return found or ([status["podIP"]] if status.get("podIP") else [])


def is_pod_level_resource(name: str) -> bool:
    """What spec.resources of a pod may set."""
    return name in ("cpu", "memory") or name.startswith("hugepages-")


def resource_list(raw: Mapping[str, Any] | None) -> Resources:
    """A ResourceList with its quantities parsed."""
    return {name: parse(value) for name, value in (raw or {}).items()}


def _add(total: Resources, more: Mapping[str, Quantity]) -> None:
    for name, quantity in more.items():
        present = total.get(name)
        total[name] = quantity if present is None else present + quantity


def _raise_to(total: Resources, other: Mapping[str, Quantity]) -> None:
    for name, quantity in other.items():
        present = total.get(name)
        if present is None or present < quantity:
            total[name] = quantity


def _resize_is_infeasible(pod: Json) -> bool:
    entry = condition(pod, "PodResizePending")
    return entry is not None and entry.get("reason") == "Infeasible"


def _container_resources(pod: Json, container: Json, field: str) -> Resources:
    """Spec of one container, raised to what is allocated and actuated while a resize is under way."""
    spec = resource_list((container.get("resources") or {}).get(field))
    status = container_status(pod, container.get("name", "")) if "status" in pod else None
    if status is None or status.get("resources") is None:
        return spec
    result: Resources = {} if _resize_is_infeasible(pod) else spec
    _raise_to(result, resource_list(status["resources"].get(field)))
    if field == "requests":
        _raise_to(result, resource_list(status.get("allocatedResources")))
    return result


def _with_missing(resources: Resources, missing: Mapping[str, Quantity]) -> Resources:
    return {**missing, **resources} if missing else resources


def _aggregate(pod: Json, field: str, missing: Mapping[str, Quantity]) -> Resources:
    """Containers and sidecars run together; each init container runs beside the sidecars started before it."""
    total: Resources = {}
    for container in containers(pod):
        _add(total, _with_missing(_container_resources(pod, container, field), missing))
    sidecars: Resources = {}
    peak: Resources = {}
    for container in init_containers(pod):
        if is_sidecar(container):
            own = _with_missing(_container_resources(pod, container, field), missing)
            _add(total, own)
            _add(sidecars, own)
            _raise_to(peak, sidecars)
        else:
            own = dict(_with_missing(resource_list((container.get("resources") or {}).get(field)), missing))
            _add(own, sidecars)
            _raise_to(peak, own)
    _raise_to(total, peak)
    return total


def _apply_pod_level(pod: Json, field: str, total: Resources) -> None:
    own = ((pod.get("spec") or {}).get("resources") or {}).get(field)
    for name, value in (own or {}).items():
        if is_pod_level_resource(name):
            total[name] = parse(value)


def _requests(pod: Json, missing: Mapping[str, Quantity]) -> Resources:
    total = _aggregate(pod, "requests", missing)
    _apply_pod_level(pod, "requests", total)
    _add(total, resource_list((pod.get("spec") or {}).get("overhead")))
    return total


def requests(pod: Json) -> Resources:
    """Effective requests of the whole pod: what the scheduler reserves and quota charges.

    max( containers + sidecars, max over init containers (it + sidecars started before it) ), pod-level resources
    instead of that sum where set, plus overhead.
    """
    return _requests(pod, {})


def limits(pod: Json) -> Resources:
    """Effective limits; overhead is added only to resources that have a limit."""
    total = _aggregate(pod, "limits", {})
    _apply_pod_level(pod, "limits", total)
    for name, value in ((pod.get("spec") or {}).get("overhead") or {}).items():
        if name in total:
            total[name] = total[name] + parse(value)
    return total


def has_pod_level_requests(pod: Json) -> bool:
    own = ((pod.get("spec") or {}).get("resources") or {}).get("requests")
    return any(is_pod_level_resource(name) for name in own or ())


def amounts(resources: Mapping[str, Quantity]) -> dict[str, int]:
    """As integers: cpu in millicores, everything else in its own unit, both rounded up."""
    return {
        name: quantity.milli_value() if name == "cpu" else quantity.value()
        for name, quantity in resources.items()
    }


def non_zero_requests(pod: Json) -> tuple[int, int]:
    """(millicores, bytes) with 100m and 200 MiB for containers that request nothing: what scoring counts."""
    missing: Mapping[str, Quantity] = _NON_ZERO
    if has_pod_level_requests(pod):
        real = requests(pod)
        missing = {name: quantity for name, quantity in _NON_ZERO.items() if name not in real}
    total = _requests(pod, missing)
    return total.get("cpu", _ZERO).milli_value(), total.get("memory", _ZERO).value()


_Listed = tuple[tuple[str, Any], ...]
"""The entries of a resource list."""


def _positive_compute(listed: _Listed) -> Resources:
    found = {name: parse(value) for name, value in listed if name in ("cpu", "memory")}
    return {name: quantity for name, quantity in found.items() if quantity > _ZERO}


def _listed(resources: Mapping[str, Any]) -> tuple[_Listed, _Listed]:
    """(limits, requests)"""
    return tuple((resources.get("limits") or {}).items()), tuple((resources.get("requests") or {}).items())


def compute_qos_class(pod: Json) -> str:
    """Guaranteed, Burstable or BestEffort from the spec alone."""
    spec = pod.get("spec") or {}
    if spec.get("resources"):
        return _qos_class(_listed(spec["resources"]))
    parts = [_listed(c.get("resources") or {}) for c in (*containers(pod), *init_containers(pod))]
    return _qos_class(*parts)


@lru_cache(maxsize=4096)
def _qos_class(*parts: tuple[_Listed, _Listed]) -> str:
    requested: Resources = {}
    limited: Resources = {}
    guaranteed = True
    for limits, requests in parts:
        own = _positive_compute(limits)
        _add(requested, _positive_compute(requests))
        _add(limited, own)
        guaranteed = guaranteed and len(own) == 2
    if not requested and not limited:
        return "BestEffort"
    return "Guaranteed" if guaranteed and requested == limited else "Burstable"


def qos_class(pod: Json) -> str:
    """The class in the status, which never changes once it is set, else the computed one."""
    return (pod.get("status") or {}).get("qosClass") or compute_qos_class(pod)


def priority(pod: Json) -> int:
    value = (pod.get("spec") or {}).get("priority")
    return int(value) if value is not None else 0
