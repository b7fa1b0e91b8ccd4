"""Why a cluster has not come to rest yet: wishes that are not fulfilled, by kind.

Only what must come true when nothing fails and nobody asks for more: a claim may wait for a volume that nobody makes,
a volume goes only once nobody uses it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from kcp.apis.semantics import pods as pod_facts
from kcp.apis.semantics import services
from kcp.machinery import meta
from kcp.store.log import EventLog
from kcp.store.protocol import Record, Store

Json = dict[str, Any]
SHOWN = 10
SLICES = "endpointslices.discovery.k8s.io"
CLAIMS, VOLUMES = "persistentvolumeclaims", "persistentvolumes"
BUDGETS = "poddisruptionbudgets.policy"
REQUESTS, CIDRS = "certificatesigningrequests.certificates.k8s.io", "servicecidrs.networking.k8s.io"


def unsettled(store: EventLog) -> list[str]:
    """Every reason why this is not a cluster in which all wishes are fulfilled; stops at ten."""
    found: list[str] = []
    for text in _unsettled(store):
        found.append(text)
        if len(found) == SHOWN:
            break
    return found


def _unsettled(store: EventLog) -> Iterator[str]:
    for record in everything(store):
        if meta.is_deleting(record.value) and not _in_use(store, record):
            yield f"{record.key} is still being deleted (finalizers: {meta.finalizers(record.value)})"
    ready_nodes = [n for n in store.list("nodes") if meta.condition(n.value, "Ready")]
    yield from _nodes(ready_nodes)
    for resource, counters in COUNTERS.items():
        for record in store.list(resource):
            yield from _counted(record, counters, running=bool(ready_nodes))
    for resource, wish in WISHES.items():
        for record in store.list(resource):
            reason = wish(store, record.value, bool(ready_nodes))
            if reason:
                yield f"{record.key}: {reason}"


def everything(store: EventLog) -> Iterator[Record]:
    """All live objects."""
    for resource in sorted(row.resource for row in store.kinds):
        yield from store.list(resource)


def _in_use(store: Store, record: Record) -> bool:
    """Whether it rightly waits until nobody needs it any more."""
    resource, obj = record.key.resource, record.value
    if resource == VOLUMES:
        return bool(obj.get("status", {}).get("phase") == "Bound")
    if resource == CLAIMS:
        pods = (pod.value for pod in store.list("pods", record.key.namespace))
        return any(record.key.name in _claims_of(pod) and pod_facts.is_assigned(pod) for pod in pods)
    if resource == CIDRS:
        ranges = [ipaddress.ip_network(cidr) for cidr in obj["spec"]["cidrs"]]
        ips = [ipaddress.ip_address(ip.key.name) for ip in store.list("ipaddresses.networking.k8s.io")]
        return any(ip in cidr for ip in ips for cidr in ranges)
    return False


def _claims_of(pod: Json) -> list[str]:
    volumes = pod["spec"].get("volumes", ())
    return [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v] + [
        f"{meta.name(pod)}-{v['name']}" for v in volumes if "ephemeral" in v
    ]


def _nodes(nodes: Sequence[Record]) -> Iterator[str]:
    for record in nodes:
        ready = meta.condition(record.value, "Ready")
        if ready is not None and ready["status"] != "True":
            yield f"{record.key} is not ready: {ready['status']}"


COUNTERS: Mapping[str, tuple[str, ...]] = {
    "deployments.apps": ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"),
    "replicasets.apps": (),
    "replicationcontrollers": ("readyReplicas", "availableReplicas"),
    "statefulsets.apps": ("readyReplicas", "availableReplicas"),
}
"""Kinds with replicas; what besides the number of pods must be as wanted when there are nodes to run them."""


def _counted(record: Record, counters: Sequence[str], *, running: bool) -> Iterator[str]:
    obj = record.value
    if obj["spec"].get("paused"):
        return
    yield from _unobserved(record)
    status, wanted = obj.get("status", {}), obj["spec"].get("replicas", 1)
    always = () if record.key.resource in ("deployments.apps", "statefulsets.apps") else ("replicas",)
    for counter in (*always, *(("replicas", *counters) if running else ())):
        if status.get(counter, 0) != wanted:
            yield f"{record.key}: {counter} is {status.get(counter, 0)}, wanted {wanted}"
            return


def _unobserved(record: Record) -> Iterator[str]:
    obj = record.value
    if obj.get("status", {}).get("observedGeneration") != obj["metadata"]["generation"]:
        yield f"{record.key}: generation {obj['metadata']['generation']} is not observed"


def _daemon_set(store: Store, obj: Json, running: bool) -> str:
    status = obj.get("status", {})
    if status.get("observedGeneration") != obj["metadata"]["generation"]:
        return "its generation is not observed"
    desired = status.get("desiredNumberScheduled", 0)
    if running and desired != len(store.list("nodes")):
        return f"{desired} of {len(store.list('nodes'))} nodes are wanted"
    for counter in ("currentNumberScheduled", "numberReady", "updatedNumberScheduled") if running else ():
        if status.get(counter, 0) != desired:
            return f"{counter} is {status.get(counter, 0)} of {desired}"
    return f"{status['numberMisscheduled']} misscheduled" if status.get("numberMisscheduled") else ""


def _job(store: Store, obj: Json, running: bool) -> str:
    del store
    finished = any(
        (condition := meta.condition(obj, kind)) is not None and condition["status"] == "True"
        for kind in ("Complete", "Failed")
    )
    return "" if finished or obj["spec"].get("suspend") or not running else "it has not finished"


def _service(store: Store, service: Json, running: bool) -> str:
    """Its slices hold the addresses of its pods."""
    del running
    if not service["spec"].get("selector"):
        return ""
    namespace, name = meta.namespace(service), meta.name(service)
    wanted = sorted(
        ip
        for pod in (record.value for record in store.list("pods", namespace))
        if services.selects(service, meta.labels(pod)) and not pod_facts.is_terminal(pod)
        for ip in pod_facts.pod_ips(pod)
    )
    slices = [record.value for record in store.list(SLICES, namespace)]
    mine = [s for s in slices if meta.labels(s).get(services.SERVICE_NAME_LABEL) == name]
    have = sorted(a for s in mine for e in s.get("endpoints") or () for a in e["addresses"])
    return f"its slices hold {have}, its pods {wanted}" if wanted != have or not mine else ""


def _endpoints(store: Store, endpoints: Json, running: bool) -> str:
    """What was written by hand for a Service without selector is mirrored."""
    del running
    namespace, name = meta.namespace(endpoints), meta.name(endpoints)
    service = next((r.value for r in store.list("services", namespace) if r.key.name == name), None)
    if service is None or service["spec"].get("selector"):
        return ""
    wanted = sorted(a["ip"] for subset in endpoints.get("subsets") or () for a in subset.get("addresses", ()))
    slices = [record.value for record in store.list(SLICES, namespace)]
    mine = [s for s in slices if meta.labels(s).get(services.SERVICE_NAME_LABEL) == name]
    have = sorted(a for s in mine for e in s.get("endpoints") or () for a in e["addresses"])
    return f"its slices hold {have}, it says {wanted}" if wanted != have else ""


def _claim(store: Store, claim: Json, running: bool) -> str:
    """A bound claim and its volume name each other; one whose volume went is Lost."""
    del running
    phase, volume_name = claim.get("status", {}).get("phase"), claim["spec"].get("volumeName", "")
    volume = next((r.value for r in store.list(VOLUMES) if r.key.name == volume_name), None)
    if phase == "Bound" and volume is None:
        return f"it is Bound to {volume_name}, which is not there"
    if phase != "Bound" or volume is None:
        return ""
    reference = volume["spec"].get("claimRef") or {}
    return (
        "" if reference.get("uid") == meta.uid(claim) else f"it is Bound to {volume_name}, which is another's"
    )


def _volume(store: Store, volume: Json, running: bool) -> str:
    """A volume is Bound as long as its claim is there."""
    del running
    phase, reference = volume.get("status", {}).get("phase"), volume["spec"].get("claimRef") or {}
    claims = store.list(CLAIMS, reference.get("namespace", "default"))
    alive = any(r.uid == reference.get("uid") for r in claims)
    if phase == "Bound" and not alive:
        return "it is Bound to a claim that is not there"
    return f"its claim is there, but it is {phase}" if alive and phase != "Bound" else ""


def _budget(store: Store, budget: Json, running: bool) -> str:
    status = budget.get("status", {})
    if status.get("observedGeneration") != budget["metadata"]["generation"]:
        return "its generation is not observed"
    pods = (record.value for record in store.list("pods", meta.namespace(budget)))
    labels = budget["spec"]["selector"]["matchLabels"].items()
    healthy = [
        p
        for p in pods
        if labels <= meta.labels(p).items() and pod_facts.is_ready(p) and not meta.is_deleting(p)
    ]
    have = status.get("currentHealthy", 0)
    return f"currentHealthy is {have} of {len(healthy)}" if running and have != len(healthy) else ""


def _request(store: Store, request: Json, running: bool) -> str:
    del store, running
    approved = meta.condition(request, "Approved") is not None
    signed = "certificate" in request.get("status", {}) or meta.condition(request, "Failed") is not None
    return "it is approved but not signed" if approved and not signed else ""


def _secret(store: Store, secret: Json, running: bool) -> str:
    """An account's token is there as long as its account."""
    del running
    name = meta.annotations(secret).get("kubernetes.io/service-account.name")
    if secret.get("type") != "kubernetes.io/service-account-token" or not name:
        return ""
    alive = any(r.key.name == name for r in store.list("serviceaccounts", meta.namespace(secret)))
    if not alive:
        return f"its account {name} is gone"
    return "" if "token" in secret.get("data", {}) else "it has no token"


WISHES: Mapping[str, Callable[[Store, Json, bool], str]] = {
    "daemonsets.apps": _daemon_set,
    "jobs.batch": _job,
    "services": _service,
    "endpoints": _endpoints,
    CLAIMS: _claim,
    VOLUMES: _volume,
    BUDGETS: _budget,
    REQUESTS: _request,
    "secrets": _secret,
}
"""By kind: why a live object is not as it should be, or nothing. The last argument: there are nodes to run pods."""
