"""What a fresh cluster holds."""

from __future__ import annotations

import pytest

from kcp.api import bootstrap
from kcp.api.context import ServerSettings
from tests.api.harness import running_api


async def test_a_fresh_cluster() -> None:
    async with running_api(bootstrapped=True) as api:
        namespaces = await api.list("/api/v1/namespaces")
        assert namespaces.names == ["default", "kube-node-lease", "kube-public", "kube-system"]
        classes = await api.list("/apis/scheduling.k8s.io/v1/priorityclasses")
        assert classes.names == ["system-cluster-critical", "system-node-critical"]
        service = await api.get("/api/v1/namespaces/default/services/kubernetes")
        assert service["spec"]["clusterIP"] == "10.96.0.1"
        assert (await api.get("/apis/networking.k8s.io/v1/servicecidrs/kubernetes"))["spec"]["cidrs"]
        roles = await api.list("/apis/rbac.authorization.k8s.io/v1/clusterroles")
        assert {"cluster-admin", "admin", "edit", "view", "system:kube-scheduler"} <= set(roles.names)
        levels = await api.list("/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations")
        assert {"exempt", "catch-all", "workload-low"} <= set(levels.names)
        schemas = await api.list("/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas")
        assert {"exempt", "catch-all", "system-nodes", "probes"} <= set(schemas.names)


async def test_again_changes_nothing() -> None:
    async with running_api(bootstrapped=True) as api:
        before = api.store.rv
        await bootstrap.ensure(api.server)
        assert api.store.rv == before


async def test_default_roles_regain_what_was_taken() -> None:
    async with running_api(bootstrapped=True) as api:
        path = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:basic-user"
        whole = (await api.get(path))["rules"]
        own = {"apiGroups": ["example.com"], "resources": ["things"], "verbs": ["get"]}
        await api.patch(path, {"rules": [own]})
        await bootstrap.ensure(api.server)
        assert (await api.get(path))["rules"] == [own, *whole]
        await api.patch(
            path,
            {
                "metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}},
                "rules": [],
            },
        )
        await bootstrap.ensure(api.server)
        assert not (await api.get(path)).get("rules")


async def test_the_endpoints_follow_the_address() -> None:
    settings = ServerSettings(external_address="192.0.2.1")
    async with running_api(bootstrapped=True, settings=settings) as api:
        path = "/api/v1/namespaces/default/endpoints/kubernetes"
        assert (await api.get(path))["subsets"][0]["addresses"] == [{"ip": "192.0.2.1"}]
        api.server.settings = ServerSettings(external_address="192.0.2.2")
        await bootstrap.ensure(api.server)
        assert (await api.get(path))["subsets"][0]["addresses"] == [{"ip": "192.0.2.2"}]
        piece = await api.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes")
        assert piece["endpoints"][0]["addresses"] == ["192.0.2.2"]


async def test_servers_that_share_the_store_leave_the_endpoints_to_someone_else() -> None:
    async with running_api(bootstrapped=False) as api:
        await bootstrap.ensure(api.server, shared=True)
        assert (await api.list("/api/v1/namespaces/default/endpoints")).names == []
        role = await api.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/kcp:peer")
        assert role["rules"] == [{"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}]


def summary(servers: list[tuple[str, int]]) -> tuple[list[str], list[str]]:
    """Endpoints as ADDRESS:PORT, slices as NAME TYPE PORT ADDRESSES."""
    objects = bootstrap.endpoints_of(servers)
    flat = [
        f"{address['ip']}:{subset['ports'][0]['port']}"
        for subset in (objects[0]["subsets"] if objects else [])
        for address in subset["addresses"]
    ]
    slices = [
        f"{piece['metadata']['name']} {piece['addressType']} {piece['ports'][0]['port']} "
        + ",".join(each["addresses"][0] for each in piece["endpoints"])
        for piece in objects[1:]
    ]
    return flat, slices


@pytest.mark.parametrize(
    ("servers", "flat", "slices"),
    [
        ([], [], []),
        ([("127.0.0.1", 6443), ("::1", 6443), ("db.example", 6443)], [], []),
        (
            [("192.0.2.2", 6443), ("192.0.2.1", 6443), ("192.0.2.2", 6443)],
            ["192.0.2.1:6443", "192.0.2.2:6443"],
            ["kubernetes IPv4 6443 192.0.2.1,192.0.2.2"],
        ),
        (
            [("192.0.2.1", 6445), ("192.0.2.1", 6443), ("192.0.2.3", 6445)],
            ["192.0.2.1:6443", "192.0.2.1:6445", "192.0.2.3:6445"],
            ["kubernetes IPv4 6443 192.0.2.1", "kubernetes-v4-6445 IPv4 6445 192.0.2.1,192.0.2.3"],
        ),
        (
            [("2001:db8::1", 6443), ("192.0.2.1", 6443)],
            ["192.0.2.1:6443", "2001:db8::1:6443"],
            ["kubernetes IPv4 6443 192.0.2.1", "kubernetes-v6-6443 IPv6 6443 2001:db8::1"],
        ),
    ],
    ids=["none", "nobody reachable", "one port", "two ports", "two families"],
)
def test_servers_with_one_port_share_a_subset_and_a_slice(
    servers: list[tuple[str, int]], flat: list[str], slices: list[str]
) -> None:
    assert summary(servers) == (flat, slices)
