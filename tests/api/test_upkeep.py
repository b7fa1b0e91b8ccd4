"""What the API server looks after: cluster IPs and their IPAddresses, the default range, flow schemas, APIServices."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kcp.api import bootstrap
from kcp.api.context import ServerSettings
from kcp.api.upkeep.all import Upkeep
from kcp.machinery import meta
from kcp.machinery.document import normal
from kcp.store.protocol import Head, Key, Operation, Put, Record
from tests.api.harness import RANGES, Api, running_api

Json = dict[str, Any]
SERVICES = "/api/v1/namespaces/default/services"
ADDRESSES = "/apis/networking.k8s.io/v1/ipaddresses"
FLOW = "/apis/flowcontrol.apiserver.k8s.io/v1"
API_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
EVENTS = "/api/v1/namespaces/default/events"
MANAGED = {"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}


@asynccontextmanager
async def looked_after(**more: Any) -> AsyncIterator[tuple[Api, Upkeep]]:
    async with running_api(bootstrapped=True, **more) as api:
        yield api, Upkeep.of(api.server)


async def _settle(upkeep: Upkeep) -> None:
    upkeep.find_all()
    await upkeep.round()


async def _service(api: Api, name: str, **spec: Any) -> str:
    obj = {"metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": [{"port": 80}], **spec}}
    return str((await api.create(SERVICES, obj))["spec"]["clusterIP"])


def _address(ip: str, name: str, labels: Json = MANAGED, resource: str = "services") -> Json:
    parent = {"resource": resource, "namespace": "default", "name": name}
    return {"metadata": {"name": ip, "labels": labels}, "spec": {"parentRef": parent}}


async def _told(api: Api) -> list[tuple[str, str]]:
    return [(event["reason"], event["message"]) for event in (await api.list(EVENTS)).items]


async def test_a_lost_address_is_made_again_and_an_event_tells() -> None:
    async with looked_after() as (api, upkeep):
        ip = await _service(api, "web")
        await api.delete(f"{ADDRESSES}/{ip}")
        await _settle(upkeep)
        again = await api.get(f"{ADDRESSES}/{ip}")
        assert again["spec"]["parentRef"]["name"] == "web"
        (event,) = (await api.list(EVENTS)).items
        assert event["message"] == f"Cluster IP [IPv4]: {ip} is not allocated; repairing"
        assert (event["reason"], event["action"]) == ("ClusterIPNotAllocated", "ClusterIPAllocation")
        assert event["reportingComponent"] == "ipallocator-repair-controller"
        assert event["involvedObject"]["name"] == "web"


@pytest.mark.parametrize(
    ("labels", "resource"), [({}, "services"), (MANAGED, "gateways")], ids=["labels", "reference"]
)
async def test_a_wrong_address_of_a_service_is_made_anew(labels: Json, resource: str) -> None:
    async with looked_after() as (api, upkeep):
        ip = await _service(api, "web")
        await api.delete(f"{ADDRESSES}/{ip}")
        wrong = await api.create(ADDRESSES, _address(ip, "web", labels, resource))
        await _settle(upkeep)
        found = await api.get(f"{ADDRESSES}/{ip}")
        assert found["metadata"]["uid"] != wrong["metadata"]["uid"]
        assert meta.labels(found)["ipaddress.kubernetes.io/ip-family"] == "IPv4"
        assert found["spec"]["parentRef"]["resource"] == "services"


async def test_two_services_with_one_address_are_told_and_left() -> None:
    async with looked_after() as (api, upkeep):
        first = await _service(api, "a")
        await _service(api, "b")
        await _overwrite(api, "b", {"clusterIP": first, "clusterIPs": [first]})
        await _settle(upkeep)
        text = f"Cluster IP [IPv4]:{first} was assigned to multiple services; please recreate service"
        assert ("ClusterIPAlreadyAllocated", text) in await _told(api)
        assert (await api.get(f"{ADDRESSES}/{first}"))["spec"]["parentRef"]["name"] == "a"


async def _overwrite(api: Api, name: str, spec: Json) -> None:
    """As an old backup or another engine may leave it; no request could."""

    def change(current: Record | None, head: Head) -> Put:
        assert current is not None
        value = {**current.value, "spec": {**current.value["spec"], **spec}}
        metadata = {key: each for key, each in value["metadata"].items() if key != "resourceVersion"}
        return Put(normal({**value, "metadata": metadata}), value)

    await api.store.append(Operation(Key("services", "default", name), change))


async def test_an_address_outside_of_every_range_is_told() -> None:
    async with looked_after() as (api, upkeep):
        await _service(api, "a")
        await _overwrite(api, "a", {"clusterIP": "172.30.0.9", "clusterIPs": ["172.30.0.9"]})
        await _settle(upkeep)
        text = (
            "Cluster IP [IPv4]: 172.30.0.9 is not within any configured Service CIDR; please recreate service"
        )
        assert ("ClusterIPOutOfRange", text) in await _told(api)


async def test_addresses_of_older_releases_are_understood_and_what_is_none_is_told() -> None:
    async with looked_after() as (api, upkeep):
        for name, ip in (("a", "010.096.000.009"), ("b", "nonsense")):
            await _service(api, name)
            await _overwrite(api, name, {"clusterIP": ip, "clusterIPs": [ip]})
        await _settle(upkeep)
        found = await api.get(f"{ADDRESSES}/10.96.0.9")
        assert found["spec"]["parentRef"]["name"] == "a"
        told = await _told(api)
        assert ("ClusterIPNotValid", "Cluster IP <nil> is not a valid IP; please recreate Service") in told
        await _settle(upkeep)
        await api.delete(SERVICES)
        assert "10.96.0.9" not in (await api.list(ADDRESSES)).names


async def test_a_leaked_address_goes_after_a_minute() -> None:
    async with looked_after() as (api, upkeep):
        await api.create(ADDRESSES, _address("10.96.7.7", "gone"))
        await api.create(ADDRESSES, _address("10.96.7.8", "gone", {}))
        await _settle(upkeep)
        assert "10.96.7.7" in (await api.list(ADDRESSES)).names
        api.clock.advance(61)
        await upkeep.round()
        names = (await api.list(ADDRESSES)).names
        assert "10.96.7.7" not in names and "10.96.7.8" in names
        text = "IPAddress: 10.96.7.7 for Service default/gone appears to have leaked: cleaning up"
        assert ("IPAddressNotAllocated", text) in await _told(api)


async def test_an_address_that_its_service_does_not_have_goes() -> None:
    async with looked_after() as (api, upkeep):
        await _service(api, "web")
        await api.create(ADDRESSES, _address("10.96.7.7", "web"))
        await _settle(upkeep)
        text = "IPAddress: 10.96.7.7 for Service default/web has a wrong reference; cleaning up"
        assert ("IPAddressWrongReference", text) in await _told(api)
        assert "10.96.7.7" not in (await api.list(ADDRESSES)).names


async def test_services_of_before_get_their_addresses_at_a_start() -> None:
    async with looked_after() as (api, _):
        ip = await _service(api, "web")
        await api.delete(ADDRESSES)
        await bootstrap.ensure(api.server)
        assert ip in (await api.list(ADDRESSES)).names


async def test_the_default_range_is_ready_and_comes_back() -> None:
    async with looked_after() as (api, upkeep):
        found = await api.get(f"{RANGES}/kubernetes")
        condition = meta.condition(found, "Ready")
        assert condition is not None
        assert (condition["status"], condition["message"]) == (
            "True",
            "Kubernetes default Service CIDR is ready",
        )
        (managed,) = [entry for entry in found["metadata"]["managedFields"] if entry.get("subresource")]
        assert (managed["manager"], managed["operation"]) == ("kubernetes-service-cidr-controller", "Apply")
        await api.delete(f"{RANGES}/kubernetes")
        await _settle(upkeep)
        again = await api.get(f"{RANGES}/kubernetes")
        assert again["metadata"]["uid"] != found["metadata"]["uid"] and meta.condition_is(again, "Ready")


async def test_a_second_family_is_added_and_nothing_else_changes() -> None:
    async with looked_after(settings=ServerSettings(service_cidr="10.9.0.0/24,fd00:9::/112")) as (
        api,
        upkeep,
    ):
        await api.delete(f"{RANGES}/kubernetes")
        await api.create(RANGES, {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.9.0.0/24"]}})
        await _settle(upkeep)
        found = await api.get(f"{RANGES}/kubernetes")
        assert found["spec"]["cidrs"] == ["10.9.0.0/24", "fd00:9::/112"]
        await api.delete(f"{RANGES}/kubernetes")
        await api.create(RANGES, {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.8.0.0/24"]}})
        for _ in range(2):
            await _settle(upkeep)
        told = [
            text for reason, text in await _told(api) if reason == "KubernetesDefaultServiceCIDRInconsistent"
        ]
        assert told == [
            "The default ServiceCIDR [10.8.0.0/24] does not match the controller flag configurations "
            "[10.9.0.0/24 fd00:9::/112]"
        ]


async def test_flow_schemas_tell_whether_their_level_exists() -> None:
    async with looked_after() as (api, upkeep):
        for schema in (await api.list(f"{FLOW}/flowschemas")).items:
            assert meta.condition_is(schema, "Dangling", "False")
        spec = {"priorityLevelConfiguration": {"name": "mine"}, "matchingPrecedence": 7000}
        await api.create(f"{FLOW}/flowschemas", {"metadata": {"name": "own"}, "spec": spec})
        await _settle(upkeep)
        missing = await api.get(f"{FLOW}/flowschemas/own")
        told = 'This FlowSchema references the PriorityLevelConfiguration object named "mine"'
        condition = meta.condition(missing, "Dangling") or {}
        assert (condition["status"], condition["reason"]) == ("True", "NotFound")
        assert condition["message"] == f"{told} but there is no such object"
        level = {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}
        await api.create(f"{FLOW}/prioritylevelconfigurations", {"metadata": {"name": "mine"}, "spec": level})
        await _settle(upkeep)
        condition = meta.condition(await api.get(f"{FLOW}/flowschemas/own"), "Dangling") or {}
        assert (condition["status"], condition["reason"]) == ("False", "Found")
        assert condition["message"] == f"{told} and it exists"


async def test_flow_objects_are_put_right_within_a_minute_unless_somebody_said_no() -> None:
    level = f"{FLOW}/prioritylevelconfigurations"
    async with looked_after() as (api, upkeep):
        before = (await api.get(f"{level}/workload-low"))["spec"]
        more = {"spec": {"limited": {"nominalConcurrencyShares": 7}}}
        no = {"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}}}
        await api.patch(f"{level}/workload-low", more)
        await api.patch(f"{level}/workload-high", {**more, **no})
        await api.patch(f"{FLOW}/flowschemas/catch-all", {"metadata": {"annotations": None}})
        await api.patch(f"{level}/exempt", {"spec": {"exempt": {"nominalConcurrencyShares": 3}}})
        await api.delete(f"{FLOW}/flowschemas/probes")
        own = {"name": "gone", "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}}
        spec = {"priorityLevelConfiguration": {"name": "exempt"}, "matchingPrecedence": 7000}
        await api.create(f"{FLOW}/flowschemas", {"metadata": own, "spec": spec})
        upkeep.noticed()
        await upkeep.round()
        assert (await api.get(f"{level}/workload-low"))["spec"] != before
        api.clock.advance(61)
        await upkeep.round()
        assert (await api.get(f"{level}/workload-low"))["spec"] == before
        assert (await api.get(f"{level}/workload-high"))["spec"]["limited"]["nominalConcurrencyShares"] == 7
        assert (await api.get(f"{level}/exempt"))["spec"]["exempt"]["nominalConcurrencyShares"] == 3
        schemas = await api.list(f"{FLOW}/flowschemas")
        assert "probes" in schemas.names and "gone" not in schemas.names
        catch_all = next(item for item in schemas.items if item["metadata"]["name"] == "catch-all")
        assert meta.annotations(catch_all) == {"apf.kubernetes.io/autoupdate-spec": "true"}
        await _settle(upkeep)
        revision = api.store.rv
        await bootstrap.ensure(api.server)
        assert api.store.rv == revision


async def test_each_group_version_has_its_local_api_service() -> None:
    async with looked_after() as (api, _):
        items = (await api.list(API_SERVICES)).items
        assert {each["metadata"]["name"] for each in items} == {
            "v1.", "v1.apps", "v1.events.k8s.io", "v1.authentication.k8s.io", "v1.authorization.k8s.io",
            "v1.autoscaling", "v2.autoscaling", "v1.batch", "v1.certificates.k8s.io", "v1.networking.k8s.io", "v1.policy",
            "v1.rbac.authorization.k8s.io", "v1.storage.k8s.io", "v1.apiextensions.k8s.io",
            "v1.admissionregistration.k8s.io", "v1.scheduling.k8s.io", "v1.coordination.k8s.io", "v1.node.k8s.io",
            "v1.discovery.k8s.io", "v1.resource.k8s.io", "v1.flowcontrol.apiserver.k8s.io",
        }  # fmt: skip
        for each in items:
            condition = meta.condition(each, "Available") or {}
            assert (condition["status"], condition["reason"]) == ("True", "Local")
            assert condition["message"] == "Local APIServices are always available"
            assert meta.labels(each) == {"kube-aggregator.kubernetes.io/automanaged": "onstart"}
        core = await api.get(f"{API_SERVICES}/v1.")
        assert core["spec"] == {"version": "v1", "groupPriorityMinimum": 18000, "versionPriority": 1}


async def test_a_start_puts_its_own_api_services_right_and_leaves_the_others() -> None:
    async with looked_after() as (api, _):
        await api.patch(f"{API_SERVICES}/v1.apps", {"spec": {"versionPriority": 7}})
        await api.patch(
            f"{API_SERVICES}/v1.batch", {"metadata": {"labels": None}, "spec": {"versionPriority": 7}}
        )
        own = {"group": "old.example.com", "version": "v1", "groupPriorityMinimum": 9, "versionPriority": 9}
        label = {"kube-aggregator.kubernetes.io/automanaged": "onstart"}
        await api.create(
            API_SERVICES, {"metadata": {"name": "v1.old.example.com", "labels": label}, "spec": own}
        )
        await bootstrap.ensure(api.server)
        assert (await api.get(f"{API_SERVICES}/v1.apps"))["spec"]["versionPriority"] == 15
        assert (await api.get(f"{API_SERVICES}/v1.batch"))["spec"]["versionPriority"] == 7
        assert "v1.old.example.com" not in (await api.list(API_SERVICES)).names
