"""Questions about Services and what stands behind them.

Source: k8s v1.36 pkg/api/service/util.go, pkg/api/v1/service, pkg/api/v1/pod (FindPort), endpointslice/utils.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kcp.apis.semantics import pods

Json = dict[str, Any]

NONE = "None"
SERVICE_NAME_LABEL = "kubernetes.io/service-name"
MANAGED_BY_LABEL = "endpointslice.kubernetes.io/managed-by"
HEADLESS_LABEL = "service.kubernetes.io/headless"
PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
TOPOLOGY_MODE_ANNOTATION = "service.kubernetes.io/topology-mode"


def _spec(service: Json) -> Json:
    found: Json = service.get("spec") or {}
    return found


def service_type(service: Json) -> str:
    kind: str = _spec(service).get("type") or "ClusterIP"
    return kind


def cluster_ips(service: Json) -> list[str]:
    spec = _spec(service)
    found: list[str] = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    return found


def is_headless(service: Json) -> bool:
    """`clusterIP: None`: clients get the addresses of the endpoints."""
    return _spec(service).get("clusterIP") == NONE


def is_external_name(service: Json) -> bool:
    return service_type(service) == "ExternalName"


def needs_cluster_ip(service: Json) -> bool:
    """Types that get a cluster IP, unless they ask to be headless."""
    return not is_external_name(service) and not is_headless(service)


def needs_node_ports(service: Json) -> bool:
    kind = service_type(service)
    return kind == "NodePort" or (
        kind == "LoadBalancer" and _spec(service).get("allocateLoadBalancerNodePorts") is not False
    )


def is_external_local(service: Json) -> bool:
    """External traffic stays on the node where it arrives."""
    external = service_type(service) in ("NodePort", "LoadBalancer") or bool(
        _spec(service).get("externalIPs")
    )
    return external and _spec(service).get("externalTrafficPolicy") == "Local"


def is_internal_local(service: Json) -> bool:
    return not is_external_name(service) and _spec(service).get("internalTrafficPolicy") == "Local"


def needs_health_check_port(service: Json) -> bool:
    return service_type(service) == "LoadBalancer" and is_external_local(service)


def address_family(ip: str) -> str:
    return "IPv6" if ":" in ip else "IPv4"


def ip_families(service: Json) -> list[str]:
    """The families of the service; from its cluster IPs when the field is not filled in."""
    found: list[str] = _spec(service).get("ipFamilies") or []
    return found or [address_family(ip) for ip in cluster_ips(service) if ip != NONE] or ["IPv4"]


def selector(service: Json) -> dict[str, str] | None:
    """None when the service selects nothing and somebody else writes its endpoints."""
    return _spec(service).get("selector") or None


def selects(service: Json, labels: Mapping[str, str]) -> bool:
    wanted = selector(service)
    return wanted is not None and all(labels.get(key) == value for key, value in wanted.items())


def keys_selecting(
    services_in: Callable[[str], Sequence[Json]], old: Json | None, new: Json | None
) -> list[str]:
    """The keys of the services that select a pod as it was or as it is; `services_in` lists those of a namespace."""
    found: dict[str, None] = {}
    asked: tuple[str, Mapping[str, str]] | None = None
    for pod in (old, new):
        if pod is None:
            continue
        metadata = pod["metadata"]
        question = metadata.get("namespace", ""), metadata.get("labels") or {}
        if question == asked:
            continue
        asked = question
        for service in services_in(question[0]):
            if selects(service, question[1]):
                found[f"{question[0]}/{service['metadata']['name']}"] = None
    return list(found)


def session_affinity_s(service: Json) -> int | None:
    """Seconds a client sticks to its endpoint; None without session affinity."""
    if _spec(service).get("sessionAffinity") != "ClientIP":
        return None
    client = (_spec(service).get("sessionAffinityConfig") or {}).get("clientIP") or {}
    return int(client.get("timeoutSeconds", 10_800))


def external_ips(service: Json) -> list[str]:
    """spec.externalIPs and the load balancer's VIPs."""
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    balancer = [entry["ip"] for entry in ingress if entry.get("ip") and entry.get("ipMode", "VIP") == "VIP"]
    return [*(_spec(service).get("externalIPs") or ()), *balancer]


def _named_port(pod: Json, name: str, protocol: str) -> int | None:
    sidecars = [container for container in pods.init_containers(pod) if pods.is_sidecar(container)]
    for container in (*pods.containers(pod), *sidecars):
        for port in container.get("ports") or ():
            if port.get("name") == name and (port.get("protocol") or "TCP") == protocol:
                return int(port["containerPort"])
    return None


def target_port(pod: Json, service_port: Json) -> int | None:
    """The number that a service port means in this pod; None when the pod has no port of that name."""
    target = service_port.get("targetPort")
    if isinstance(target, str) and target:
        return _named_port(pod, target, service_port.get("protocol") or "TCP")
    return int(target or service_port["port"])


def endpoint_conditions(pod: Json, publish_not_ready: bool) -> dict[str, bool]:
    """ready, serving, terminating of the pod's endpoint."""
    serving = pods.is_ready(pod)
    terminating = pods.is_deleting(pod)
    return {
        "ready": publish_not_ready or (serving and not terminating),
        "serving": serving,
        "terminating": terminating,
    }


def is_usable_endpoint(endpoint: Json) -> bool:
    """An endpoint of an EndpointSlice that takes new connections; an unset condition counts as ready."""
    return (endpoint.get("conditions") or {}).get("ready") is not False
