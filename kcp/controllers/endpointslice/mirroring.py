"""EndpointSlice mirroring: hand-written Endpoints of Services without selector, as slices.

Source: k8s v1.36 pkg/controller/endpointslicemirroring.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from ipaddress import ip_address
from typing import Any

from kcp.apis.semantics import services
from kcp.apis.semantics.workloads import LAST_APPLIED
from kcp.controllers import effects as fx
from kcp.controllers.endpointslice.desired import PortMap, ports_json, ports_of
from kcp.controllers.sources import Controller, Fan, Self
from kcp.machinery import meta

Json = dict[str, Any]
Group = tuple[str, PortMap]
"""(address type, ports)"""

RESOURCE = "endpointslices.discovery.k8s.io"
MANAGER = "endpointslicemirroring-controller.k8s.io"
SKIP_LABEL = "endpointslice.kubernetes.io/skip-mirror"
LEADER = "control-plane.alpha.kubernetes.io/leader"
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
MAX_ADDRESSES = 1000
"""Per subset, and so per slice."""


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    del env
    endpoints, service = view.endpoints.get(key), view.services.get(key)
    existing = [s for s in view.slices.index("mirrored", key) if not meta.is_deleting(s)]
    if endpoints is None or service is None or not _is_mirrored(endpoints, service):
        for slice_ in existing:
            yield _delete(slice_)
        return
    desired = yield from _desired(endpoints)
    by_group: dict[Group, list[Json]] = {}
    for slice_ in existing:
        by_group.setdefault((slice_["addressType"], ports_of(slice_)), []).append(slice_)
    spare = [s for group, slices in by_group.items() for s in (slices[1:] if group in desired else slices)]
    for group, wanted in desired.items():
        kept = by_group.get(group)
        made = new_slice(endpoints, group, wanted)
        if kept:
            if not _same(kept[0], made):
                yield fx.Update(RESOURCE, _onto(kept[0], made))
        elif (recycled := _take(spare, group[0])) is not None:
            yield fx.Update(RESOURCE, _onto(recycled, made))
        elif not meta.is_deleting(endpoints):
            yield fx.Create(RESOURCE, meta.namespace(endpoints), made)
    for slice_ in spare:
        yield _delete(slice_)


def _is_mirrored(endpoints: Json, service: Json) -> bool:
    """Whoever writes slices himself says so by the label; records of leaders hold no addresses."""
    return (
        services.selector(service) is None
        and meta.labels(endpoints).get(SKIP_LABEL) != "true"
        and LEADER not in meta.annotations(endpoints)
    )


def _desired(endpoints: Json) -> Generator[fx.Effect, fx.Outcome, dict[Group, list[Json]]]:
    """The endpoints by family and ports, and events about addresses that found no place."""
    groups: dict[Group, dict[str, Json]] = {}
    invalid = skipped = 0
    for subset in endpoints.get("subsets") or ():
        ports = _port_map(subset)
        addresses = [(address, True) for address in subset.get("addresses") or ()]
        addresses += [(address, False) for address in subset.get("notReadyAddresses") or ()]
        added = 0
        for address, ready in addresses:
            if added == MAX_ADDRESSES:
                break
            endpoint = _endpoint(address, ready)
            if endpoint is None:
                invalid += 1
                continue
            added += 1
            identity = f"{endpoint['addresses'][0]} {(endpoint.get('targetRef') or {}).get('uid', '')}"
            family = services.address_family(endpoint["addresses"][0])
            groups.setdefault((family, ports), {})[identity] = endpoint
        skipped += len(addresses) - added
    if invalid:
        text = f"Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices"
        yield fx.Event(endpoints, "Warning", "InvalidIPAddress", text)
    if skipped > invalid:
        text = (
            f"A max of {MAX_ADDRESSES} addresses can be mirrored to EndpointSlices per Endpoints subset. "
            f"{skipped} addresses were skipped"
        )
        yield fx.Event(endpoints, "Warning", "TooManyAddressesToMirror", text)
    return {group: list(found.values())[:MAX_ADDRESSES] for group, found in groups.items()}


def _port_map(subset: Json) -> PortMap:
    return tuple(
        (port.get("name") or "", port["port"], port.get("protocol") or "TCP", port.get("appProtocol"))
        for port in subset.get("ports") or ()
    )


def _endpoint(address: Json, ready: bool) -> Json | None:
    try:
        ip = str(ip_address(address["ip"]))
    except ValueError:
        return None
    endpoint: Json = {"addresses": [ip], "conditions": {"ready": ready}}
    for field in ("hostname", "targetRef", "nodeName"):
        if address.get(field):
            endpoint[field] = address[field]
    return endpoint


def new_slice(endpoints: Json, group: Group, wanted: list[Json]) -> Json:
    family, ports = group
    annotations = {
        k: v for k, v in meta.annotations(endpoints).items() if k not in (TRIGGER_TIME, LAST_APPLIED)
    }
    labels = {
        **meta.labels(endpoints),
        services.SERVICE_NAME_LABEL: meta.name(endpoints),
        services.MANAGED_BY_LABEL: MANAGER,
    }
    metadata: Json = {
        "generateName": f"{meta.name(endpoints)}-",
        "namespace": meta.namespace(endpoints),
        "labels": labels,
        "ownerReferences": [meta.owner_reference(endpoints)],
    }
    if annotations:
        metadata["annotations"] = annotations
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": family,
        "ports": ports_json(ports),
        "endpoints": wanted,
    }


def _same(slice_: Json, made: Json) -> bool:
    return (
        (slice_.get("endpoints") or []) == made["endpoints"]
        and meta.labels(slice_) == meta.labels(made)
        and meta.annotations(slice_) == meta.annotations(made)
    )


def _onto(slice_: Json, made: Json) -> Json:
    """The contents of a slice to be, under the name of one that exists."""
    kept = {k: v for k, v in slice_["metadata"].items() if k not in ("labels", "annotations")}
    fresh = {k: v for k, v in made["metadata"].items() if k in ("labels", "annotations", "ownerReferences")}
    return {**made, "metadata": {**kept, **fresh}}


def _take(spare: list[Json], family: str) -> Json | None:
    """A slice that would go otherwise; its address type cannot change."""
    for slice_ in spare:
        if slice_["addressType"] == family:
            spare.remove(slice_)
            return slice_
    return None


def _delete(slice_: Json) -> fx.Delete:
    return fx.Delete(RESOURCE, meta.namespace(slice_), meta.name(slice_), uid=meta.uid(slice_))


def mirror_of(slice_: Json) -> list[str]:
    """Index `mirrored`: the key of the Endpoints that a slice mirrors."""
    labels = meta.labels(slice_)
    if labels.get(services.MANAGED_BY_LABEL) != MANAGER or services.SERVICE_NAME_LABEL not in labels:
        return []
    return [f"{meta.namespace(slice_)}/{labels[services.SERVICE_NAME_LABEL]}"]


def slice_changed(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    del readers
    return list(dict.fromkeys(key for s in (old, new) if s is not None for key in mirror_of(s)))


def service_changed(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """Only whether there is a selector matters."""
    if old is not None and new is not None and services.selector(old) == services.selector(new):
        return []
    service = new or old
    if service is None:
        return []
    key = meta.key_of(service)
    return [key] if readers["endpoints"].get(key) is not None else []


CONTROLLER = Controller(
    name="endpointslice-mirroring-controller",
    event_source="endpoint-slice-mirroring-controller",
    identity="endpointslicemirroring-controller",
    plan=plan,
    watches={
        "endpoints": Self("endpoints"),
        "services": Fan("services", keys=service_changed),
        "slices": Fan(RESOURCE, keys=slice_changed, indexes={"mirrored": mirror_of}),
    },
    max_retries=15,
)
