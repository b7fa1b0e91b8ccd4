"""Slices, classes and claims for tests, and a cluster state with a profile to decide by."""

from __future__ import annotations

from typing import Any

import attrs

from kcp.scheduler import profiles
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.cycle import Decision, decide
from kcp.scheduler.dra.devices import CLAIMS, CLASSES, SLICES
from kcp.scheduler.framework.runtime import Framework
from tests.scheduler import harness

Json = dict[str, Any]
DRIVER = "gpu.example.com"
GROUP = {"apiVersion": "resource.k8s.io/v1"}


def device(name: str, **more: Any) -> Json:
    return {"name": name, **more}


def attributes(**values: Any) -> Json:
    kinds = {bool: "bool", int: "int", str: "string"}
    return {name: {kinds[type(value)]: value} for name, value in values.items()}


def slice_of(
    node: str,
    devices: list[Json],
    *,
    name: str = "",
    pool: str = "",
    generation: int = 1,
    count: int = 1,
    **spec: Any,
) -> Json:
    """On a node, or (`node` empty) wherever `spec` says."""
    where = {"nodeName": node} if node else {}
    return {
        **GROUP,
        "kind": "ResourceSlice",
        "metadata": {"name": name or f"{node or pool}-gpus"},
        "spec": {
            "driver": DRIVER,
            "pool": {"name": pool or node, "generation": generation, "resourceSliceCount": count},
            **where,
            **({"devices": devices} if devices else {}),
            **spec,
        },
    }


def device_class(name: str = "gpu", *expressions: str, **spec: Any) -> Json:
    selectors = [{"cel": {"expression": expression}} for expression in expressions]
    found: Json = {**GROUP, "kind": "DeviceClass", "metadata": {"name": name}, "spec": dict(spec)}
    if selectors:
        found["spec"]["selectors"] = selectors
    return found


def exactly(count: int = 1, *expressions: str, device_class: str = "gpu", **more: Any) -> Json:
    found: Json = {"deviceClassName": device_class, "allocationMode": "ExactCount", "count": count, **more}
    if expressions:
        found["selectors"] = [{"cel": {"expression": expression}} for expression in expressions]
    return found


def every(**more: Any) -> Json:
    return {"deviceClassName": "gpu", "allocationMode": "All", **more}


def claim(name: str, *requests: Json, **devices: Any) -> Json:
    """Requests are `exactly` each, named r0, r1, …; one with a name of its own is taken as it is."""
    rows = [
        request if "name" in request else {"name": f"r{number}", "exactly": request}
        for number, request in enumerate(requests)
    ]
    return {
        **GROUP,
        "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}"},
        "spec": {"devices": {"requests": rows, **devices}},
    }


def first_available(name: str, **alternatives: Json) -> Json:
    return {"name": name, "firstAvailable": [{"name": n, **spec} for n, spec in alternatives.items()]}


@attrs.define
class World:
    """A cluster state and the default profile on it."""

    state: ClusterState = attrs.field(factory=ClusterState)
    framework: Framework = attrs.field(init=False)
    cycle: int = 0

    def __attrs_post_init__(self) -> None:
        self.framework = profiles.build(self.state, profiles.Profile())

    def put(self, *objects: Json) -> None:
        """Nodes, slices, classes, claims."""
        resources = {
            "Node": "nodes", "ResourceSlice": SLICES, "DeviceClass": CLASSES, "ResourceClaim": CLAIMS,
        }  # fmt: skip
        for obj in objects:
            self.state.apply(resources[obj["kind"]], None, obj)

    def nodes(self, *names: str) -> None:
        self.put(*(harness.node(name) for name in names))

    def pod(self, name: str, *claims: str) -> Json:
        entries = [{"name": claim, "resourceClaimName": claim} for claim in claims]
        spec: Json = {"resourceClaims": entries} if entries else {}
        made = harness.pod(name, **spec)
        made["metadata"]["uid"] = f"uid-{name}"
        self.state.apply("pods", None, made)
        return made

    def decide(self, pod: str) -> Decision:
        self.cycle += 1
        return decide(self.framework, self.state.pods[f"uid-{pod}"], cycle=self.cycle, seed=1)

    def schedule(self, pod: str, *claims: str) -> Decision:
        """Decide for a new pod and take the decision for true."""
        self.pod(pod, *claims)
        found = self.decide(pod)
        if found.node:
            self.state.assume(f"uid-{pod}", found.node)
            self.state.devices.take(f"uid-{pod}", found.allocations)
        return found

    def devices(self, found: Decision, claim: str = "c") -> list[str]:
        """`request=device` of each result of a claim."""
        results = found.allocations[f"default/{claim}"]["devices"]["results"]
        return [f"{result['request']}={result['device']}" for result in results]


def why(found: Decision) -> str:
    """The part of the text that stands before the post-filters'."""
    return found.text.partition(": ")[2].partition(".")[0]
