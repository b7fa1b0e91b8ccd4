"""Whether a node takes a pod that was bound to it: the same general predicates as the scheduler's, checked again.

A refused pod is Failed for ever with the reason; its controller makes another one.
Source: k8s v1.36 pkg/kubelet/lifecycle/predicate.go, pkg/scheduler (AdmissionCheck), pkg/kubelet/eviction
(eviction_manager.go Admit).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from kcp.apis.semantics import affinity, pods, taints
from kcp.base.values import frozen

Json = dict[str, Any]
HostPort = tuple[str, str, int]
ANY_ADDRESS = "0.0.0.0"
CRITICAL_PRIORITY = 2_000_000_000


@frozen
class Rejection:
    reason: str
    message: str


@attrs.define(slots=True)
class Room:
    """What pods on a node may use and do use. Amounts as `pods.amounts`; `ports` counts users of a host port."""

    allocatable: Mapping[str, int]
    used: dict[str, int] = attrs.field(factory=dict)
    pods: int = 0
    ports: dict[HostPort, int] = attrs.field(factory=dict)

    def take(self, amounts: Mapping[str, int], ports: Iterable[HostPort]) -> None:
        self.pods += 1
        for name, amount in amounts.items():
            self.used[name] = self.used.get(name, 0) + amount
        for port in ports:
            self.ports[port] = self.ports.get(port, 0) + 1

    def give_back(self, amounts: Mapping[str, int], ports: Iterable[HostPort]) -> None:
        self.pods -= 1
        for name, amount in amounts.items():
            self.used[name] = self.used.get(name, 0) - amount
        for port in ports:
            self.ports[port] -= 1
            if not self.ports[port]:
                del self.ports[port]


def admit(
    pod: Json,
    node: Json,
    room: Room,
    amounts: Mapping[str, int],
    ports: Iterable[HostPort],
    pressures: Iterable[str] = (),
) -> Rejection | None:
    """None when the node takes the pod. `pressures`: names of pressure conditions that are True."""
    return (
        _pressure(pod, pressures)
        or _operating_system(pod)
        or _fits(room, amounts)
        or _node_affinity(pod, node)
        or _host_ports(room, ports)
        or _taints(pod, node)
    )


def is_critical(pod: Json) -> bool:
    """Static, mirror and system-critical pods: never evicted, admitted under pressure."""
    return pods.is_mirror(pod) or pods.priority(pod) >= CRITICAL_PRIORITY


def _pressure(pod: Json, pressures: Iterable[str]) -> Rejection | None:
    under = list(pressures)
    if not under or is_critical(pod):
        return None
    if under == ["MemoryPressure"]:
        if pods.qos_class(pod) != "BestEffort":
            return None
        taint = {"key": taints.MEMORY_PRESSURE, "effect": taints.NO_SCHEDULE}
        if taints.is_tolerated(taint, taints.tolerations(pod)):
            return None
    return Rejection("Evicted", f"The node had condition: [{' '.join(under)}]. ")


def _operating_system(pod: Json) -> Rejection | None:
    labels = (pod.get("metadata") or {}).get("labels") or {}
    if labels.get("kubernetes.io/os", "linux") != "linux":
        return Rejection(
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        )
    if ((pod.get("spec") or {}).get("os") or {}).get("name", "linux") != "linux":
        return Rejection("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")
    return None


_ORDER = {"cpu": 0, "memory": 1, "ephemeral-storage": 2}


def _fits(room: Room, amounts: Mapping[str, int]) -> Rejection | None:
    allowed = room.allocatable.get("pods", 0)
    if room.pods + 1 > allowed:
        return _out_of("pods", 1, room.pods, allowed)
    for name in sorted(amounts, key=lambda n: (_ORDER.get(n, 3), n)) if len(amounts) > 1 else amounts:
        requested = amounts[name]
        capacity = room.allocatable.get(name)
        if not requested or (capacity is None and "/" in name):
            continue  # extended resources that the node does not know are the cluster's, not the node's
        used = room.used.get(name, 0)
        if requested > (capacity or 0) - used:
            return _out_of(name, requested, used, capacity or 0)
    return None


def _out_of(name: str, requested: int, used: int, capacity: int) -> Rejection:
    text = f"Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
    return Rejection(f"OutOf{name}", text)


def _node_affinity(pod: Json, node: Json) -> Rejection | None:
    spec = pod.get("spec") or {}
    if not spec.get("nodeSelector") and not spec.get("affinity"):
        return None
    metadata = node.get("metadata") or {}
    if affinity.pod_matches_node(pod, metadata.get("labels") or {}, metadata.get("name", "")):
        return None
    text = "node(s) didn't match Pod's node affinity/selector"
    return Rejection("NodeAffinity", f"Predicate NodeAffinity failed: {text}")


def ports_conflict(port: HostPort, used: Mapping[HostPort, int]) -> bool:
    """The any-address collides with every address of the same protocol and port."""
    ip, protocol, number = port
    for other_ip, other_protocol, other_number in used:
        same = protocol == other_protocol and number == other_number
        if same and (ip == other_ip or ANY_ADDRESS in (ip, other_ip)):
            return True
    return False


def _host_ports(room: Room, ports: Iterable[HostPort]) -> Rejection | None:
    if not any(ports_conflict(port, room.ports) for port in ports):
        return None
    text = "node(s) didn't have free ports for the requested pod ports"
    return Rejection("NodePorts", f"Predicate NodePorts failed: {text}")


def _taints(pod: Json, node: Json) -> Rejection | None:
    """Only NoExecute counts here: the rest is for the scheduler."""
    of_node = taints.taints(node)
    if not of_node:
        return None
    if taints.find_untolerated(of_node, taints.tolerations(pod), (taints.NO_EXECUTE,)) is None:
        return None
    text = "node(s) had taints that the pod didn't tolerate"
    return Rejection("TaintToleration", f"Predicate TaintToleration failed: {text}")
