"""The EndpointSlice controller: keeps what fits, fills changed slices, then the fullest that fits, then makes new ones.

Source: k8s v1.36 pkg/controller/endpointslice, staging/src/k8s.io/endpointslice/reconciler.go.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from kcp.apis.semantics import pods as pod_facts
from kcp.apis.semantics import services
from kcp.controllers import effects as fx
from kcp.controllers.endpointslice.desired import (
    PortMap,
    desired_endpoints,
    ports_json,
    ports_of,
)
from kcp.controllers.sources import Controller, Fan, Self
from kcp.machinery import meta
from kcp.machinery.labels import from_set

Json = dict[str, Any]
Steps = Generator[fx.Effect, fx.Outcome, None]
RESOURCE = "endpointslices.discovery.k8s.io"
MANAGER = "endpointslice-controller.k8s.io"
MAX_ENDPOINTS = 100


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    del env
    service = view.services.get(key)
    if (
        service is None
        or service["spec"].get("type") == "ExternalName"
        or not service["spec"].get("selector")
    ):
        return
    existing = [s for s in view.slices.index("service", key) if not meta.is_deleting(s)]
    selector = from_set(service["spec"]["selector"])
    pods = [p for p in view.pods.list(meta.namespace(service)) if selector.matches(meta.labels(p))]
    nodes = {name: node for name in _node_names(pods) if (node := view.nodes.get(name)) is not None}
    families = services.ip_families(service)
    for family in families:
        mine = [s for s in existing if s["addressType"] == family]
        yield from _reconcile(service, family, desired_endpoints(service, pods, nodes, family), mine)
    for slice_ in existing:
        if slice_["addressType"] not in families:
            yield _delete(slice_)


def _node_names(pods: Sequence[Json]) -> list[str]:
    return list(dict.fromkeys(name for p in pods if (name := p["spec"].get("nodeName"))))


def _reconcile(service: Json, family: str, desired: dict[PortMap, list[Json]], existing: list[Json]) -> Steps:
    by_ports: dict[PortMap, list[Json]] = {}
    for slice_ in existing:
        by_ports.setdefault(ports_of(slice_), []).append(slice_)
    kept = 0
    for ports, endpoints in desired.items():
        kept += yield from _fill(service, family, ports, endpoints, by_ports.pop(ports, []))
    leftovers = [s for slices in by_ports.values() for s in slices]
    if not kept:
        placeholder = next((s for s in leftovers if not s.get("endpoints") and not s.get("ports")), None)
        if placeholder is None:
            yield fx.Create(RESOURCE, meta.namespace(service), _new_slice(service, family, (), []))
        else:
            leftovers.remove(placeholder)
            yield from _write(service, placeholder, [])
    for slice_ in leftovers:
        yield _delete(slice_)


def _fill(
    service: Json, family: str, ports: PortMap, endpoints: list[Json], slices: list[Json]
) -> Generator[fx.Effect, fx.Outcome, int]:
    """Spread endpoints of one port map over slices; how many slices there are afterwards."""
    wanted = {_identity(e): e for e in endpoints}
    contents: list[tuple[Json, list[Json]]] = []
    for slice_ in slices:
        stay = [wanted.pop(_identity(e)) for e in slice_.get("endpoints") or () if _identity(e) in wanted]
        contents.append((slice_, stay))
    rest = list(wanted.values())
    rest = _top_up(contents, rest, changed_only=True)
    if rest and len(rest) < MAX_ENDPOINTS:
        rest = _into_fullest(contents, rest)
    kept = 0
    for slice_, stay in contents:
        if stay:
            kept += 1
            yield from _write(service, slice_, stay)
        else:
            yield _delete(slice_)
    for start in range(0, len(rest), MAX_ENDPOINTS):
        kept += 1
        part = rest[start : start + MAX_ENDPOINTS]
        yield fx.Create(RESOURCE, meta.namespace(service), _new_slice(service, family, ports, part))
    return kept


def _identity(endpoint: Json) -> tuple[str, str]:
    return endpoint["addresses"][0], endpoint.get("targetRef", {}).get("uid", "")


def _top_up(contents: list[tuple[Json, list[Json]]], rest: list[Json], *, changed_only: bool) -> list[Json]:
    """Put endpoints into slices that are written anyway; what found no place."""
    for slice_, stay in contents:
        changed = stay != (slice_.get("endpoints") or [])
        room = MAX_ENDPOINTS - len(stay)
        if rest and room > 0 and (changed or not changed_only) and stay:
            stay.extend(rest[:room])
            rest = rest[room:]
    return rest


def _into_fullest(contents: list[tuple[Json, list[Json]]], rest: list[Json]) -> list[Json]:
    """One more write instead of one more slice: the fullest slice that takes all the rest."""
    fitting = [stay for _, stay in contents if stay and len(stay) + len(rest) <= MAX_ENDPOINTS]
    if not fitting:
        return rest
    max(fitting, key=len).extend(rest)
    return []


def _write(service: Json, slice_: Json, endpoints: list[Json]) -> Steps:
    labels = _labels(service)
    if slice_.get("endpoints") or endpoints:
        same = endpoints == (slice_.get("endpoints") or [])
    else:
        same = True
    if same and labels == meta.labels(slice_):
        return
    yield fx.Update(
        RESOURCE, {**slice_, "endpoints": endpoints, "metadata": {**slice_["metadata"], "labels": labels}}
    )


def _new_slice(service: Json, family: str, ports: PortMap, endpoints: list[Json]) -> Json:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": f"{meta.name(service)}-",
            "namespace": meta.namespace(service),
            "labels": _labels(service),
            "ownerReferences": [meta.owner_reference(service)],
        },
        "addressType": family,
        "ports": ports_json(ports),
        "endpoints": endpoints,
    }


def _labels(service: Json) -> dict[str, str]:
    """The Service's labels (its own reserved ones aside) plus what marks the slice."""
    reserved = (services.SERVICE_NAME_LABEL, services.MANAGED_BY_LABEL, services.HEADLESS_LABEL)
    labels = {k: v for k, v in meta.labels(service).items() if k not in reserved}
    if services.is_headless(service):
        labels[services.HEADLESS_LABEL] = ""
    return {**labels, services.SERVICE_NAME_LABEL: meta.name(service), services.MANAGED_BY_LABEL: MANAGER}


def _delete(slice_: Json) -> fx.Delete:
    return fx.Delete(RESOURCE, meta.namespace(slice_), meta.name(slice_), uid=meta.uid(slice_))


def service_of(slice_: Json) -> list[str]:
    labels = meta.labels(slice_)
    if labels.get(services.MANAGED_BY_LABEL) != MANAGER or services.SERVICE_NAME_LABEL not in labels:
        return []
    return [f"{meta.namespace(slice_)}/{labels[services.SERVICE_NAME_LABEL]}"]


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
    if old.get("status", {}).get("podIPs") != new.get("status", {}).get("podIPs"):
        return False

    def facts(pod: Json) -> Any:
        life = pod_facts.is_ready(pod), meta.is_deleting(pod), pod_facts.is_terminal(pod)
        return meta.labels(pod), life

    return bool(facts(old) == facts(new))


def slice_changed(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(key for s in (old, new) if s is not None for key in service_of(s)))


def zone_changed(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """A node's zone shows in the endpoints on it."""
    label = "topology.kubernetes.io/zone"
    before, after = (meta.labels(n).get(label) if n else None for n in (old, new))
    node = new or old
    if before == after or node is None:
        return []
    pods = readers["pods"].index("node", meta.name(node))
    return list(dict.fromkeys(key for pod in pods for key in selecting(None, pod, readers)))


CONTROLLER = Controller(
    name="endpointslice-controller",
    event_source="endpoint-slice-controller",
    identity="endpointslice-controller",
    plan=plan,
    watches={
        "services": Self("services"),
        "pods": Fan("pods", keys=selecting, indexes={"node": pod_facts.node_names}),
        "slices": Fan(RESOURCE, keys=slice_changed, indexes={"service": service_of}),
        "nodes": Fan("nodes", keys=zone_changed),
    },
    max_retries=15,
)
