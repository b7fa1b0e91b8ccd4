"""What the slices of a Service should say: its pods as endpoints, grouped by address family and ports.

Source: k8s v1.36 staging/src/k8s.io/endpointslice/{reconciler,utils}.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from kcp.apis.semantics import pods as pod_facts
from kcp.apis.semantics import services
from kcp.machinery import meta

Json = dict[str, Any]
PortMap = tuple[tuple[str, int | None, str, str | None], ...]
"""(name, port, protocol, appProtocol), in the Service's order."""


def desired_endpoints(
    service: Json, pods: Sequence[Json], nodes: dict[str, Json], family: str
) -> dict[PortMap, list[Json]]:
    """Endpoints of one family by port map, pods in key order."""
    groups: dict[PortMap, list[Json]] = {}
    for pod in pods:
        address = pod_address(pod, family)
        if address is None or pod_facts.is_terminal(pod):
            continue
        endpoint = make_endpoint(service, pod, nodes.get(pod["spec"].get("nodeName", "")), address)
        groups.setdefault(port_map(service, pod), []).append(endpoint)
    return groups


def pod_address(pod: Json, family: str) -> str | None:
    for entry in pod.get("status", {}).get("podIPs") or ():
        ip = entry.get("ip")
        if ip and (ip_address(ip).version == 6) == (family == "IPv6"):
            return str(ip)
    return None


def make_endpoint(service: Json, pod: Json, node: Json | None, address: str) -> Json:
    endpoint: Json = {
        "addresses": [address],
        "conditions": services.endpoint_conditions(
            pod, bool(service["spec"].get("publishNotReadyAddresses"))
        ),
        "targetRef": {
            "kind": "Pod",
            "namespace": meta.namespace(pod),
            "name": meta.name(pod),
            "uid": meta.uid(pod),
        },
    }
    if pod["spec"].get("nodeName"):
        endpoint["nodeName"] = pod["spec"]["nodeName"]
    zone = meta.labels(node).get("topology.kubernetes.io/zone") if node else None
    if zone:
        endpoint["zone"] = zone
    hostname = pod["spec"].get("hostname")
    if hostname and pod["spec"].get("subdomain") == meta.name(service):
        endpoint["hostname"] = hostname
    return endpoint


def port_map(service: Json, pod: Json) -> PortMap:
    """The Service's ports as this pod offers them: a named targetPort is looked up in its containers."""
    ports: list[tuple[str, int | None, str, str | None]] = []
    for port in service["spec"].get("ports", ()):
        number = services.target_port(pod, port)
        if number is not None:
            ports.append((port.get("name", ""), number, port.get("protocol", "TCP"), port.get("appProtocol")))
    return tuple(ports)


def ports_json(ports: PortMap) -> list[Json]:
    out = []
    for name, number, protocol, app_protocol in ports:
        entry: Json = {"name": name, "port": number, "protocol": protocol}
        if app_protocol:
            entry["appProtocol"] = app_protocol
        out.append(entry)
    return out


def ports_of(slice_: Json) -> PortMap:
    """The port map of an existing slice, in the same form."""
    return tuple(
        (p.get("name", ""), p.get("port"), p.get("protocol", "TCP"), p.get("appProtocol"))
        for p in slice_.get("ports") or ()
    )
