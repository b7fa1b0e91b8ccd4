"""Workloads in a whole control plane, each controller under its own identity; pods are played by hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from kcp.base.clock import LoopClock
from kcp.base.entropy import SeededEntropy
from kcp.base.loop import run_deterministic
from kcp.client.client import Client
from kcp.controlplane.cluster import ADMIN, Cluster, ClusterOptions
from kcp.machinery import meta
from kcp.store.open import open_store
from tests.support.builders import daemonset, job, node, statefulset, template
from tests.support.hand_nodes import Hand, Refusals, ended, pending, ready, unready

Json = dict[str, Any]
Test = Callable[[Client, Hand], Awaitable[None]]
NS = "default"


def in_cluster(test: Test, *, crash_every_s: float = 0.0) -> None:
    """Run `test` in virtual time. Afterwards nobody may have been refused anything.

    `crash_every_s`: the controllers start anew that often, with nothing but the log to go by.
    """
    refusals = Refusals()

    async def main() -> None:
        clock, entropy = LoopClock(), SeededEntropy(7)
        store = open_store("memory:", clock=clock, inline=True, entropy=entropy.stream("store"))
        options = ClusterOptions(scheduler=False, wrap_transport=refusals.wrap)
        cluster = Cluster.build(store, clock, entropy, options)
        async with anyio.create_task_group() as group:
            await group.start(cluster.run)
            client = cluster.client(ADMIN)
            if crash_every_s:
                group.start_soon(crash, cluster, crash_every_s)
            await test(client, Hand(client, clock.now))
            group.cancel_scope.cancel()

    run_deterministic(main, 7)
    assert refusals.seen == []


async def crash(cluster: Cluster, every_s: float) -> None:
    while True:
        await anyio.sleep(every_s)
        cluster.restart("kube-controller-manager")


def images(pods: list[Json]) -> list[str]:
    return [pod["spec"]["containers"][0]["image"] for pod in pods]


async def set_image(client: Client, resource: str, name: str, image: str) -> None:
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}}
    await client.patch(resource, name, patch, "strategic", NS)


async def finished(client: Client, name: str, type_: str = "Complete") -> bool:
    return meta.condition_is(await client.get("jobs.batch", name, NS), type_)


async def events_about(client: Client, kind: str) -> list[tuple[str, str]]:
    items = (await client.list("events", NS)).items
    return [(e["reason"], e["message"]) for e in items if e["involvedObject"]["kind"] == kind]


async def assert_quiet(client: Client, hand: Hand) -> None:
    """Nothing is written any more once all is settled."""
    hand.play = pending
    before = (await client.list("pods", NS)).rv
    await anyio.sleep(30)
    assert (await client.list("pods", NS)).rv == before


def test_a_statefulset_lives_through_update_and_scaling() -> None:
    async def check(client: Client, hand: Hand) -> None:
        storage = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        set_ = statefulset(
            "db",
            replicas=3,
            volumeClaimTemplates=[{"metadata": {"name": "data"}, "spec": storage}],
            persistentVolumeClaimRetentionPolicy={"whenScaled": "Delete", "whenDeleted": "Retain"},
        )
        await client.create("statefulsets.apps", set_, NS)

        async def all_ready() -> bool:
            status = (await client.get("statefulsets.apps", "db", NS))["status"]
            return bool(
                status.get("readyReplicas") == 3 and status["currentRevision"] == status["updateRevision"]
            )

        await hand.until(all_ready)
        assert await hand.names() == ["db-0", "db-1", "db-2"]
        await set_image(client, "statefulsets.apps", "db", "registry.example/app:2")
        await anyio.sleep(0.1)
        await hand.until(all_ready)
        await hand.settle(2)
        assert images(await hand.pods()) == ["registry.example/app:2"] * 3
        await client.patch("statefulsets.apps", "db", {"spec": {"replicas": 1}}, "merge", NS)
        await hand.settle(10)
        assert await hand.names() == ["db-0"]
        claims = (await client.list("persistentvolumeclaims", NS)).items
        assert [meta.name(c) for c in claims if not meta.is_deleting(c)] == ["data-db-0"]
        revisions = (await client.list("controllerrevisions.apps", NS)).items
        assert sorted(r["revision"] for r in revisions) == [1, 2]
        await assert_quiet(client, hand)

    in_cluster(check)


def test_a_statefulset_halts_behind_an_unhealthy_pod() -> None:
    async def check(client: Client, hand: Hand) -> None:
        hand.play = unready
        await client.create("statefulsets.apps", statefulset("db", replicas=3), NS)
        await hand.settle(5)
        assert await hand.names() == ["db-0"]
        hand.play = ready
        (one,) = await hand.pods()
        await hand.set_status(one, ready(one))
        await hand.settle(5)
        assert await hand.names() == ["db-0", "db-1", "db-2"]

    in_cluster(check)


def test_a_daemonset_covers_the_nodes_and_rolls() -> None:
    async def check(client: Client, hand: Hand) -> None:
        for number in range(3):
            await client.create("nodes", node(f"n{number}"))
        await client.create("daemonsets.apps", daemonset("log"), NS)

        async def all_updated() -> bool:
            found = await client.get("daemonsets.apps", "log", NS)
            status = found["status"]
            current = status.get("observedGeneration") == found["metadata"]["generation"]
            return bool(
                current and status.get("updatedNumberScheduled") == 3 == status.get("numberAvailable")
            )

        await hand.until(all_updated)
        await set_image(client, "daemonsets.apps", "log", "registry.example/app:2")
        await hand.until(all_updated)
        assert images(await hand.pods()) == ["registry.example/app:2"] * 3
        await client.delete("nodes", "n2")
        await client.create("nodes", node("n3"))
        await hand.settle(5)
        placed = {
            pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
                "nodeSelectorTerms"
            ][0]["matchFields"][0]["values"][0]
            for pod in await hand.pods()
        }
        assert placed == {"n0", "n1", "n3"}

    in_cluster(check)


def test_a_replication_controller_keeps_its_number() -> None:
    async def check(client: Client, hand: Hand) -> None:
        spec = {"replicas": 2, "template": template("web")}
        rc = {"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "web"}, "spec": spec}
        await client.create("replicationcontrollers", rc, NS)
        await hand.settle(2)
        first = await hand.names()
        assert len(first) == 2
        await client.delete("pods", first[0], NS)
        await hand.settle(2)
        assert len(await hand.names()) == 2
        await client.patch(
            "replicationcontrollers", "web", {"spec": {"replicas": 0}}, "merge", NS, subresource="scale"
        )
        await hand.settle(2)
        assert await hand.names() == []
        await assert_quiet(client, hand)

    in_cluster(check)


@pytest.mark.parametrize("mode", ["NonIndexed", "Indexed"])
def test_a_job_runs_to_completion(mode: str) -> None:
    async def check(client: Client, hand: Hand) -> None:
        hand.play = ended(0)
        await client.create("jobs.batch", job("sum", completions=7, parallelism=3, completionMode=mode), NS)
        await hand.until(lambda: finished(client, "sum"))
        status = (await client.get("jobs.batch", "sum", NS))["status"]
        assert status["succeeded"] == 7 and status["uncountedTerminatedPods"] == {}
        assert status.get("completedIndexes") == ("0-6" if mode == "Indexed" else None)
        assert len(await hand.pods()) == 7
        assert not any(meta.finalizers(pod) for pod in await hand.pods())
        assert ("Completed", "Job completed") in await events_about(client, "Job")
        await assert_quiet(client, hand)

    in_cluster(check)


def test_a_job_gives_up_after_its_backoff_limit() -> None:
    async def check(client: Client, hand: Hand) -> None:
        hand.play = ended(1)
        await client.create("jobs.batch", job("bad", backoffLimit=2), NS)
        await hand.until(lambda: finished(client, "bad", "Failed"), 120)
        status = (await client.get("jobs.batch", "bad", NS))["status"]
        assert status["failed"] == 3 and len(await hand.pods()) == 3

    in_cluster(check)


def test_jobs_leave_their_pods_behind_or_take_them_along() -> None:
    async def check(client: Client, hand: Hand) -> None:
        for name, policy in (("keep", "Orphan"), ("take", "Foreground")):
            await client.create("jobs.batch", job(name), NS)
            await hand.settle(1)
            await client.delete("jobs.batch", name, NS, propagation=policy)
            await hand.settle(4)
        (left,) = await hand.pods()
        assert meta.name(left).startswith("keep-")
        assert not meta.finalizers(left) and not meta.owner_references(left)
        assert (await client.list("jobs.batch", NS)).items == []

    in_cluster(check)


def test_a_cronjob_ticks_and_finished_jobs_go_by_their_time_to_live() -> None:
    async def check(client: Client, hand: Hand) -> None:
        hand.play = ended(0)
        spec = job("x", ttlSecondsAfterFinished=90)["spec"]
        cron = {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": "tick"},
            "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": spec}},
        }
        await client.create("cronjobs.batch", cron, NS)
        await hand.settle(200)
        status = (await client.get("cronjobs.batch", "tick", NS))["status"]
        assert status["lastScheduleTime"] == status["lastSuccessfulTime"] == "2026-01-01T00:03:00Z"
        assert "active" not in status
        jobs = (await client.list("jobs.batch", NS)).items
        assert [meta.name(each) for each in jobs] == ["tick-29453762", "tick-29453763"]

    in_cluster(check)


def test_endpoints_and_mirrors() -> None:
    async def check(client: Client, hand: Hand) -> None:
        spec = {"replicas": 2, "template": template("web")}
        rc = {"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "web"}, "spec": spec}
        await client.create("replicationcontrollers", rc, NS)
        for name, selector in (("web", {"app": "web"}), ("hand", None)):
            service: Json = {"ports": [{"port": 80}]} | ({"selector": selector} if selector else {})
            obj = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": service}
            await client.create("services", obj, NS)
        written = [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 80}]}]
        by_hand = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "hand"}, "subsets": written}
        await client.create("endpoints", by_hand, NS)
        await hand.settle(3)
        (subset,) = (await client.get("endpoints", "web", NS))["subsets"]
        assert len(subset["addresses"]) == 2
        slices = (await client.list("endpointslices.discovery.k8s.io", NS)).items
        mirrored = [s for s in slices if meta.name(s).startswith("hand-")]
        assert [s["endpoints"][0]["addresses"] for s in mirrored] == [["192.0.2.7"]]
        assert not any(meta.name(s).startswith("kubernetes-") for s in slices)
        await client.delete("services", "hand", NS)
        await client.delete("services", "web", NS)
        await hand.settle(3)
        assert [meta.name(e) for e in (await client.list("endpoints", NS)).items] == ["kubernetes"]
        await assert_quiet(client, hand)

    in_cluster(check)


@pytest.mark.parametrize("mode", ["NonIndexed", "Indexed"])
def test_jobs_count_exactly_though_controllers_crash(mode: str) -> None:
    async def check(client: Client, hand: Hand) -> None:
        hand.play = ended(0)
        await client.create("jobs.batch", job("sum", completions=12, parallelism=4, completionMode=mode), NS)
        await hand.until(lambda: finished(client, "sum"), 120)
        assert (await client.get("jobs.batch", "sum", NS))["status"]["succeeded"] == 12
        assert len(await hand.pods()) == 12

    in_cluster(check, crash_every_s=0.4)


def test_a_statefulset_rolls_though_controllers_crash() -> None:
    async def check(client: Client, hand: Hand) -> None:
        await client.create("statefulsets.apps", statefulset("db", replicas=3), NS)
        await hand.settle(5)
        await set_image(client, "statefulsets.apps", "db", "registry.example/app:2")
        await hand.settle(8)
        assert images(await hand.pods()) == ["registry.example/app:2"] * 3
        assert len((await client.list("controllerrevisions.apps", NS)).items) == 2

    in_cluster(check, crash_every_s=1.1)
