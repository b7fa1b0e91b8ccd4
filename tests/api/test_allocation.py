"""Cluster IPs and node ports."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import anyio
import pytest

from kcp.api.allocation import parse_ranges, port_range
from kcp.api.cluster_ips import address_range
from kcp.api.context import ServerSettings
from kcp.base.entropy import SeededEntropy
from kcp.machinery.errors import InternalError, Invalid
from tests.api.harness import Api, running_api

SERVICES = "/api/v1/namespaces/default/services"


def _service(name: str, kind: str = "ClusterIP", *ports: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"type": kind, "selector": {"app": name}, "ports": list(ports) or [{"port": 80}], **spec},
    }


def test_ranges_keep_a_static_band() -> None:
    addresses = address_range("10.96.0.0/12")
    assert str(ipaddress.ip_address(addresses.low)) == "10.96.0.1"
    assert addresses.offset == 256
    assert address_range("10.0.0.0/28").offset == 0
    ports = port_range(30000, 32767)
    assert ports.offset == 86
    assert next(ports.candidates(SeededEntropy(1))) >= 30086
    assert sorted(ports.candidates(SeededEntropy(1))) == list(range(30000, 32768))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("foo", "'foo' does not appear to be an IPv4 or IPv6 network"),
        ("10.0.0.0/24,10.1.0.0/24", "two service ranges must be of different IP families"),
        ("10.0.0.0/24,fd00::/112,fd01::/112", "at most two service ranges, one of each IP family, got 3"),
        ("10.0.0.0/24,fd00::/48", "fd00::/48 is too large; for 128-bit addresses, the mask must be >= 64"),
    ],
)
def test_ranges_that_cannot_be(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        parse_ranges(text)
    assert parse_ranges("fd00::/112, 10.0.0.0/24") == ("fd00::/112", "10.0.0.0/24")


async def test_a_service_gets_an_address_and_keeps_it() -> None:
    async with running_api() as api:
        created = await api.create(SERVICES, _service("a"))
        spec = created["spec"]
        assert ipaddress.ip_address(spec["clusterIP"]) in ipaddress.ip_network("10.96.0.0/12")
        assert spec["clusterIPs"] == [spec["clusterIP"]]
        assert (spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")
        patched = await api.patch(f"{SERVICES}/a", {"spec": {"selector": {"app": "b"}}})
        assert patched["spec"]["clusterIP"] == spec["clusterIP"]


async def test_services_without_addresses() -> None:
    async with running_api() as api:
        headless = await api.create(SERVICES, _service("h", clusterIP="None"))
        assert headless["spec"]["clusterIPs"] == ["None"]
        external = await api.create(
            SERVICES,
            {"metadata": {"name": "e"}, "spec": {"type": "ExternalName", "externalName": "example.com"}},
        )
        assert "clusterIP" not in external["spec"]


async def test_an_asked_address_must_be_free_and_inside() -> None:
    async with running_api() as api:
        await api.create(SERVICES, _service("a", clusterIP="10.96.0.10"))
        with pytest.raises(Invalid) as caught:
            await api.create(SERVICES, _service("b", clusterIP="10.96.0.10"))
        assert caught.value.message == (
            'Service "b" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.10"]: failed to allocate IP 10.96.0.10:'
            " provided IP is already allocated"
        )
        with pytest.raises(
            Invalid, match=r"192.168.0.1: the provided network does not match the current range"
        ):
            await api.create(SERVICES, _service("c", clusterIP="192.168.0.1"))
        await api.delete(f"{SERVICES}/a")
        await api.create(SERVICES, _service("b", clusterIP="10.96.0.10"))


async def test_node_ports() -> None:
    async with running_api() as api:
        chosen = await api.create(SERVICES, _service("a", "NodePort"))
        assert 30086 <= chosen["spec"]["ports"][0]["nodePort"] <= 32767
        await api.create(SERVICES, _service("b", "NodePort", {"port": 80, "nodePort": 30001}))
        with pytest.raises(Invalid) as caught:
            await api.create(SERVICES, _service("c", "NodePort", {"port": 80, "nodePort": 30001}))
        assert caught.value.message == (
            'Service "c" is invalid: spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated'
        )
        with pytest.raises(Invalid, match=r"The range of valid ports is 30000-32767"):
            await api.create(SERVICES, _service("d", "NodePort", {"port": 80, "nodePort": 80}))
        plain = await api.patch(
            f"{SERVICES}/b", {"spec": {"type": "ClusterIP", "ports": [{"port": 80, "nodePort": None}]}}
        )
        assert "nodePort" not in plain["spec"]["ports"][0]
        await api.create(SERVICES, _service("c", "NodePort", {"port": 80, "nodePort": 30001}))


async def test_one_number_over_two_protocols_shares_its_node_port() -> None:
    async with running_api() as api:
        ports = ({"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP"})
        created = await api.create(SERVICES, _service("dns", "NodePort", *ports))
        first, second = created["spec"]["ports"]
        assert first["nodePort"] == second["nodePort"]


async def test_a_local_load_balancer_gets_a_health_check_port() -> None:
    async with running_api() as api:
        created = await api.create(SERVICES, _service("l", "LoadBalancer", externalTrafficPolicy="Local"))
        assert created["spec"]["healthCheckNodePort"] != created["spec"]["ports"][0]["nodePort"]


async def _addresses(api: Api) -> list[str]:
    return [item["spec"]["clusterIP"] for item in (await api.list(SERVICES)).items]


async def test_every_address_is_held_once_and_the_range_ends() -> None:
    async with running_api(settings=ServerSettings(service_cidr="10.9.0.0/28")) as api:
        async with anyio.create_task_group() as group:
            for number in range(14):
                group.start_soon(api.create, SERVICES, _service(f"s{number}"))
        assert len(set(await _addresses(api))) == 14
        with pytest.raises(InternalError, match=r"failed to allocate a serviceIP: range is full"):
            await api.create(SERVICES, _service("more"))
        await api.delete(f"{SERVICES}/s3")
        await api.create(SERVICES, _service("more"))
        assert len(set(await _addresses(api))) == 14


DUAL = ServerSettings(service_cidr="10.9.0.0/24,fd00:9::/112")


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (
            {"ipFamilyPolicy": "RequireDualStack"},
            'spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services',
        ),
        ({"ipFamilies": ["IPv6"]}, 'spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster'),
        (
            {"clusterIP": "fd00::1"},
            'spec.clusterIPs[0]: Invalid value: ["fd00::1"]: IPv6 is not configured on this cluster',
        ),
        (
            {"ipFamilies": ["IPv4", "IPv6"]},
            'spec.ipFamilyPolicy: Invalid value: "SingleStack": must be \'RequireDualStack\' or \'PreferDualStack\' '
            "when multiple IP families are specified",
        ),
    ],
)  # fmt: skip
async def test_a_family_that_the_cluster_lacks_is_refused(asked: dict[str, Any], why: str) -> None:
    async with running_api() as api:
        with pytest.raises(Invalid) as caught:
            await api.create(SERVICES, _service("a", **asked))
        assert caught.value.message == f'Service "a" is invalid: {why}'


async def test_a_preference_for_two_families_is_met_where_there_are_two() -> None:
    preferred = _service("a", ipFamilyPolicy="PreferDualStack")
    async with running_api() as api:
        spec = (await api.create(SERVICES, preferred))["spec"]
        assert (spec["ipFamilies"], len(spec["clusterIPs"])) == (["IPv4"], 1)
    async with running_api(settings=DUAL) as api:
        spec = (await api.create(SERVICES, preferred))["spec"]
        assert spec["ipFamilies"] == ["IPv4", "IPv6"]
        assert [ipaddress.ip_address(ip).version for ip in spec["clusterIPs"]] == [4, 6]
        assert spec["clusterIP"] == spec["clusterIPs"][0]


async def test_a_headless_service_without_a_selector_has_both_families_anywhere() -> None:
    async with running_api() as api:
        spec = {"clusterIP": "None", "ports": [{"port": 80}]}
        made = (await api.create(SERVICES, {"metadata": {"name": "a"}, "spec": spec}))["spec"]
        assert (made["ipFamilyPolicy"], made["ipFamilies"]) == ("RequireDualStack", ["IPv4", "IPv6"])
        chosen = (await api.create(SERVICES, _service("b", clusterIP="None")))["spec"]
        assert (chosen["ipFamilyPolicy"], chosen["ipFamilies"]) == ("SingleStack", ["IPv4"])


async def test_a_service_grows_and_shrinks_by_its_policy() -> None:
    path = f"{SERVICES}/a"
    async with running_api(settings=DUAL) as api:
        first = (await api.create(SERVICES, _service("a")))["spec"]
        grown = (await api.patch(path, {"spec": {"ipFamilyPolicy": "RequireDualStack"}}))["spec"]
        assert (grown["ipFamilies"], grown["clusterIPs"][0]) == (["IPv4", "IPv6"], first["clusterIP"])
        with pytest.raises(
            Invalid, match="must be set to 'SingleStack' when releasing the secondary clusterIP"
        ):
            await api.patch(path, {"spec": {"clusterIPs": [first["clusterIP"]]}})
        shrunk = (await api.patch(path, {"spec": {"ipFamilyPolicy": "SingleStack"}}))["spec"]
        assert (shrunk["ipFamilies"], shrunk["clusterIPs"]) == (["IPv4"], [first["clusterIP"]])
