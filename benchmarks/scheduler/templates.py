"""The pods and nodes of the workloads. Source: k8s v1.36 test/integration/scheduler_perf (shapes, not files)."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
ZONE, HOSTNAME = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
SCHED = ["sched-0", "sched-1"]


def node(name: str, labels: Json | None = None, pods: str = "110", taints: list[Json] | None = None) -> Json:
    amounts = {"cpu": "4", "memory": "32Gi", "pods": pods}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {HOSTNAME: name, **(labels or {})}},
        "spec": {"taints": taints} if taints else {},
        "status": {
            "capacity": amounts,
            "allocatable": amounts,
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def pod(
    name: str,
    namespace: str,
    cpu: str = "100m",
    memory: str = "500Mi",
    labels: Json | None = None,
    **spec: Any,
) -> Json:
    container: Json = {
        "name": "pause",
        "image": "registry.k8s.io/pause:3.10.2",
        "ports": [{"containerPort": 80}],
    }
    if cpu:
        amounts = {"cpu": cpu, "memory": memory}
        container["resources"] = {"limits": amounts, "requests": amounts}
    metadata: Json = {"name": name, "namespace": namespace, "uid": f"{namespace}/{name}"}
    if labels:
        metadata["labels"] = labels
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"schedulerName": "default-scheduler", "containers": [container], **spec},
    }


def _term(color: str, key: str, **where: Any) -> Json:
    return {"labelSelector": {"matchLabels": {"color": color}}, "topologyKey": key, **where}


def affinity(
    kind: str, color: str, key: str, *, preferred: bool = False, labels: Json | None = None, **where: Any
) -> Json:
    """Arguments of `pod` for a pod with one term about pods of a colour, which it has itself."""
    term = _term(color, key, **(where or {"namespaces": SCHED}))
    if preferred:
        part: Json = {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term}]
        }
    else:
        part = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    return {"labels": {"color": color}, "affinity": {kind: part}}


def spreading(when: str) -> Json:
    constraint = {
        "maxSkew": 5,
        "topologyKey": ZONE,
        "whenUnsatisfiable": when,
        "labelSelector": {"matchLabels": {"color": "blue"}},
    }
    return {"labels": {"color": "blue"}, "topologySpreadConstraints": [constraint]}


DEVOPS: Json = {"namespaceSelector": {"matchLabels": {"team": "devops"}}}
POD_AFFINITY = affinity("podAffinity", "blue", ZONE)
POD_ANTI_AFFINITY = affinity("podAntiAffinity", "green", HOSTNAME)
PREFERRED_AFFINITY = affinity("podAffinity", "red", HOSTNAME, preferred=True)
PREFERRED_ANTI_AFFINITY = affinity("podAntiAffinity", "yellow", HOSTNAME, preferred=True)
NODE_AFFINITY: Json = {
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": ZONE, "operator": "In", "values": ["zone1", "zone2"]}]}
                ]
            }
        }
    }
}
DAEMON: Json = {
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {
                        "matchFields": [
                            {"key": "metadata.name", "operator": "In", "values": ["scheduler-perf-node"]}
                        ]
                    }
                ]
            }
        }
    }
}
INCLUSION: Json = {
    "labels": {"foo": "bar"},
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": HOSTNAME,
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"foo": "bar"}},
            "nodeAffinityPolicy": "Honor",
            "nodeTaintsPolicy": "Honor",
        }
    ],
}
