"""Workloads of dynamic resource allocation and declared features, as in Kubernetes' scheduler_perf/{dra,nodedeclaredfeatures}."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.scheduler import templates as t
from benchmarks.scheduler.workloads import Scene, Workload
from kcp.scheduler.dra.devices import CLAIMS, CLASSES, SLICES

Json = dict[str, Any]
DRIVER = "test-driver.cdi.k8s.io"
ONE: Json = {"deviceClassName": "test-class", "allocationMode": "ExactCount", "count": 1}


def device(number: int) -> Json:
    return {
        "name": f"instance-{number}",
        "attributes": {
            "model": {"string": "A100"},
            "family": {"string": "GPU"},
            "driverVersion": {"version": "1.2.3"},
            "dra.example.com/numa": {"int": number},
        },
        "capacity": {"memory": {"value": "1Gi"}},
    }


def _named(kind: str, name: str, spec: Json) -> Json:
    return {"apiVersion": "resource.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def resource_slice(node: str, **spec: Any) -> Json:
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    return _named("ResourceSlice", node, {"driver": DRIVER, "nodeName": node, "pool": pool, **spec})


def device_class(name: str = "test-class") -> Json:
    selector = {"cel": {"expression": f'device.driver == "{DRIVER}"'}}
    return _named("DeviceClass", name, {"selectors": [selector]})


def nodes_with_devices(nodes: int, devices: int) -> list[tuple[str, Json]]:
    names = [f"scheduler-perf-dra-{number}" for number in range(nodes)]
    labels = {"node-with-dra": "true"}
    made: list[tuple[str, Json]] = [("nodes", t.node(name, labels)) for name in names]
    made += [(SLICES, resource_slice(name, devices=[device(n) for n in range(devices)])) for name in names]
    return [*made, (CLASSES, device_class())]


def claim(name: str, *requests: Json, **devices: Any) -> tuple[str, Json]:
    rows = [{"name": f"req-{number}", **request} for number, request in enumerate(requests)]
    made = _named("ResourceClaim", name, {"devices": {"requests": rows, **devices}})
    made["metadata"] = {"name": name, "namespace": "sched-0", "uid": f"uid-{name}"}
    return CLAIMS, made


def pods_with(prefix: str, count: int, claim_of: Callable[[int], str]) -> list[Json]:
    def entry(number: int) -> list[Json]:
        return [{"name": "resource", "resourceClaimName": claim_of(number)}]

    return [t.pod(f"{prefix}-{n}", "sched-0", resourceClaims=entry(n)) for n in range(count)]


def own_claims(
    prefix: str, count: int, *requests: Json, **devices: Any
) -> tuple[list[tuple[str, Json]], list[Json]]:
    names = [f"{prefix}-{number}" for number in range(count)]
    return [claim(name, *requests, **devices) for name in names], pods_with(prefix, count, lambda n: names[n])


def template_claims(nodes: int, devices: int) -> Callable[[float], Scene]:
    """A claim for each pod; the cluster is full at the end."""

    def build(scale: float) -> Scene:
        n = max(1, int(nodes * scale))
        half = n * devices // 2
        there, init = own_claims("init", half, {"exactly": ONE})
        fresh, measured = own_claims("pod", n * devices - half, {"exactly": ONE})
        return Scene([*nodes_with_devices(n, devices), *there, *fresh], init, measured)

    return build


def shared_claims(nodes: int, devices: int) -> Callable[[float], Scene]:
    """Five pods for each claim."""

    def build(scale: float) -> Scene:
        n = max(1, int(nodes * scale))
        half = n * devices // 2
        names = [f"test-claim-{number}" for number in range(n * devices)]
        objects = nodes_with_devices(n, devices) + [claim(name, {"exactly": ONE}) for name in names]
        init = pods_with("init", 5 * half, lambda i: names[i // 5])
        return Scene(objects, init, pods_with("pod", 5 * half, lambda i: names[half + i // 5]))

    return build


def steady(nodes: int, in_use: int) -> Callable[[float], Scene]:
    """So many claims hold a device for ever; each measured pod goes as soon as it has its own."""

    def build(scale: float) -> Scene:
        n = max(1, int(nodes * scale))
        there, init = own_claims("init", min(int(in_use * scale), 10 * n - 1), {"exactly": ONE})
        fresh, measured = own_claims("pod", int(2000 * scale) or 1, {"exactly": ONE})
        return Scene([*nodes_with_devices(n, 10), *there, *fresh], init, measured)

    return build


def first_available(scale: float) -> Scene:
    n = max(1, int(100 * scale))
    choices = [
        {"name": "first", **ONE, "deviceClassName": "nothing"},
        {"name": "second", **ONE},
    ]
    fresh, measured = own_claims("pod", 10 * n, {"firstAvailable": choices})
    never = _named("DeviceClass", "nothing", {"selectors": [{"cel": {"expression": "false"}}]})
    return Scene([*nodes_with_devices(n, 10), (CLASSES, never), *fresh], [], measured)


def backtracking(scale: float) -> Scene:
    """One slice of eight devices over eight cpus and 70Gi, the first takes 20Gi, the others 10Gi; seven are wanted."""
    n = max(1, int(100 * scale))
    cpus = {f"cpu{c}": {"value": "1"} for c in range(8)}
    sets = [{"name": "set", "counters": {**cpus, "memory": {"value": "70Gi"}}}]
    parts = [
        {
            **device(c),
            "consumesCounters": [
                {
                    "counterSet": "set",
                    "counters": {f"cpu{c}": {"value": "1"}, "memory": {"value": "10Gi" if c else "20Gi"}},
                }
            ],
        }
        for c in range(8)
    ]
    objects: list[tuple[str, Json]] = [(CLASSES, device_class())]
    for number in range(n):
        name = f"scheduler-perf-dra-{number}"
        objects.append(("nodes", t.node(name)))
        for suffix, spec in (("counters", {"sharedCounters": sets}), ("devices", {"devices": parts})):
            made = resource_slice(name, **spec)
            made["metadata"] = {"name": f"{name}-{suffix}"}
            made["spec"]["pool"] = {"name": name, "generation": 1, "resourceSliceCount": 2}
            objects.append((SLICES, made))
    fresh, measured = own_claims("pod", n, {"exactly": {**ONE, "count": 7}})
    return Scene([*objects, *fresh], [], measured)


def consumable(scale: float) -> Scene:
    """A shared device of 80Gi on each node, 40Gi wanted twice by each claim."""
    n = max(1, int(100 * scale))
    shared = {**device(0), "allowMultipleAllocations": True, "capacity": {"memory": {"value": "80Gi"}}}
    objects: list[tuple[str, Json]] = [(CLASSES, device_class())]
    for number in range(n):
        name = f"scheduler-perf-dra-{number}"
        objects += [("nodes", t.node(name)), (SLICES, resource_slice(name, devices=[shared]))]
    half = {"exactly": {**ONE, "capacity": {"requests": {"memory": "40Gi"}}}}
    fresh, measured = own_claims("pod", n, half, half)
    return Scene([*objects, *fresh], [], measured)


def extended(classes: int, *, implicit: bool = False) -> Callable[[float], Scene]:
    """Pods ask for an extended resource that devices stand behind, each class in turn; the cluster is full at the end."""

    def build(scale: float) -> Scene:
        n, devices = max(1, int(500 * scale)), 10
        objects = [each for each in nodes_with_devices(n, devices) if each[0] != CLASSES]
        resources = []
        for number in range(classes):
            made = device_class(f"test-class-{number}")
            resources.append(f"deviceclass.resource.kubernetes.io/test-class-{number}")
            if not implicit:
                resources[-1] = made["spec"]["extendedResourceName"] = f"example.com/gpu-{number}"
            objects.append((CLASSES, made))

        def pods(prefix: str, count: int) -> list[Json]:
            return [_asking(f"{prefix}-{i}", resources[i % classes]) for i in range(count)]

        half = n * devices // 2
        return Scene(objects, pods("init", half), pods("pod", n * devices - half))

    return build


def _asking(name: str, resource: str) -> Json:
    made = t.pod(name, "sched-0")
    (container,) = made["spec"]["containers"]
    amounts = {**container["resources"]["requests"], resource: "1"}
    container["resources"] = {"requests": amounts, "limits": amounts}
    return made


def declared_features(count: int) -> Callable[[float], Scene]:
    def build(scale: float) -> Scene:
        n = max(1, int(5000 * scale))
        features = [f"Feature{number}" for number in range(count)]
        nodes = [t.node(f"node-{number}") for number in range(n)]
        for node in nodes:
            node["status"]["declaredFeatures"] = features
        amounts = {"requests": {"cpu": "100m", "memory": "200Mi"}}
        init, measured = (
            [t.pod(f"{prefix}-{number}", "sched-0", cpu="", resources=amounts) for number in range(n)]
            for prefix in ("init", "pod")
        )
        return Scene([("nodes", node) for node in nodes], init, measured)

    return build


DEVICE_WORKLOADS: tuple[Workload, ...] = (
    Workload("SchedulingWithResourceClaimTemplate/5000pods_500nodes", 40, template_claims(500, 10)),
    Workload("SchedulingWithResourceClaimTemplate/2000pods_100nodes", 40, template_claims(100, 20)),
    Workload("SteadyStateClusterResourceClaimTemplate/empty_500nodes", 64, steady(500, 0), True),
    Workload("SteadyStateClusterResourceClaimTemplate/half_500nodes", 70, steady(500, 2500), True),
    Workload("SteadyStateClusterResourceClaimTemplate/full_500nodes", 60, steady(500, 4990), True),
    Workload("SchedulingWithResourceClaim/5000pods_500nodes", None, shared_claims(500, 2)),
    Workload("ExtendedResource/5000pods_500nodes", None, extended(1)),
    Workload("ExtendedResource_25Classes/5000pods_500nodes", None, extended(25)),
    Workload("ImplicitExtendedResource_25Classes/5000pods_500nodes", None, extended(25, implicit=True)),
    Workload("FirstAvailable/100nodes", None, first_available),
    Workload("PartitionableBacktracking/100nodes", None, backtracking),
    Workload("ConsumableCapacity/100nodes", None, consumable),
    Workload("NodeDeclaredFeaturesEnabled/5000Nodes_20Features", None, declared_features(20)),
    Workload("NodeDeclaredFeaturesEnabled/5000Nodes_100Features", None, declared_features(100)),
)
