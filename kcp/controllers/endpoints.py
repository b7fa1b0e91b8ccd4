"""Endpoints: the older list of addresses behind a Service, one object per Service.

Source: k8s v1.36 pkg/controller/endpoint/endpoints_controller.go, pkg/api/v1/endpoints/util.go.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from kcp.apis.semantics import pods as pod_facts
from kcp.apis.semantics import services
from kcp.controllers import effects as fx
from kcp.controllers.sources import Controller, Fan, Self
from kcp.machinery import meta
from kcp.machinery.errors import AlreadyExists
from kcp.machinery.labels import from_set

Json = dict[str, Any]
Steps = Generator[fx.Effect, fx.Outcome, None]
Port = tuple[str, int, str, str]
"""(name, number, protocol, appProtocol)"""

RESOURCE = "endpoints"
MANAGED_BY_LABEL = "endpoints.kubernetes.io/managed-by"
MANAGER = "endpoint-controller"
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
MAX_ADDRESSES = 1000


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    del env
    service, current = view.services.get(key), view.endpoints.get(key)
    if service is None:
        if current is not None:
            yield fx.Delete(RESOURCE, meta.namespace(current), meta.name(current), uid=meta.uid(current))
        return
    if services.is_external_name(service) or services.selector(service) is None:
        return
    selector = from_set(service["spec"]["selector"])
    pods = [p for p in view.pods.list(meta.namespace(service)) if selector.matches(meta.labels(p))]
    wanted, truncated = truncate(subsets(service, pods))
    yield from _write(service, current, wanted, truncated, _trigger_time(service, pods))


def _write(service: Json, current: Json | None, wanted: list[Json], truncated: bool, trigger: str) -> Steps:
    labels = _labels(service)
    if current is not None and _is_settled(current, wanted, labels, truncated):
        return
    annotations = {**(meta.annotations(current) if current else {}), TRIGGER_TIME: trigger}
    annotations.pop(OVER_CAPACITY, None)
    if truncated:
        annotations[OVER_CAPACITY] = "truncated"
    metadata = {
        **(current["metadata"] if current else {}),
        "name": meta.name(service),
        "namespace": meta.namespace(service),
        "labels": labels,
        "annotations": annotations,
    }
    made: Json = {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata}
    if wanted:
        made["subsets"] = wanted
    if current is not None:
        outcome = yield fx.Update(RESOURCE, made)
        if outcome.error is not None:
            text = f"Failed to update endpoint {meta.key_of(service)}: {outcome.error.message}"
            yield fx.Event(current, "Warning", "FailedToUpdateEndpoint", text)
        return
    outcome = yield fx.Create(RESOURCE, meta.namespace(service), made)
    if outcome.error is not None and not isinstance(outcome.error, AlreadyExists):
        text = f"Failed to create endpoint for service {meta.key_of(service)}: {outcome.error.message}"
        yield fx.Event(made, "Warning", "FailedToCreateEndpoint", text)


def _is_settled(current: Json, wanted: list[Json], labels: Mapping[str, str], truncated: bool) -> bool:
    marked = meta.annotations(current).get(OVER_CAPACITY) == "truncated"
    return (current.get("subsets") or []) == wanted and meta.labels(current) == labels and marked == truncated


def _labels(service: Json) -> dict[str, str]:
    labels = {k: v for k, v in meta.labels(service).items() if k != services.HEADLESS_LABEL}
    if services.is_headless(service):
        labels[services.HEADLESS_LABEL] = ""
    return {**labels, MANAGED_BY_LABEL: MANAGER}


def _trigger_time(service: Json, pods: Sequence[Json]) -> str:
    """When the latest change behind this write happened, as far as objects tell."""
    moments = [service["metadata"].get("creationTimestamp") or ""]
    for pod in pods:
        ready = pod_facts.condition(pod, "Ready") or {}
        moments.append(ready.get("lastTransitionTime") or "")
    return max(moments)


def subsets(service: Json, pods: Sequence[Json]) -> list[Json]:
    """Ports that the same addresses offer share a subset; within it ready addresses apart from the others."""
    publishes = bool(service["spec"].get("publishNotReadyAddresses"))
    behind: dict[Port | None, list[tuple[bool, Json]]] = {}
    for pod in pods:
        address = _address(service, pod)
        if address is None or not _belongs(pod, publishes):
            continue
        entry = (publishes or pod_facts.is_ready(pod), address)
        for port in _ports(service, pod):
            behind.setdefault(port, []).append(entry)
    grouped: dict[tuple[Any, ...], tuple[list[Port], list[tuple[bool, Json]]]] = {}
    for port, entries in behind.items():
        entries.sort(key=lambda entry: _address_order(entry[1]))
        same = tuple((ready, *_address_order(address)) for ready, address in entries)
        ports, _ = grouped.setdefault(same, ([], entries))
        if port is not None:
            ports.append(port)
    return [_subset(sorted(ports), entries) for _, (ports, entries) in sorted(grouped.items())]


def _address_order(address: Json) -> tuple[bytes, str]:
    return ip_address(address["ip"]).packed, address["targetRef"]["uid"]


def _subset(ports: Sequence[Port], entries: Sequence[tuple[bool, Json]]) -> Json:
    subset: Json = {}
    for field, wanted in (("addresses", True), ("notReadyAddresses", False)):
        addresses = [address for ready, address in entries if ready == wanted]
        if addresses:
            subset[field] = addresses
    if ports:
        subset["ports"] = [_port_json(port) for port in ports]
    return subset


def _port_json(port: Port) -> Json:
    name, number, protocol, app_protocol = port
    entry: Json = {"name": name} if name else {}
    entry |= {"port": number, "protocol": protocol}
    return {**entry, "appProtocol": app_protocol} if app_protocol else entry


def _belongs(pod: Json, publishes: bool) -> bool:
    """Pods that ended or are leaving are no endpoints, the leaving ones unless not-ready addresses are published."""
    return not pod_facts.is_terminal(pod) and (publishes or not meta.is_deleting(pod))


def _address(service: Json, pod: Json) -> Json | None:
    """The pod's address in the Service's first family."""
    family = services.ip_families(service)[0]
    ip = next((ip for ip in pod_facts.pod_ips(pod) if services.address_family(ip) == family), None)
    if ip is None:
        return None
    address: Json = {"ip": ip}
    spec = pod["spec"]
    if spec.get("hostname") and spec.get("subdomain") == meta.name(service):
        address["hostname"] = spec["hostname"]
    if spec.get("nodeName"):
        address["nodeName"] = spec["nodeName"]
    address["targetRef"] = {
        "kind": "Pod",
        "namespace": meta.namespace(pod),
        "name": meta.name(pod),
        "uid": meta.uid(pod),
    }
    return address


def _ports(service: Json, pod: Json) -> list[Port | None]:
    """The Service's ports as this pod offers them; None stands for "no ports", as headless Services may have."""
    given = service["spec"].get("ports") or ()
    if not given:
        return [None] if services.is_headless(service) else []
    found: list[Port | None] = []
    for port in given:
        number = services.target_port(pod, port)
        if number is not None:
            protocol = port.get("protocol") or "TCP"
            found.append((port.get("name") or "", number, protocol, port.get("appProtocol") or ""))
    return found


def truncate(given: list[Json]) -> tuple[list[Json], bool]:
    """At most a thousand addresses: not-ready ones only while there is room, each subset its share."""
    ready = sum(len(subset.get("addresses") or ()) for subset in given)
    others = sum(len(subset.get("notReadyAddresses") or ()) for subset in given)
    if ready + others <= MAX_ADDRESSES:
        return given, False
    room_ready = min(ready, MAX_ADDRESSES)
    room_others = MAX_ADDRESSES - room_ready
    cut = []
    for subset in given:
        kept = dict(subset)
        for field, room, total in (
            ("addresses", room_ready, ready),
            ("notReadyAddresses", room_others, others),
        ):
            if subset.get(field):
                kept[field] = subset[field][: len(subset[field]) * room // total]
                if not kept[field]:
                    del kept[field]
        if "addresses" in kept or "notReadyAddresses" in kept:
            cut.append(kept)
    return cut, True


def selecting(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """Services whose endpoints a change of a pod may touch."""
    if old is not None and new is not None and _same_endpoint(old, new):
        return []
    return services.keys_selecting(readers["services"].list, old, new)


def _same_endpoint(old: Json, new: Json) -> bool:
    """What changes most often is compared first."""
    before, after = old["spec"], new["spec"]
    if any(before.get(field) != after.get(field) for field in ("nodeName", "hostname", "subdomain")):
        return False
    if pod_facts.pod_ips(old) != pod_facts.pod_ips(new) or meta.labels(old) != meta.labels(new):
        return False
    return _life(old) == _life(new)


def _life(pod: Json) -> tuple[bool, bool, bool]:
    return pod_facts.is_ready(pod), pod_facts.is_terminal(pod), meta.is_deleting(pod)


def itself(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """Endpoints that went, to be made again; and the controller's own, whose Service may be gone meanwhile.

    What people make without a Service is theirs.
    """
    del readers
    obj = new or old
    if obj is None or (new is not None and meta.labels(new).get(MANAGED_BY_LABEL) != MANAGER):
        return []
    return [meta.key_of(obj)]


CONTROLLER = Controller(
    name="endpoints-controller",
    event_source="endpoint-controller",
    identity="endpoint-controller",
    plan=plan,
    watches={
        "services": Self("services"),
        "pods": Fan("pods", keys=selecting),
        "endpoints": Fan(RESOURCE, keys=itself),
    },
    max_retries=15,
)
