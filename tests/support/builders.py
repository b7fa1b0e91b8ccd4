"""Small objects for tests, complete enough to be valid: `pod("web", cpu="100m")`, `deployment("web", replicas=3)`."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def metadata(name: str, namespace: str = "default", **more: Any) -> Json:
    base: Json = {"name": name}
    if namespace:
        base["namespace"] = namespace
    return {**base, **more}


def container(name: str = "main", image: str = "registry.example/app:1", **resources: str) -> Json:
    built: Json = {"name": name, "image": image}
    if resources:
        built["resources"] = {"requests": resources}
    return built


def pod(
    name: str,
    namespace: str = "default",
    *,
    labels: dict[str, str] | None = None,
    node: str = "",
    **more: Any,
) -> Json:
    """`more`: cpu, memory (requests), phase, ready, owner (an object), spec (extra fields), uid."""
    requests = {key: more.pop(key) for key in ("cpu", "memory") if key in more}
    phase, ready, owner = more.pop("phase", ""), more.pop("ready", None), more.pop("owner", None)
    spec = {"containers": [container(**requests)], **more.pop("spec", {})}
    if node:
        spec["nodeName"] = node
    meta = metadata(name, namespace, labels=labels or {"app": name}, **more)
    if owner is not None:
        meta["ownerReferences"] = [owner_ref(owner)]
    built: Json = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": {}}
    if phase:
        built["status"]["phase"] = phase
    if ready is not None:
        built["status"]["conditions"] = [
            {
                "type": "Ready",
                "status": "True" if ready else "False",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ]
    return built


def owner_ref(owner: Json, *, controller: bool = True, block: bool = True) -> Json:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": controller,
        "blockOwnerDeletion": block,
    }


def template(app: str, image: str = "registry.example/app:1") -> Json:
    return {"metadata": {"labels": {"app": app}}, "spec": {"containers": [container(image=image)]}}


def deployment(name: str, *, replicas: int = 1, image: str = "registry.example/app:1", **spec: Any) -> Json:
    """`spec` overrides spec fields: strategy, paused, minReadySeconds …"""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(name),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template(name, image),
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
            },
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
            **spec,
        },
        "status": {},
    }


def replicaset(
    name: str, *, replicas: int = 1, app: str = "", owner: Json | None = None, **status: int
) -> Json:
    meta = metadata(name)
    if owner is not None:
        meta["ownerReferences"] = [owner_ref(owner)]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": meta,
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": app or name}},
            "template": template(app or name),
        },
        "status": status,
    }


def node(
    name: str, *, ready: str = "True", labels: dict[str, str] | None = None, cpu: str = "4", **spec: Any
) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": metadata(name, "", labels={"kubernetes.io/hostname": name, **(labels or {})}),
        "spec": spec,
        "status": {
            "allocatable": {"cpu": cpu, "memory": "16Gi", "pods": "110"},
            "capacity": {"cpu": cpu, "memory": "16Gi", "pods": "110"},
            "conditions": [
                {
                    "type": "Ready",
                    "status": ready,
                    "reason": "KubeletReady",
                    "lastHeartbeatTime": "2026-01-01T00:00:00Z",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
            ],
        },
    }


def service(name: str, *, port: int = 80, target: int | str | None = None, **spec: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(name),
        "spec": {
            "selector": {"app": name},
            "ports": [{"name": "http", "port": port, "targetPort": target or port, "protocol": "TCP"}],
            "clusterIP": "10.96.0.10",
            "ipFamilies": ["IPv4"],
            **spec,
        },
    }


def namespace(name: str, **more: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": metadata(name, "", **more),
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    }


def statefulset(name: str, *, replicas: int = 1, image: str = "registry.example/app:1", **spec: Any) -> Json:
    """`spec` overrides spec fields: podManagementPolicy, updateStrategy, volumeClaimTemplates …"""
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(name),
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "selector": {"matchLabels": {"app": name}},
            "template": template(name, image),
            "podManagementPolicy": "OrderedReady",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "revisionHistoryLimit": 10,
            **spec,
        },
    }


def daemonset(name: str, *, image: str = "registry.example/app:1", **spec: Any) -> Json:
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": metadata(name),
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": template(name, image),
            "updateStrategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0},
            },
            "revisionHistoryLimit": 10,
            **spec,
        },
    }


def job(name: str, *, image: str = "registry.example/app:1", restart: str = "Never", **spec: Any) -> Json:
    """A Job as it comes from the user; for planner tests add the selector that the server makes (`served_job`)."""
    pod_spec = {"restartPolicy": restart, "containers": [container(image=image)]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(name),
        "spec": {"template": {"metadata": {}, "spec": pod_spec}, **spec},
    }


def served_job(name: str, **spec: Any) -> Json:
    """A Job with what the server fills in."""
    built = job(name, **spec)
    uid = f"job-{name}"
    labels = {"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": name}
    defaults = {
        "parallelism": 1,
        "completions": 1,
        "backoffLimit": 6,
        "completionMode": "NonIndexed",
        "suspend": False,
        "podReplacementPolicy": "TerminatingOrFailed",
        "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}},
    }
    built["metadata"]["uid"] = uid
    built["spec"] = {**defaults, **built["spec"]}
    built["spec"]["template"] = {**built["spec"]["template"], "metadata": {"labels": labels}}
    return built
