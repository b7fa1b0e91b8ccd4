"""Kubelets for planner tests: give the pods of a World a status, without any loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kcp.machinery import meta
from kcp.machinery.times import format_time
from tests.support.planning import World

Json = dict[str, Any]


def set_status(
    world: World, pod: Json, phase: str, *, ready: bool = False, exit_code: int | None = None
) -> None:
    stamp = format_time(world.now)
    status: Json = {
        "phase": phase,
        "conditions": [
            {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": stamp}
        ],
    }
    if exit_code is not None:
        ended = {"exitCode": exit_code, "finishedAt": stamp}
        names = [container["name"] for container in pod["spec"]["containers"]]
        status["containerStatuses"] = [
            {"name": name, "restartCount": 0, "state": {"terminated": ended}} for name in names
        ]
    world.put({**pod, "status": status})


def run_new(world: World, *, ready: bool = True) -> int:
    """Pods without a phase start to run; how many did."""
    fresh = [pod for pod in world.all("pods") if not (pod.get("status") or {}).get("phase")]
    for pod in fresh:
        set_status(world, pod, "Running", ready=ready)
    return len(fresh)


def end_running(world: World, code: int, which: Callable[[Json], bool] = lambda pod: True) -> int:
    """Pods that have not ended yet end with that exit code; how many did."""
    living = [
        pod
        for pod in world.all("pods")
        if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed") and which(pod)
    ]
    for pod in living:
        set_status(world, pod, "Failed" if code else "Succeeded", exit_code=code)
    return len(living)


def start_deleting(world: World, pod: Json) -> Json:
    """As a graceful deletion leaves it."""
    stamp = format_time(world.now)
    marked = {**pod["metadata"], "deletionTimestamp": stamp, "deletionGracePeriodSeconds": 0}
    return world.put({**pod, "metadata": marked})


def pod_names(world: World) -> list[str]:
    return [meta.name(pod) for pod in world.all("pods")]


def images(world: World) -> list[str]:
    return [pod["spec"]["containers"][0]["image"].rpartition(":")[2] for pod in world.all("pods")]


def edit(world: World, resource: str, key: str, **spec: Any) -> None:
    """A user's change of an object's spec."""
    current = world.get(resource, key)
    metadata = {**current["metadata"], "generation": current["metadata"]["generation"] + 1}
    world.put({**current, "spec": {**current["spec"], **spec}, "metadata": metadata})


def set_image(world: World, resource: str, key: str, image: str) -> None:
    template = world.get(resource, key)["spec"]["template"]
    containers = [{**template["spec"]["containers"][0], "image": image}]
    edit(world, resource, key, template={**template, "spec": {**template["spec"], "containers": containers}})
