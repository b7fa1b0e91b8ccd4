"""Random devices and claims: few kinds of each, so that they compete."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from kcp.machinery.quantity import parse

Json = dict[str, Any]
DRIVER, OTHER = "gpu.example.com", "nic.example.com"
CLASSES = ("any", "gpu")


def _large(driver: str, device: Json) -> bool:
    return driver == DRIVER and parse(device["capacity"]["memory"]["value"]) >= parse("20Gi")


SAYS: Mapping[str, Callable[[str, Json], bool]] = {
    f'device.driver == "{DRIVER}"': lambda driver, device: driver == DRIVER,
    f'device.driver != "{DRIVER}" || device.attributes["{DRIVER}"].n > 1': lambda driver, device: (
        driver != DRIVER or device["attributes"]["n"]["int"] > 1
    ),
    f'device.driver == "{DRIVER}" && device.capacity["{DRIVER}"].memory.compareTo(quantity("20Gi")) >= 0': _large,
    f'device.driver == "{DRIVER}" && device.attributes["{DRIVER}"].model == "a"': lambda driver, device: (
        driver == DRIVER and device["attributes"]["model"]["string"] == "a"
    ),
}
"""What each selector means, said once more."""
ONLY_GPU, *OTHERS = SAYS


EXTENDED = "example.com/gpu"
"""The extended resource that some nodes offer by count, and classes may serve."""


def device_classes(serving: Sequence[str] = ()) -> list[Json]:
    """`serving` classes stand behind the extended resource."""
    gpu = {"selectors": [{"cel": {"expression": ONLY_GPU}}]}
    found: list[Json] = [
        {"metadata": {"name": "any"}, "spec": {}},
        {"metadata": {"name": "gpu"}, "spec": gpu},
    ]
    for made in found:
        if made["metadata"]["name"] in serving:
            made["spec"]["extendedResourceName"] = EXTENDED
    return found


def wanting(rng: Random, pod: Json) -> Json:
    """The pod, with some containers that ask for the extended resource."""
    spec = dict(pod["spec"])
    for field in ("initContainers", "containers"):
        if field in spec:
            spec[field] = [_wanting(rng, container) for container in spec[field]]
    return {**pod, "spec": spec}


def _wanting(rng: Random, container: Json) -> Json:
    requests = dict((container.get("resources") or {}).get("requests") or {})
    if rng.random() < 0.6:
        requests[rng.choice([EXTENDED, EXTENDED, "deviceclass.resource.kubernetes.io/any"])] = rng.choice(
            "112"
        )
    return {**container, "resources": {"requests": requests}}


def _device(rng: Random, name: str, counters: bool) -> Json:
    memory: Json = {"value": rng.choice(["10Gi", "20Gi", "40Gi"])}
    made: Json = {
        "name": name,
        "attributes": {
            "n": {"int": rng.randint(0, 3)}, "model": {"string": rng.choice("ab")}, "x.example.com/numa": {"int": rng.randint(0, 1)},
        },
        "capacity": {"memory": memory},
    }  # fmt: skip
    if rng.random() < 0.2:
        del made["attributes"]["x.example.com/numa"]
    if rng.random() < 0.15:
        made["taints"] = [{"key": "sick", "effect": rng.choice(["NoSchedule", "NoExecute", "None"])}]
    if rng.random() < 0.25:
        made["allowMultipleAllocations"] = True
        roll = rng.random()
        if roll < 0.3:
            memory["requestPolicy"] = {"default": "5Gi", "validRange": {"min": "5Gi", "max": "10Gi", "step": "5Gi"}}  # fmt: skip
        elif roll < 0.6:
            memory["requestPolicy"] = {"default": "5Gi", "validValues": ["5Gi", "10Gi"]}
    if counters:
        consumed = {"memory": {"value": rng.choice(["10Gi", "20Gi"])}}
        made["consumesCounters"] = [{"counterSet": "set", "counters": consumed}]
    return made


def slices(rng: Random, nodes: list[str]) -> list[Json]:
    found: list[Json] = []
    for node in nodes:
        roll = rng.random()
        if roll < 0.6:
            counters = rng.random() < 0.3
            found += _pool(rng, node, {"nodeName": node}, counters)
    where: list[Json] = [
        {"allNodes": True},
        {"nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [_in_rack(rng)]}]}},
    ]
    for number, holder in enumerate(where):
        if rng.random() < 0.4:
            found += _pool(rng, f"shared-{number}", holder, rng.random() < 0.3)
    if rng.random() < 0.3:
        found += _pool(rng, "mixed", {"perDeviceNodeSelection": True}, False, nodes)
    return found


def _in_rack(rng: Random) -> Json:
    return {"key": "rack", "operator": "In", "values": rng.sample("xyz", 2)}


def _pool(rng: Random, name: str, where: Json, counters: bool, nodes: list[str] | None = None) -> list[Json]:
    """Its slices; now and then one is missing, or left over from before."""
    driver = rng.choice([DRIVER, DRIVER, OTHER])
    devices = [_device(rng, f"d{n}", counters) for n in range(rng.randint(1, 4))]
    if nodes is not None:
        for device in devices:
            device.update(rng.choice([{"nodeName": rng.choice(nodes)}, {"allNodes": True}]))
    if rng.random() < 0.08:
        devices.append(devices[0])
    parts = [devices[:2], devices[2:]] if len(devices) > 2 else [devices]
    specs: list[Json] = [{"devices": part, **where} for part in parts]
    if counters:
        amount = {"memory": {"value": rng.choice(["20Gi", "40Gi"])}}
        specs.append({"sharedCounters": [{"name": "set", "counters": amount}], **where})
    made = [
        {
            "metadata": {"name": f"{name}-{driver}-{number}"},
            "spec": {
                "driver": driver,
                "pool": {"name": name, "generation": 2, "resourceSliceCount": len(specs)},
                **spec,
            },
        }
        for number, spec in enumerate(specs)
    ]
    if rng.random() < 0.1:
        old = made[0]
        spec = {**old["spec"], "pool": {**old["spec"]["pool"], "generation": 1}}
        made.append({"metadata": {"name": f"{name}-{driver}-old"}, "spec": spec})
    elif rng.random() < 0.08:
        made.pop(0)
    return made


def _request(rng: Random) -> Json:
    made: Json = {"deviceClassName": rng.choice(CLASSES), "allocationMode": "ExactCount"}
    made["count"] = rng.choice([1, 1, 1, 2])
    if rng.random() < 0.5:
        made["selectors"] = [{"cel": {"expression": rng.choice(OTHERS)}}]
    if rng.random() < 0.2:
        made["tolerations"] = [{"key": "sick", "operator": "Exists"}]
    if rng.random() < 0.2:
        made["capacity"] = {"requests": {"memory": rng.choice(["2Gi", "6Gi", "12Gi"])}}
    return made


def claim_spec(rng: Random) -> Json:
    requests: list[Json] = []
    for number in range(rng.choice([1, 1, 2])):
        if rng.random() < 0.25:
            alternatives = [{"name": f"a{n}", **_request(rng)} for n in range(2)]
            requests.append({"name": f"r{number}", "firstAvailable": alternatives})
            continue
        exactly = _request(rng)
        if rng.random() < 0.08:
            exactly["adminAccess"] = True
        requests.append({"name": f"r{number}", "exactly": exactly})
    devices: Json = {"requests": requests}
    if rng.random() < 0.3:
        kind = rng.choice(["matchAttribute", "distinctAttribute"])
        constraint: Json = {kind: rng.choice(["x.example.com/numa", f"{DRIVER}/model"])}
        if rng.random() < 0.4:
            constraint["requests"] = ["r0"]
        devices["constraints"] = [constraint]
    return {"devices": devices}


def claim(namespace: str, name: str, spec: Json) -> Json:
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-{namespace}-{name}"}
    return {"metadata": metadata, "spec": spec}
