"""The objects that scenarios create: small, complete, without a namespace (the path says it)."""

from __future__ import annotations

from typing import Any

from kcp.machinery import meta

Json = dict[str, Any]
APPS = "/apis/apps/v1/namespaces/{}"
BATCH = "/apis/batch/v1/namespaces/{}"
IMAGE, OTHER_IMAGE, THIRD_IMAGE = (f"registry.example/app:{number}" for number in (1, 2, 3))


def container(name: str = "main", script: str = "", image: str = IMAGE, **more: Any) -> Json:
    """Without a script it runs until it is stopped."""
    built: Json = {"name": name, "image": image, **more}
    if script:
        built["command"] = ["sh", "-c", script]
    return built


def pod(
    name: str,
    script: str = "",
    *,
    labels: Json | None = None,
    image: str = IMAGE,
    annotations: Json | None = None,
    requests: Json | None = None,
    **spec: Any,
) -> Json:
    more: Json = {"resources": {"requests": requests, "limits": requests}} if requests else {}
    metadata: Json = {"name": name, "labels": labels or {"name": name}}
    if annotations:
        metadata["annotations"] = annotations
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [container(script=script, image=image, **more)], **spec},
    }


def template(labels: Json, script: str = "", image: str = IMAGE, **spec: Any) -> Json:
    return {
        "metadata": {"labels": labels},
        "spec": {"containers": [container(script=script, image=image)], **spec},
    }


def workload(
    name: str, replicas: int | None = 1, *, image: str = IMAGE, pod: Json | None = None, **spec: Any
) -> Json:
    """A Deployment, ReplicaSet or StatefulSet (or, with `replicas` None, a DaemonSet) without its kind."""
    labels = {"app": name}
    built: Json = {
        "selector": {"matchLabels": labels},
        "template": template(labels, image=image, **(pod or {})),
        **spec,
    }
    if replicas is not None:
        built["replicas"] = replicas
    return {"metadata": {"name": name, "labels": labels}, "spec": built}


def controller(name: str, replicas: int = 1, **spec: Any) -> Json:
    """A ReplicationController."""
    labels = {"name": name}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"replicas": replicas, "selector": labels, "template": template(labels), **spec},
    }


def job(name: str, script: str, *, restart: str = "Never", pod: Json | None = None, **spec: Any) -> Json:
    inner = {"restartPolicy": restart, "containers": [container("c", script)], **(pod or {})}
    return {"metadata": {"name": name}, "spec": {"template": {"spec": inner}, **spec}}


def reference(api_version: str, kind: str, owner: Json, **more: Any) -> Json:
    """An owner reference."""
    metadata = owner["metadata"]
    return {"apiVersion": api_version, "kind": kind, "name": metadata["name"], "uid": metadata["uid"], **more}


def is_running(pod: Json) -> bool:
    return bool(pod["status"].get("phase") == "Running")


def is_ready(pod: Json) -> bool:
    return meta.condition_is(pod, "Ready")


def condition(obj: Json, type_: str) -> Json:
    """The condition of that type; an empty one where there is none."""
    return meta.condition(obj, type_) or {}


def all_of(count: int, holds: Any) -> Any:
    """Whether a list has so many items and each is as wanted."""
    return lambda found: len(found["items"]) == count and all(map(holds, found["items"]))


def images(found: Json) -> list[str]:
    """Of each pod of a list, its first container's."""
    return [pod["spec"]["containers"][0]["image"] for pod in found["items"]]


def owner_of(obj: Json) -> str:
    """Name of the controller, or nothing."""
    owner = meta.controller_of(obj)
    return "" if owner is None else str(owner["name"])
