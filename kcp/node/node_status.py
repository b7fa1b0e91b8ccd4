"""The Node object of an agent: labels, capacity, addresses, conditions. Pure.

Source: k8s v1.36 pkg/kubelet/kubelet_node_status.go, pkg/kubelet/nodestatus/setters.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kcp.apis.core.resources import is_extended
from kcp.apis.semantics.declared_features import CPU_RESIZE, RESTART_ALL
from kcp.base.values import frozen
from kcp.node.runtime.protocol import Image, Version

Json = dict[str, Any]
KUBELET_VERSION = "v1.36.2"
KUBELET_PORT = 10250
MAX_IMAGES = 50
DECLARED_FEATURES = (CPU_RESIZE, RESTART_ALL)
"""What these nodes can do that not every kubelet can."""
PRESSURES = ("MemoryPressure", "DiskPressure", "PIDPressure")
PRESSURE_ANNOTATIONS = {
    "sim.kcp/memory-pressure": "MemoryPressure",
    "sim.kcp/disk-pressure": "DiskPressure",
    "sim.kcp/pid-pressure": "PIDPressure",
}
"""A simulated node whose Node object carries one of these with the value "true" is under that pressure."""

_TEXTS: Mapping[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "MemoryPressure": (
        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
    ),
    "DiskPressure": (
        ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("KubeletHasDiskPressure", "kubelet has disk pressure"),
    ),
    "PIDPressure": (
        ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
    ),
}
EVENTS: Mapping[str, tuple[str, str]] = {
    "MemoryPressure": ("NodeHasSufficientMemory", "NodeHasInsufficientMemory"),
    "DiskPressure": ("NodeHasNoDiskPressure", "NodeHasDiskPressure"),
    "PIDPressure": ("NodeHasSufficientPID", "NodeHasInsufficientPID"),
    "Ready": ("NodeReady", "NodeNotReady"),
}


@frozen
class NodeSpec:
    """What a node is: its name, its size and what it is labelled with. Quantities in wire form.

    `extended` are further resources, such as `example.com/gpu: "2"`. `pod_cidr` and `ip` empty: the fleet chooses.
    """

    name: str
    cpu: str = "4"
    memory: str = "16Gi"
    pods: int = 110
    ephemeral_storage: str = "100Gi"
    extended: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    taints: Sequence[Json] = ()
    ip: str = ""
    pod_cidr: str = ""

    def capacity(self) -> Json:
        return {
            "cpu": self.cpu,
            "ephemeral-storage": self.ephemeral_storage,
            "hugepages-1Gi": "0",
            "hugepages-2Mi": "0",
            "memory": self.memory,
            "pods": str(self.pods),
            **self.extended,
        }


@frozen
class Machine:
    """What identifies the machine; `boot_id` changes with every boot."""

    machine_id: str
    boot_id: str
    ip: str
    pod_cidr: str
    runtime: Version
    scheme: str


def node_labels(spec: NodeSpec) -> dict[str, str]:
    return {
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": spec.name,
        "kubernetes.io/os": "linux",
        **spec.labels,
    }


def node_document(spec: NodeSpec, machine: Machine, status: Json) -> Json:
    """The object that registers a node."""
    wanted: Json = {}
    if machine.pod_cidr:
        wanted = {"podCIDR": machine.pod_cidr, "podCIDRs": [machine.pod_cidr]}
    if spec.taints:
        wanted["taints"] = [dict(taint) for taint in spec.taints]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": spec.name,
            "labels": node_labels(spec),
            "annotations": {
                "volumes.kubernetes.io/controller-managed-attach-detach": "true",
                **spec.annotations,
            },
        },
        "spec": wanted,
        "status": status,
    }


def node_status(
    spec: NodeSpec,
    machine: Machine,
    before: Json,
    pressures: Mapping[str, bool],
    images: Sequence[Image],
    now: str,
) -> Json:
    """The status to post: static facts, conditions with a fresh heartbeat, the images."""
    capacity = spec.capacity()
    status: Json = {
        "addresses": [
            {"type": "InternalIP", "address": machine.ip},
            {"type": "Hostname", "address": spec.name},
        ],
        "capacity": capacity,
        "allocatable": {**foreign_allocatable(before, capacity), **capacity},
        "conditions": conditions(before, pressures, now),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": KUBELET_PORT}},
        "nodeInfo": _node_info(machine),
        "features": {"supplementalGroupsPolicy": True},
        "declaredFeatures": list(DECLARED_FEATURES),
    }
    if images:
        largest = sorted(images, key=lambda image: -image.size_bytes)[:MAX_IMAGES]
        status["images"] = [{"names": [i.ref, i.name], "sizeBytes": i.size_bytes} for i in largest]
    return status


def _node_info(machine: Machine) -> Json:
    return {
        "machineID": machine.machine_id.replace("-", ""),
        "systemUUID": machine.machine_id,
        "bootID": machine.boot_id,
        "kernelVersion": "6.1.0-sim",
        "osImage": "kcp simulated node",
        "containerRuntimeVersion": f"{machine.scheme}://{machine.runtime.runtime_version}",
        "kubeletVersion": KUBELET_VERSION,
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": "amd64",
    }


def conditions(before: Json, pressures: Mapping[str, bool], now: str) -> list[Json]:
    """The five conditions; a status that did not change keeps its transition time."""
    old = {entry["type"]: entry for entry in before.get("conditions") or ()}
    found = [
        _condition(old, "NetworkUnavailable", "False", "RouteCreated", "RouteController created a route", now)
    ]
    for type_ in PRESSURES:
        under = pressures.get(type_, False)
        reason, text = _TEXTS[type_][under]
        found.append(_condition(old, type_, "True" if under else "False", reason, text, now))
    found.append(_condition(old, "Ready", "True", "KubeletReady", "kubelet is posting ready status", now))
    return found


def _condition(old: Mapping[str, Json], type_: str, status: str, reason: str, message: str, now: str) -> Json:
    before = old.get(type_)
    same = before is not None and before.get("status") == status
    since = before.get("lastTransitionTime") if same and before is not None else now
    return {
        "type": type_,
        "status": status,
        "lastHeartbeatTime": now,
        "lastTransitionTime": since,
        "reason": reason,
        "message": message,
    }


def foreign_allocatable(status: Json, own: Json) -> Json:
    """What a merge patch must say of extended resources that others put into a status, or took out of it.

    All of such a capacity can be allocated, and nothing of one that is gone (None: the member goes).
    Source: k8s v1.36 pkg/kubelet/nodestatus/setters.go MachineInfo.
    """
    capacity, allocatable = status.get("capacity") or {}, status.get("allocatable") or {}
    gone = {name: None for name in allocatable if name not in capacity and is_extended(name)}
    return {**gone, **{name: amount for name, amount in capacity.items() if name not in own}}


def is_contradicted(ours: Json, seen: Json) -> bool:
    """Whether somebody else has changed a condition or a capacity of the node since it was posted."""
    found = {entry["type"]: entry.get("status") for entry in seen.get("conditions") or ()}
    if any(found.get(entry["type"]) != entry["status"] for entry in ours.get("conditions") or ()):
        return True
    allocatable = seen.get("allocatable") or {}
    wanted = foreign_allocatable(seen, ours.get("capacity") or {})
    return any(allocatable.get(name) != amount for name, amount in wanted.items())


def pressures_of(node: Json) -> dict[str, bool]:
    """What the node's annotations ask for."""
    annotations = (node.get("metadata") or {}).get("annotations") or {}
    return {
        type_: annotations.get(annotation) == "true" for annotation, type_ in PRESSURE_ANNOTATIONS.items()
    }
