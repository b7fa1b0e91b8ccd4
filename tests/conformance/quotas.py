"""What conformance asks of ResourceQuotas."""

from __future__ import annotations

from typing import Any

import attrs

from kcp.controllers.resource_quota import FULL_RESYNC_S
from kcp.machinery.quantity import parse
from tests.conformance.door import MERGE, STRATEGIC, Door
from tests.conformance.objects import APPS, container, controller, pod, workload
from tests.conformance.scoreboard import on_nodes

Json = dict[str, Any]
PREFIX = "[sig-api-machinery] ResourceQuota "
HARD = {
    "pods": "5",
    "services": "10",
    "services.nodeports": "1",
    "services.loadbalancers": "1",
    "replicationcontrollers": "10",
    "resourcequotas": "1",
    "cpu": "1",
    "memory": "500Mi",
    "ephemeral-storage": "50Gi",
    "configmaps": "10",
    "secrets": "10",
    "persistentvolumeclaims": "10",
    "requests.storage": "10Gi",
    "count/replicasets.apps": "5",
    "requests.example.com/dongle": "3",
}


@attrs.frozen
class Quota:
    """A quota in a namespace, and what it says is used. `core` is the path of the namespace."""

    door: Door
    core: str
    name: str = "test-quota"

    @property
    def path(self) -> str:
        return f"{self.core}/resourcequotas/{self.name}"

    @classmethod
    async def make(cls, door: Door, namespace: str, hard: Json | None = None, **spec: Any) -> Quota:
        """Created and calculated."""
        core = await door.namespace(namespace)
        return await cls.add(door, core, "test-quota", hard or HARD, **spec)

    @classmethod
    async def add(cls, door: Door, core: str, name: str, hard: Json, **spec: Any) -> Quota:
        await door.create(
            f"{core}/resourcequotas", {"metadata": {"name": name}, "spec": {"hard": hard, **spec}}
        )
        quota = cls(door, core, name)
        found = await door.eventually(quota.path, lambda each: each["status"].get("used"))
        assert found["status"]["hard"] == hard and set(found["status"]["used"]) == set(hard)
        return quota

    async def uses(self, **used: str) -> None:
        """That much is used of each; `__` stands for a dot, `_` for a dash."""
        wanted = {key.replace("__", ".").replace("_", "-"): parse(value) for key, value in used.items()}
        await self.has(wanted)

    async def has(self, wanted: Json) -> None:
        await self.door.eventually(
            self.path,
            lambda found: all(parse(found["status"]["used"][k]) == v for k, v in wanted.items()),
        )


def asking(name: str, *, dongles: int = 0, **requests: str) -> Json:
    """A pod with requests and, for extended resources, limits."""
    wanted: Json = {key.replace("_", "-"): value for key, value in requests.items()}
    if dongles:
        wanted["example.com/dongle"] = str(dongles)
    body = pod(name)
    extended = {"example.com/dongle": str(dongles)} if dongles else {}
    body["spec"]["containers"] = [container(resources={"requests": wanted, "limits": extended})]
    return body


@on_nodes(PREFIX + "should create a ResourceQuota and ensure its status is promptly calculated.")
async def calculated(door: Door) -> None:
    quota = await Quota.make(door, "quota-status")
    await quota.uses(resourcequotas="1", pods="0", services="0", cpu="0", requests__storage="0")


@on_nodes(PREFIX + "should create a ResourceQuota and capture the life of a service.")
async def of_service(door: Door) -> None:
    quota = await Quota.make(door, "quota-service")
    services, ports = f"{quota.core}/services", [{"port": 80, "targetPort": 80}]
    for name, type_ in (("cluster", "ClusterIP"), ("node", "NodePort")):
        await door.create(services, {"metadata": {"name": name}, "spec": {"type": type_, "ports": ports}})
    await quota.uses(services="2", services__nodeports="1", services__loadbalancers="0")
    balancer = {"metadata": {"name": "balancer"}, "spec": {"type": "LoadBalancer", "ports": ports}}
    text = await door.refused(403, "POST", services, balancer)
    assert text == (
        'services "balancer" is forbidden: exceeded quota: test-quota, requested: services.nodeports=1,'
        " used: services.nodeports=1, limited: services.nodeports=1"
    )
    await quota.uses(services="2", services__nodeports="1")
    for name in ("cluster", "node"):
        await door.delete(f"{services}/{name}")
    await quota.uses(services="0", services__nodeports="0", services__loadbalancers="0")


async def captures(quota: Quota, path: str, body: Json, key: str) -> None:
    """An object counts as one from its creation to its deletion."""
    found = await quota.door.get(quota.path)
    before = int(found["status"]["used"][key])
    await quota.door.create(path, body)
    await quota.has({key: parse(str(before + 1))})
    await quota.door.delete(f"{path}/{body['metadata']['name']}")
    await quota.has({key: parse(str(before))})


@on_nodes(PREFIX + "should create a ResourceQuota and capture the life of a secret.")
async def of_secret(door: Door) -> None:
    quota = await Quota.make(door, "quota-secret")
    await captures(
        quota, f"{quota.core}/secrets", {"metadata": {"name": "s"}, "data": {"a": "Yg=="}}, "secrets"
    )


@on_nodes(PREFIX + "should create a ResourceQuota and capture the life of a configMap.")
async def of_config_map(door: Door) -> None:
    core = await door.namespace("quota-configmap")
    await door.eventually(f"{core}/configmaps/kube-root-ca.crt", lambda found: found["data"])
    quota = await Quota.add(door, core, "test-quota", HARD)
    await quota.uses(configmaps="1")
    await captures(quota, f"{core}/configmaps", {"metadata": {"name": "m"}, "data": {"a": "b"}}, "configmaps")


@on_nodes(PREFIX + "should create a ResourceQuota and capture the life of a replication controller.")
async def of_controller(door: Door) -> None:
    quota = await Quota.make(door, "quota-rc")
    path = f"{quota.core}/replicationcontrollers"
    await captures(quota, path, controller("rc", 0), "replicationcontrollers")


@on_nodes(PREFIX + "should create a ResourceQuota and capture the life of a replica set.")
async def of_replica_set(door: Door) -> None:
    quota = await Quota.make(door, "quota-rs")
    path = f"{APPS.format('quota-rs')}/replicasets"
    await captures(quota, path, workload("rs", 0), "count/replicasets.apps")


@on_nodes(PREFIX + "should create a ResourceQuota and capture the life of a pod.")
async def of_pod(door: Door) -> None:
    quota = await Quota.make(door, "quota-pod")
    pods = f"{quota.core}/pods"
    fits = asking("fits", cpu="500m", memory="252Mi", ephemeral_storage="30Gi", dongles=2)
    await door.create(pods, fits)
    used = {"cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi", "requests.example.com/dongle": "2"}
    full = {"pods": parse("1"), **{key: parse(value) for key, value in used.items()}}
    await quota.has(full)
    text = await door.refused(
        403, "POST", pods, asking("large", cpu="600m", memory="100Mi", ephemeral_storage="1Gi")
    )
    assert text.endswith("exceeded quota: test-quota, requested: cpu=600m, used: cpu=500m, limited: cpu=1")
    more = asking("dongles", cpu="100m", memory="100Mi", ephemeral_storage="1Gi", dongles=2)
    text = await door.refused(403, "POST", pods, more)
    assert "requested: requests.example.com/dongle=2, used: requests.example.com/dongle=2" in text
    bigger = await door.get(f"{pods}/fits")
    bigger["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "100m"
    text = await door.refused(422, "PUT", f"{pods}/fits", bigger)
    assert "pod updates may not change fields other than" in text
    await quota.has(full)
    await door.delete(f"{pods}/fits", {"gracePeriodSeconds": 0})
    await quota.has(dict.fromkeys(full, parse("0")))


@on_nodes(PREFIX + "should be able to update and delete ResourceQuota.")
async def updated(door: Door) -> None:
    quota = await Quota.make(door, "quota-update", {"cpu": "1", "memory": "500Mi"})
    found = await door.get(quota.path)
    found["spec"]["hard"] = {"cpu": "2", "memory": "1Gi"}
    assert (await door.update(quota.path, found))["spec"]["hard"] == {"cpu": "2", "memory": "1Gi"}
    await door.eventually(quota.path, lambda each: each["status"]["hard"] == {"cpu": "2", "memory": "1Gi"})
    await door.delete(quota.path)
    await door.refused(404, "GET", quota.path)


@on_nodes(PREFIX + "should manage the lifecycle of a ResourceQuota")
async def lifecycle(door: Door) -> None:
    core = await door.namespace("quota-life")
    label = "e2e-quota=life"
    body = {
        "metadata": {"name": "q", "labels": {"e2e-quota": "life"}},
        "spec": {"hard": {"cpu": "1", "memory": "500Mi"}},
    }
    await door.create(f"{core}/resourcequotas", body)
    assert (await door.get(f"{core}/resourcequotas/q"))["spec"] == body["spec"]
    assert await door.names(f"/api/v1/resourcequotas?labelSelector={label}") == ["q"]
    patch = {"metadata": {"labels": {"q": "patched"}}, "spec": {"hard": {"memory": "750Mi"}}}
    patched = await door.patch(f"{core}/resourcequotas/q", patch, MERGE)
    assert patched["metadata"]["labels"]["q"] == "patched"
    assert patched["spec"]["hard"] == {"cpu": "1", "memory": "750Mi"}
    await door.delete(f"{core}/resourcequotas?labelSelector={label}")
    assert await door.names(f"/api/v1/resourcequotas?labelSelector={label}") == []


@on_nodes(PREFIX + "should apply changes to a resourcequota status")
async def status_endpoints(door: Door) -> None:
    quota = await Quota.make(door, "quota-statuses", {"cpu": "500m", "memory": "500Mi"})
    small, large, other = (
        {"cpu": "500m", "memory": "500Mi"},
        {"cpu": "1", "memory": "1Gi"},
        {"cpu": "2", "memory": "2Gi"},
    )

    def says(hard: Json) -> Any:
        return lambda found: found["status"]["hard"] == hard

    read = await door.get(quota.path)
    read["status"] = {"hard": small}
    assert (await door.update(f"{quota.path}/status", read))["status"]["hard"] == small
    assert (await door.patch(quota.path, {"spec": {"hard": large}}))["spec"]["hard"] == large
    patched = await door.patch(f"{quota.path}/status", {"status": {"hard": large}}, STRATEGIC)
    assert patched["status"]["hard"] == large == patched["spec"]["hard"]
    assert says(large)(await door.get(f"{quota.path}/status"))
    again = await door.patch(
        f"{quota.path}/status", {"spec": {"hard": other}, "status": {"hard": other}}, STRATEGIC
    )
    assert (again["status"]["hard"], again["spec"]["hard"]) == (other, large)
    await door.eventually(quota.path, says(large), FULL_RESYNC_S + 60)


async def scoped(door: Door, namespace: str, first: str, second: str, hard: Json) -> tuple[Quota, Quota]:
    core = await door.namespace(namespace)
    return (
        await Quota.add(door, core, "quota-first", hard, scopes=[first]),
        await Quota.add(door, core, "quota-second", hard, scopes=[second]),
    )


async def counted_by(one: Quota, other: Quota, body: Json, used: Json) -> None:
    """One of the quotas counts the pod, the other does not; both count nothing once it is gone."""
    pods = f"{one.core}/pods"
    full = {key: parse(value) for key, value in used.items()}
    none = dict.fromkeys(full, parse("0"))
    await one.door.create(pods, body)
    await one.has(full)
    await other.has(none)
    await one.door.delete(f"{pods}/{body['metadata']['name']}", {"gracePeriodSeconds": 0})
    await one.has(none)
    await other.has(none)


@on_nodes(PREFIX + "should verify ResourceQuota with best effort scope.")
async def best_effort(door: Door) -> None:
    best, other = await scoped(door, "quota-best-effort", "BestEffort", "NotBestEffort", {"pods": "5"})
    await counted_by(best, other, pod("best"), {"pods": "1"})
    await counted_by(other, best, asking("not-best", cpu="500m", memory="200Mi"), {"pods": "1"})


@on_nodes(PREFIX + "should verify ResourceQuota with terminating scopes.")
async def terminating(door: Door) -> None:
    hard = {
        "requests.cpu": "1",
        "requests.memory": "500Mi",
        "limits.cpu": "2",
        "limits.memory": "1Gi",
        "pods": "5",
    }
    ends, stays = await scoped(door, "quota-terminating", "Terminating", "NotTerminating", hard)
    amounts = {"requests": {"cpu": "500m", "memory": "200Mi"}, "limits": {"cpu": "1", "memory": "400Mi"}}
    used = {
        "pods": "1", "requests.cpu": "500m", "requests.memory": "200Mi", "limits.cpu": "1", "limits.memory": "400Mi",
    }  # fmt: skip
    for one, other, limit in ((stays, ends, {}), (ends, stays, {"activeDeadlineSeconds": 3600})):
        body = pod("counted")
        body["spec"].update(limit)
        body["spec"]["containers"][0]["resources"] = amounts
        await counted_by(one, other, body, used)
