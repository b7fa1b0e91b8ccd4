"""Extended resources that devices stand behind: which class serves a resource, and the claim that is made for the pod.

A node that offers the resource itself, by a device plugin, gives it by count; on any other node that the pod might go to
the same request becomes one for devices of the class. The claim for these has no name until it is written:

    special_key(pod)                  what stands for it until the log has it
    special_claim(pod, resources, …)  the claim with its requests, and which container gets which of them

Source: k8s v1.36 pkg/scheduler/framework/plugins/dynamicresources/{extendeddynamicresources,extended/*}.go, KEP-5004.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kcp.apis.core.resources import is_extended
from kcp.apis.semantics import pods as pod_facts
from kcp.machinery import meta
from kcp.scheduler.pod_class import Shape

Json = dict[str, Any]
CLASS_PREFIX = "deviceclass.resource.kubernetes.io/"
"""With the name of a class behind it: the resource that every class serves without saying so."""
ANNOTATION = "resource.kubernetes.io/extended-resource-claim"
IN_MEMORY = "<extended-resources>"


def class_by_resource(classes: Iterable[Json]) -> dict[str, str]:
    """Of several classes that name one resource the newest serves it, then the first by name."""
    chosen: dict[str, Json] = {}
    for found in sorted(classes, key=meta.name, reverse=True):
        name = (found.get("spec") or {}).get("extendedResourceName")
        if name and (name not in chosen or _created(found) >= _created(chosen[name])):
            chosen[name] = found
        chosen[CLASS_PREFIX + meta.name(found)] = found
    return {name: meta.name(found) for name, found in chosen.items()}


def _created(obj: Json) -> str:
    created: str = obj["metadata"].get("creationTimestamp") or ""
    return created


def is_device_resource(name: str) -> bool:
    """Whether a class could serve it."""
    return name.startswith(CLASS_PREFIX) or is_extended(name)


def backed(shape: Shape, serving: Mapping[str, str]) -> tuple[str, ...]:
    """The resources that a pod of this shape asks for and a class serves."""
    return tuple(name for name, _ in shape.real if name in serving) if serving else ()


def is_special(claim: Json) -> bool:
    """Whether the scheduler made the claim for a pod's extended resources."""
    return meta.annotations(claim).get(ANNOTATION) == "true"


def owner_of(claim: Json) -> str:
    """The uid of the pod that a special claim was made for."""
    owner = meta.controller_of(claim)
    return str(owner["uid"]) if owner is not None else ""


def special_key(namespace: str, pod_uid: str) -> str:
    return f"{namespace}/{IN_MEMORY}/{pod_uid}"


def is_special_key(key: str) -> bool:
    return f"/{IN_MEMORY}/" in key


def special_claim(
    pod: Json, resources: Sequence[str], serving: Mapping[str, str]
) -> tuple[Json, tuple[Json, ...]]:
    """(the claim for devices in place of these resources, the rows of the pod's status that say who gets what).

    Its uid is not that of an object, but follows from the pod.
    """
    requests, mappings = _requests(pod, resources, serving)
    key = special_key(meta.namespace(pod), meta.uid(pod))
    owner = {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": meta.name(pod),
        "uid": meta.uid(pod),
        "controller": True,
    }
    claim = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {
            "namespace": meta.namespace(pod),
            "name": key.partition("/")[2],
            "uid": key,
            "generateName": f"{meta.name(pod)}-extended-resources-",
            "annotations": {ANNOTATION: "true"},
            "ownerReferences": [owner],
        },
        "spec": {"devices": {"requests": requests}},
    }
    return claim, mappings


def to_create(claim: Json) -> Json:
    """The claim as it is sent to the API, which names it."""
    metadata = {key: value for key, value in claim["metadata"].items() if key not in ("name", "uid")}
    return {**claim, "metadata": metadata}


def _requests(
    pod: Json, resources: Sequence[str], serving: Mapping[str, str]
) -> tuple[list[Json], tuple[Json, ...]]:
    spec = pod["spec"]
    first = spec.get("initContainers") or []
    containers = [*first, *(spec.get("containers") or ())]
    short = [i for i, c in enumerate(first) if c.get("restartPolicy") != "Always"]
    lasting = [i for i in range(len(containers)) if i not in short]
    requests: list[Json] = []
    mappings: list[Json] = []
    for resource in sorted(resources):
        found, rows = _for_one(containers, lasting, short, resource, serving[resource])
        requests += found
        mappings += rows
    return sorted(requests, key=lambda request: str(request["name"])), tuple(mappings)


def _for_one(
    containers: Sequence[Json], lasting: Sequence[int], short: Sequence[int], resource: str, class_name: str
) -> tuple[list[Json], list[Json]]:
    """Of one resource. Init containers that end use the devices of those that come after them, and share what they need beside."""
    by_container: list[Json | None] = [None] * len(containers)
    rows: list[Json] = []
    for index in lasting:
        by_container[index], more = _request(containers[index], index, resource, class_name, ())
        rows += more
    largest: Json | None = None
    names: list[str] = []
    of_short: list[Json] = []
    for index in short:
        reusable = [request for request in by_container[index:] if request is not None]
        request, more = _request(containers[index], index, resource, class_name, reusable)
        of_short += more
        if request is not None:
            names.append(request["name"])
            if largest is None or largest["exactly"]["count"] < request["exactly"]["count"]:
                largest = request
    if largest is not None:
        of_short = [
            {**r, "requestName": largest["name"]} if r["requestName"] in names else r for r in of_short
        ]
    needed = [request for request in (largest, *by_container) if request is not None]
    return needed, rows + of_short


def _request(
    container: Json, index: int, resource: str, class_name: str, reusable: Sequence[Json]
) -> tuple[Json | None, list[Json]]:
    """(the request for what `reusable` ones do not give, which requests the container uses)."""
    asked = (container.get("resources") or {}).get("requests") or {}
    wanted = pod_facts.amounts(pod_facts.resource_list({resource: asked.get(resource, "0")})).get(resource, 0)
    rows: list[Json] = []
    if not wanted:
        return None, rows
    there = 0
    for request in reusable:
        there += request["exactly"]["count"]
        rows.append(_row(container, resource, request["name"]))
        if there >= wanted:
            return None, rows
    name = f"container-{index}-request-{sorted(asked).index(resource)}"
    rows.append(_row(container, resource, name))
    exactly = {"deviceClassName": class_name, "allocationMode": "ExactCount", "count": wanted - there}
    return {"name": name, "exactly": exactly}, rows


def _row(container: Json, resource: str, request: str) -> Json:
    return {"containerName": container["name"], "resourceName": resource, "requestName": request}
