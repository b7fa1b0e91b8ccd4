"""The controllers apart from the API server: which run, what they may, what they notice."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from kcp.base.certs import Authority
from kcp.base.clock import SystemClock
from kcp.base.metrics import Metrics
from kcp.client.client import Client
from kcp.client.leader_election import LeaderElector
from kcp.controllers.table import CONTROLLERS
from kcp.controlplane import kube_scheduler
from kcp.controlplane.cluster import SCHEDULER, Cluster
from kcp.controlplane.controller_manager import (
    ALIASES,
    REDISCOVER_S,
    ControllerManager,
    ControllerManagerSettings,
    Given,
    resource_rows,
    select,
)
from kcp.controlplane.standalone import Claim
from kcp.machinery import meta
from kcp.machinery.errors import Conflict
from kcp.scheduler.profiles import Configuration
from tests.controlplane.apart import component
from tests.controlplane.test_cluster import in_cluster
from tests.support.builders import deployment

Json = dict[str, Any]
ALONE: Json = {"controllers": (), "scheduler": False}


def names(*flags: str) -> list[str]:
    return [controller.name for controller in select(flags)]


def test_controllers_are_chosen_as_in_kubernetes() -> None:
    everyone = [controller.name for controller in CONTROLLERS]
    assert names("*") == everyone
    assert names("*", "-job") == [name for name in everyone if name != "job-controller"]
    assert names("*", "bootstrapsigner") == [*everyone, "bootstrap-signer-controller"]
    assert names("deployment-controller", "replicaset") == ["deployment-controller", "replicaset-controller"]
    assert names() == []
    with pytest.raises(ValueError, match=r'^"deploymnt" is not in the list of known controllers$'):
        select(("*", "-deploymnt"))


def test_every_alias_is_a_controller() -> None:
    assert [controller.name for controller in select(tuple(ALIASES))] == names(*ALIASES.values())
    assert len(names(*ALIASES)) == len(ALIASES)


def test_controllers_without_their_files_are_left_out(tmp_path: Any) -> None:
    given = Given.read(ControllerManagerSettings(), "", SystemClock())
    left_out = {controller.name for controller in CONTROLLERS} - {c.name for c in given.controllers}
    assert left_out == {
        "certificatesigningrequest-signing-controller",
        "serviceaccount-token-controller",
        "root-ca-certificate-publisher-controller",
    }
    authority = Authority.create("kubernetes", SystemClock())
    for name, pem in (("ca.crt", authority.certificate_pem), ("ca.key", authority.key_pem)):
        (tmp_path / name).write_bytes(pem)
    settings = ControllerManagerSettings(
        cluster_signing_cert_file=str(tmp_path / "ca.crt"),
        cluster_signing_key_file=str(tmp_path / "ca.key"),
        service_account_private_key_file=str(tmp_path / "ca.key"),
        service_cluster_ip_range="10.0.0.0/24, fd00::/112",
    )
    given = Given.read(settings, "trusted", SystemClock())
    assert given.controllers == CONTROLLERS
    assert given.settings["root_ca"] == "trusted"
    assert given.settings["service_cidrs"] == ["10.0.0.0/24", "fd00::/112"]


def apart(test: Any, **options: Any) -> None:
    """Run `test` with a cluster that has no controllers, beside a controller manager of its own."""

    async def check(cluster: Cluster, client: Client) -> None:
        settings = ControllerManagerSettings()
        given = Given.read(settings, "trusted", cluster.clock)
        manager = ControllerManager(settings, component(cluster), given)
        async with anyio.create_task_group() as group:
            group.start_soon(manager.run)
            await test(manager, client)
            group.cancel_scope.cancel()

    in_cluster(check, **{**ALONE, **options})


def test_a_deployment_comes_and_goes_and_each_controller_acts_as_itself() -> None:
    async def check(manager: ControllerManager, client: Client) -> None:
        await anyio.sleep(2)
        await client.create("deployments.apps", deployment("web", replicas=3), "default")
        await anyio.sleep(5)
        found = (await client.list("pods", "default")).items
        assert len(found) == 3
        assert {entry["manager"] for entry in found[0]["metadata"]["managedFields"]} == {
            "replicaset-controller"
        }
        roots = await client.get("configmaps", "kube-root-ca.crt", "default")
        assert roots["data"] == {"ca.crt": "trusted"}
        await client.delete("deployments.apps", "web", "default", propagation="Background")
        await anyio.sleep(5)
        assert (await client.list("replicasets.apps", "default")).items == []
        assert (await client.list("pods", "default")).items == []

    apart(check)


def test_a_controller_has_only_the_rights_of_its_own_account() -> None:
    async def check(manager: ControllerManager, client: Client) -> None:
        bindings, own = (
            "clusterrolebindings.rbac.authorization.k8s.io",
            "system:controller:replicaset-controller",
        )
        await client.delete(bindings, own)
        await anyio.sleep(2)
        await client.create("deployments.apps", deployment("web", replicas=2), "default")
        await anyio.sleep(20)
        (found,) = (await client.list("replicasets.apps", "default")).items
        assert found["spec"]["replicas"] == 2
        assert (await client.list("pods", "default")).items == []

    apart(check)


def test_nothing_is_needed_that_only_our_server_has() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        settings = ControllerManagerSettings()
        given = Given.read(settings, "", cluster.clock)
        controllers = component(cluster, another_server=True)
        scheduler = component(cluster, "kube-scheduler", another_server=True, user=SCHEDULER)
        async with anyio.create_task_group() as group:
            group.start_soon(ControllerManager(settings, controllers, given).run)
            group.start_soon(kube_scheduler.lead, Configuration(), scheduler)
            await anyio.sleep(5)
            await client.create("deployments.apps", deployment("web", replicas=5), "default")
            await anyio.sleep(20)
            found = await client.get("deployments.apps", "web", "default")
            assert found["status"]["readyReplicas"] == 5
            await client.delete("deployments.apps", "web", "default", propagation="Foreground")
            await anyio.sleep(60)
            assert (await client.list("pods", "default")).items == []
            created = [
                e for e in (await client.list("events", "default")).items if e["reason"] == "Scheduled"
            ]
            assert len(created) == 5
            group.cancel_scope.cancel()

    in_cluster(check, **ALONE, nodes=2)


def test_garbage_is_collected_of_resources_that_the_server_has_only_later() -> None:
    """As with custom resources: a kind that discovery does not know when the controllers start."""

    async def check(cluster: Cluster, client: Client) -> None:
        late = cluster.catalog.by_resource("", "v1", "podtemplates")
        assert late is not None
        cluster.catalog.remove(late)
        given = Given.read(ControllerManagerSettings(), "", cluster.clock)
        manager = ControllerManager(ControllerManagerSettings(), component(cluster), given)
        async with anyio.create_task_group() as group:
            group.start_soon(manager.run)
            await anyio.sleep(2)
            assert "podtemplates" not in {row["resource"] for row in manager.rows}
            cluster.catalog.add(late)
            await anyio.sleep(REDISCOVER_S + 5)
            owner = (await client.create("configmaps", {"metadata": {"name": "owner"}}, "default")).object
            await client.create("podtemplates", owned_template(owner), "default")
            await anyio.sleep(2)
            assert len((await client.list("podtemplates", "default")).items) == 1
            await client.delete("configmaps", "owner", "default", propagation="Background")
            await anyio.sleep(5)
            assert (await client.list("podtemplates", "default")).items == []
            group.cancel_scope.cancel()

    in_cluster(check, **ALONE)


def owned_template(owner: Json) -> Json:
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": meta.name(owner), "uid": meta.uid(owner)}
    template = deployment("web")["spec"]["template"]
    return {
        "apiVersion": "v1",
        "kind": "PodTemplate",
        "metadata": {"name": "owned", "ownerReferences": [reference]},
        "template": template,
    }


def test_resources_are_described_as_inside_the_daemon() -> None:
    """What namespaces and garbage collection go by is the same, up to aliases of Events."""

    async def check(cluster: Cluster, client: Client) -> None:
        mapper = component(cluster).connections.mapper
        await mapper.discover()
        ours = {row["resource"]: row for row in cluster.resources()}
        theirs = {row["resource"]: row for row in resource_rows(await mapper.mappings())}
        for resource, row in ours.items():
            assert theirs[resource] == {**row, "verbs": sorted(row["verbs"])}
        followed = {
            resource for resource, row in theirs.items() if {"list", "watch", "delete"} <= set(row["verbs"])
        }
        assert followed - set(ours) <= {"events", "events.events.k8s.io"}

    in_cluster(check, **ALONE)


def test_a_claim_ends_with_the_lease_as_this_process_saw_it() -> None:
    """A process that slept knows by its own clock that it must not write, before it hears who leads now."""

    async def check(cluster: Cluster, client: Client) -> None:
        elector = LeaderElector(
            client, "kube-system", "leader", "me", clock=cluster.clock, entropy=cluster.entropy
        )
        claim = Claim(elector)

        async def lead() -> None:
            assert claim().holder == "me"
            cut_off.append(True)
            await anyio.sleep(60)

        cut_off: list[bool] = []
        original = elector.try_acquire_or_renew

        async def renew() -> bool:
            if cut_off:
                await anyio.sleep_forever()
            return await original()

        elector.try_acquire_or_renew = renew  # type: ignore[method-assign]
        started_s = cluster.clock.monotonic()
        await elector.run(lead)
        assert cluster.clock.monotonic() - started_s < 15
        with pytest.raises(Conflict) as late:
            claim()
        assert late.value.details["causes"][0]["reason"] == "LeaseFenced"

    in_cluster(check, **ALONE)


def test_queues_are_measured_under_their_controllers_names() -> None:
    async def check(manager: ControllerManager, client: Client) -> None:
        await anyio.sleep(3)
        metrics: Metrics = manager.component.metrics
        assert b'workqueue_adds_total{name="namespace-controller"}' in metrics.exposition()

    apart(check)
