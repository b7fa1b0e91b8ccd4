from __future__ import annotations

import pytest

from kcp.apis.kind import Catalog, Kind
from kcp.base.clock import VirtualClock
from kcp.client.mapper import CatalogMapper, DiscoveryMapper
from kcp.client.transport import InProcessTransport
from kcp.machinery.errors import NotFound
from kcp.machinery.gvk import GroupVersionKind
from tests.support.fake_api import FakeApi


@pytest.mark.parametrize("aggregated", [True, False])
@pytest.mark.parametrize("in_process", [True, False])
async def test_discovery_gives_paths(aggregated: bool, in_process: bool) -> None:
    api = FakeApi(in_process=in_process, aggregated=aggregated)
    mapper = DiscoveryMapper(InProcessTransport(api, None, in_process=in_process))
    pods = await mapper.resolve("pods")
    assert (pods.kind, pods.api_version, pods.namespaced) == ("Pod", "v1", True)
    assert pods.path("ns", "web", "log") == "/api/v1/namespaces/ns/pods/web/log"
    assert pods.path() == "/api/v1/pods"
    nodes = await mapper.resolve("nodes")
    assert nodes.path("ignored", "n1") == "/api/v1/nodes/n1"
    leases = await mapper.resolve("leases.coordination.k8s.io")
    assert leases.path("ns") == "/apis/coordination.k8s.io/v1/namespaces/ns/leases"
    assert "events.events.k8s.io" in [mapping.resource for mapping in await mapper.mappings()]


async def test_an_unknown_resource_is_looked_up_again_but_not_at_once() -> None:
    api, clock = FakeApi(), VirtualClock()
    mapper = DiscoveryMapper(InProcessTransport(api, None), clock)
    with pytest.raises(NotFound, match="the server could not find the requested resource"):
        await mapper.resolve("widgets.example.com")
    asked = len(api.requests)
    with pytest.raises(NotFound):
        await mapper.resolve("widgets.example.com")
    assert len(api.requests) == asked
    clock.advance(5)
    with pytest.raises(NotFound):
        await mapper.resolve("widgets.example.com")
    assert len(api.requests) > asked


def kind(group: str, version: str, plural: str, name: str) -> Kind:
    return Kind(GroupVersionKind(group, version, name), plural, name.lower(), True, ("get",))


async def test_a_catalog_gives_the_preferred_version_and_follows_changes() -> None:
    catalog = Catalog([kind("autoscaling", "v2", "hpas", "HPA"), kind("autoscaling", "v1", "hpas", "HPA")])
    mapper = CatalogMapper(catalog)
    assert (await mapper.resolve("hpas.autoscaling")).version == "v2"
    with pytest.raises(NotFound):
        await mapper.resolve("widgets.example.com")
    widget = kind("example.com", "v1", "widgets", "Widget")
    catalog.add(widget)
    assert (await mapper.resolve("widgets.example.com")).kind == "Widget"
    catalog.remove(widget)
    with pytest.raises(NotFound):
        await mapper.resolve("widgets.example.com")
