"""What a simulated user does with devices: drivers publish, taint and withdraw them, pods claim them, alone or together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from kcp.client.client import Client
from kcp.machinery.errors import AlreadyExists, NotFound
from kcp.replay import manifests

Json = dict[str, Any]
DRIVER, CLASS = "gpu.simulated", "gpu.simulated"
CLAIMS, SLICES = "resourceclaims.resource.k8s.io", "resourceslices.resource.k8s.io"
TEMPLATES, CLASSES = "resourceclaimtemplates.resource.k8s.io", "deviceclasses.resource.k8s.io"
MANY = 64
API_VERSION = "resource.k8s.io/v1"


def _object(kind: str, name: str, spec: Json) -> Json:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def device_class() -> Json:
    expression = f'device.driver == "{DRIVER}"'
    return _object("DeviceClass", CLASS, {"selectors": [{"cel": {"expression": expression}}]})


def resource_slice(node: str, devices: int, generation: int) -> Json:
    made = [
        {"name": f"gpu-{n}", "attributes": {"numa": {"int": n % 2}}, "capacity": {"memory": {"value": "8Gi"}}}
        for n in range(devices)
    ]
    pool = {"name": node, "generation": generation, "resourceSliceCount": 1}
    spec = {"driver": DRIVER, "nodeName": node, "pool": pool, "devices": made}
    return _object("ResourceSlice", f"{node}-{DRIVER}", spec)


def claim_spec(count: int) -> Json:
    request = {"deviceClassName": CLASS, "allocationMode": "ExactCount", "count": count}
    return {"devices": {"requests": [{"name": "gpus", "exactly": request}]}}


async def _publish(client: Client, node: int, devices: int) -> None:
    await _made(client, CLASSES, device_class())
    nodes = (await client.list("nodes")).items
    if not nodes:
        raise NotFound("simulated: there is none")
    name = nodes[node % len(nodes)]["metadata"]["name"]
    try:
        there = await client.get(SLICES, f"{name}-{DRIVER}")
    except NotFound:
        await client.create(SLICES, resource_slice(name, devices, 1))
        return
    spec = resource_slice(name, devices, there["spec"]["pool"]["generation"] + 1)["spec"]
    await client.update(SLICES, {**there, "spec": spec})


async def enough_devices(client: Client) -> None:
    """So many on every node that no pod has to wait, if there was ever talk of devices."""
    if (await client.list(CLASSES)).items:
        for number, _ in enumerate((await client.list("nodes")).items):
            await _publish(client, number, MANY)


async def _withdraw(client: Client, node: int) -> None:
    slices = (await client.list(SLICES)).items
    if not slices:
        raise NotFound("simulated: there is none")
    await client.delete(SLICES, slices[node % len(slices)]["metadata"]["name"])


async def _taint(client: Client, node: int, effect: str) -> None:
    """Every device of one slice; without an effect they are well again."""
    slices = (await client.list(SLICES)).items
    if not slices:
        raise NotFound("simulated: there is none")
    there = slices[node % len(slices)]
    taints = {"taints": [{"key": "simulated/sick", "effect": effect}]} if effect else {}
    well = [{k: v for k, v in each.items() if k != "taints"} for each in there["spec"].get("devices") or ()]
    spec = {**there["spec"], "devices": [{**each, **taints} for each in well]}
    await client.update(SLICES, {**there, "spec": spec})


async def _create_set(client: Client, namespace: str, name: str, replicas: int, count: int) -> None:
    """A Deployment whose pods have a claim each, from a template."""
    await _made(client, CLASSES, device_class())
    template = _object("ResourceClaimTemplate", name, {"spec": claim_spec(count)})
    await _made(client, TEMPLATES, template, namespace)
    made = manifests.deployment(name, replicas, 1, 1, recreate=False, tolerate_s=None)
    entry = {"name": "gpus", "resourceClaimTemplateName": name}
    made["spec"]["template"]["spec"]["resourceClaims"] = [entry]
    await client.create("deployments.apps", made, namespace)


async def _scale_set(client: Client, namespace: str, name: str, replicas: int) -> None:
    patch = {"spec": {"replicas": replicas}}
    await client.patch("deployments.apps", name, patch, "merge", namespace)


async def _create_claim(client: Client, namespace: str, name: str, count: int) -> None:
    await client.create(CLAIMS, _object("ResourceClaim", name, claim_spec(count)), namespace)


async def _delete_claim(client: Client, namespace: str, name: str) -> None:
    await client.delete(CLAIMS, name, namespace)


async def _create_pod(client: Client, namespace: str, name: str, command: str, claim: str) -> None:
    made = manifests.bare_pod(name, command, "Never", "", ephemeral=False)
    made["spec"]["resourceClaims"] = [{"name": "gpus", "resourceClaimName": claim}]
    await client.create("pods", made, namespace)


async def _made(client: Client, resource: str, obj: Json, namespace: str = "") -> None:
    try:
        await client.create(resource, obj, namespace)
    except AlreadyExists:
        return


DEVICE_VERBS: Mapping[str, Callable[..., Awaitable[None]]] = {
    "publish-devices": _publish,
    "withdraw-devices": _withdraw,
    "taint-devices": _taint,
    "create-device-set": _create_set,
    "scale-device-set": _scale_set,
    "create-device-claim": _create_claim,
    "delete-device-claim": _delete_claim,
    "create-device-pod": _create_pod,
}
