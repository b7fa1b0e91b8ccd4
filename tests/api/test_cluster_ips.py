"""IPAddresses come and go with the cluster IPs of Services; addresses come from every ServiceCIDR that is ready."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

import pytest

from kcp.api.cluster_ips import address_range
from kcp.api.context import ServerSettings
from kcp.machinery.errors import InternalError, Invalid
from tests.api.harness import RANGES, Api, running_api

Json = dict[str, Any]
SERVICES = "/api/v1/namespaces/default/services"
ADDRESSES = "/apis/networking.k8s.io/v1/ipaddresses"
SMALL = ServerSettings(service_cidr="10.9.0.0/30")
DUAL = ServerSettings(service_cidr="10.9.0.0/24,fd00:9::/112")


def _service(name: str, **spec: Any) -> Json:
    return {"metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": [{"port": 80}], **spec}}


def _range(name: str, *cidrs: str) -> Json:
    return {"metadata": {"name": name}, "spec": {"cidrs": list(cidrs)}}


async def _addresses(api: Api) -> list[str]:
    return (await api.list(ADDRESSES)).names


def _within(ips: Iterable[str], cidr: str) -> bool:
    return all(ipaddress.ip_address(ip) in ipaddress.ip_network(cidr) for ip in ips)


async def test_an_ip_address_is_made_with_a_service_in_one_step() -> None:
    async with running_api() as api:
        created = await api.create(SERVICES, _service("web"))
        ip = created["spec"]["clusterIP"]
        found = await api.get(f"{ADDRESSES}/{ip}")
        assert found["spec"] == {"parentRef": {"resource": "services", "namespace": "default", "name": "web"}}
        assert found["metadata"]["labels"] == {
            "ipaddress.kubernetes.io/ip-family": "IPv4",
            "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
        }
        (managed,) = found["metadata"]["managedFields"]
        assert (managed["manager"], managed["operation"]) == ("kube-apiserver", "Update")
        assert int(found["metadata"]["resourceVersion"]) == int(created["metadata"]["resourceVersion"]) + 1


async def test_it_goes_with_the_service_however_that_goes() -> None:
    async with running_api() as api:
        for name in ("a", "b", "c", "d"):
            await api.create(SERVICES, _service(name))
        assert len(await _addresses(api)) == 4
        await api.delete(f"{SERVICES}/a")
        assert len(await _addresses(api)) == 3
        await api.patch(f"{SERVICES}/b", {"metadata": {"finalizers": ["example.com/held"]}})
        await api.delete(f"{SERVICES}/b")
        assert len(await _addresses(api)) == 3
        await api.patch(f"{SERVICES}/b", {"metadata": {"finalizers": None}})
        assert len(await _addresses(api)) == 2
        await api.delete(SERVICES)
        assert await _addresses(api) == []


async def test_two_families_have_two_and_give_up_one() -> None:
    async with running_api(settings=DUAL) as api:
        spec = (await api.create(SERVICES, _service("a", ipFamilyPolicy="RequireDualStack")))["spec"]
        assert sorted(await _addresses(api)) == sorted(spec["clusterIPs"])
        six = await api.get(f"{ADDRESSES}/{spec['clusterIPs'][1]}")
        assert six["metadata"]["labels"]["ipaddress.kubernetes.io/ip-family"] == "IPv6"
        await api.patch(f"{SERVICES}/a", {"spec": {"ipFamilyPolicy": "SingleStack"}})
        assert await _addresses(api) == [spec["clusterIP"]]
        name = {"type": "ExternalName", "externalName": "example.com", "clusterIP": None, "clusterIPs": None}
        await api.patch(f"{SERVICES}/a", {"spec": name})
        assert await _addresses(api) == []
        again = await api.patch(f"{SERVICES}/a", {"spec": {"type": "ClusterIP", "externalName": None}})
        assert await _addresses(api) == [again["spec"]["clusterIP"]]


async def test_an_address_that_anybody_has_is_taken() -> None:
    async with running_api(settings=SMALL) as api:
        parent = {"group": "gateway.networking.k8s.io", "resource": "gateways", "namespace": "x", "name": "g"}
        await api.create(ADDRESSES, {"metadata": {"name": "10.9.0.1"}, "spec": {"parentRef": parent}})
        with pytest.raises(Invalid, match=r"10\.9\.0\.1: provided IP is already allocated"):
            await api.create(SERVICES, _service("a", clusterIP="10.9.0.1"))
        assert (await api.create(SERVICES, _service("b")))["spec"]["clusterIP"] == "10.9.0.2"
        await api.delete(f"{SERVICES}/b")
        assert await _addresses(api) == ["10.9.0.1"]


async def test_an_ipv6_address_in_long_form_is_the_same_address() -> None:
    async with running_api(settings=DUAL) as api:
        asked = _service("a", ipFamilies=["IPv6"], clusterIP="fd00:9::0007")
        assert (await api.create(SERVICES, asked))["spec"]["clusterIP"] == "fd00:9::0007"
        assert await _addresses(api) == ["fd00:9::7"]
        with pytest.raises(Invalid, match="provided IP is already allocated"):
            await api.create(SERVICES, _service("b", ipFamilies=["IPv6"], clusterIP="fd00:9::7"))
        await api.delete(f"{SERVICES}/a")
        assert await _addresses(api) == []


async def test_further_ranges_give_addresses_while_they_are_ready() -> None:
    async with running_api(settings=SMALL) as api:
        for name in ("a", "b"):
            await api.create(SERVICES, _service(name))
        with pytest.raises(InternalError, match="failed to allocate a serviceIP: range is full"):
            await api.create(SERVICES, _service("c"))
        await api.create(RANGES, _range("more", "10.10.0.0/28"))
        third = await api.create(SERVICES, _service("c"))
        assert _within([third["spec"]["clusterIP"]], "10.10.0.0/28")
        condition = {"type": "Ready", "status": "False", "reason": "Terminating", "message": "going"}
        condition["lastTransitionTime"] = "2026-01-01T00:00:00Z"
        await api.patch(f"{RANGES}/more/status", {"status": {"conditions": [condition]}})
        with pytest.raises(InternalError, match="range is full"):
            await api.create(SERVICES, _service("d"))
        with pytest.raises(Invalid, match="the provided network does not match the current range"):
            await api.create(SERVICES, _service("d", clusterIP="10.10.0.3"))


async def test_a_range_that_is_being_deleted_gives_none() -> None:
    async with running_api(settings=SMALL) as api:
        held = {**_range("more", "10.10.0.0/28")}
        held["metadata"]["finalizers"] = ["networking.k8s.io/service-cidr-finalizer"]
        await api.create(RANGES, held)
        await api.delete(f"{RANGES}/more")
        for name in ("a", "b"):
            await api.create(SERVICES, _service(name))
        with pytest.raises(InternalError, match="range is full"):
            await api.create(SERVICES, _service("c"))


async def test_the_ends_of_a_range_are_not_given() -> None:
    async with running_api(settings=DUAL) as api:
        for ip in ("10.9.0.0", "10.9.0.255"):
            with pytest.raises(Invalid, match="the provided network does not match the current range"):
                await api.create(SERVICES, _service("a", clusterIP=ip))
    assert str(ipaddress.ip_address(address_range("fd00:9::/112").high)) == "fd00:9::ffff"


async def test_a_rehearsal_takes_nothing() -> None:
    async with running_api() as api:
        shown = await api.create(SERVICES, _service("a"), params={"dryRun": "All"})
        assert shown["spec"]["clusterIP"] == "10.96.0.0"
        await api.create(SERVICES, _service("a", clusterIP="10.96.0.9"))
        asked = _service("b", clusterIP="10.96.0.9")
        assert (await api.create(SERVICES, asked, params={"dryRun": "All"}))["spec"][
            "clusterIP"
        ] == "10.96.0.9"
        assert await _addresses(api) == ["10.96.0.9"]


async def test_a_refused_service_leaves_no_address() -> None:
    async with running_api() as api:
        taken = _service("a", type="NodePort", ports=[{"port": 80, "nodePort": 30001}])
        await api.create(SERVICES, taken)
        before = await _addresses(api)
        with pytest.raises(Invalid, match="provided port is already allocated"):
            await api.create(SERVICES, {**taken, "metadata": {"name": "b"}})
        assert await _addresses(api) == before
