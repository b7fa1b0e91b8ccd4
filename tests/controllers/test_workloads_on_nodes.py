"""What Kubernetes' conformance profile looks at in workloads, with the scheduler and simulated nodes."""

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
from tests.support.builders import daemonset, statefulset, template
from tests.support.hand_nodes import Refusals

Json = dict[str, Any]
NS, OURS = "default", "system:serviceaccount:kube-system:"
INDEX = "batch.kubernetes.io/job-completion-index"


def on_nodes(
    test: Callable[[Client], Awaitable[None]], nodes: int = 2, *, refused: tuple[str, ...] = ()
) -> None:
    """Run `test` in virtual time. Afterwards no controller may have been refused anything, but for `refused`."""
    refusals = Refusals()

    async def main() -> None:
        clock, entropy = LoopClock(), SeededEntropy(11)
        store = open_store("memory:", clock=clock, inline=True, entropy=entropy.stream("store"))
        options = ClusterOptions(nodes=nodes, wrap_transport=refusals.wrap)
        cluster = Cluster.build(store, clock, entropy, options)
        async with anyio.create_task_group() as group:
            await group.start(cluster.run)
            await test(cluster.client(ADMIN))
            group.cancel_scope.cancel()

    run_deterministic(main, 11)
    ours = {seen.removeprefix(OURS) for seen in refusals.seen if seen.startswith(OURS)}
    assert ours == set(refused)


def job(name: str, script: str, **spec: Any) -> Json:
    """`restart` in `spec` is the pods' restart policy, Never by default."""
    restart = spec.pop("restart", "Never")
    container = {"name": "c", "image": "registry.example/busybox:1", "command": ["sh", "-c", script]}
    pod = {"restartPolicy": restart, "containers": [container]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": {"spec": pod}, **spec},
    }


async def status(client: Client, resource: str, name: str) -> Json:
    found: Json = (await client.get(resource, name, NS)).get("status") or {}
    return found


async def pods(client: Client, prefix: str = "") -> list[Json]:
    return [p for p in (await client.list("pods", NS)).items if meta.name(p).startswith(prefix)]


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 180) -> None:
    for _ in range(int(seconds)):
        if await holds():
            return
        await anyio.sleep(1)
    raise AssertionError(f"not within {seconds:g} s")


async def ended(client: Client, name: str, type_: str) -> tuple[str, Json]:
    """(reason, status) of a Job that ended as expected."""

    async def holds() -> bool:
        return meta.condition_is(await client.get("jobs.batch", name, NS), type_)

    await until(holds)
    found = await client.get("jobs.batch", name, NS)
    condition = meta.condition(found, type_)
    assert condition is not None
    return condition["reason"], found["status"]


def test_an_indexed_job_runs_every_index_with_its_host_name() -> None:
    async def check(client: Client) -> None:
        await client.create(
            "jobs.batch", job("all", "exit 0", completions=4, parallelism=2, completionMode="Indexed"), NS
        )
        reason, found = await ended(client, "all", "Complete")
        assert (reason, found["completedIndexes"]) == ("CompletionsReached", "0-3")
        hosts = {meta.annotations(p)[INDEX]: p["spec"]["hostname"] for p in await pods(client)}
        assert hosts == {str(number): f"all-{number}" for number in range(4)}

    on_nodes(check)


def test_an_exit_code_may_fail_the_job_early() -> None:
    async def check(client: Client) -> None:
        rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [255]}}
        spec = {"podFailurePolicy": {"rules": [rule]}, "backoffLimit": 100}
        await client.create("jobs.batch", job("early", "exit 255", **spec), NS)
        reason, found = await ended(client, "early", "Failed")
        assert (reason, found["failed"]) == ("PodFailurePolicy", 1)

    on_nodes(check)


def test_a_disruption_need_not_count() -> None:
    async def check(client: Client) -> None:
        rule = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
        spec = {"podFailurePolicy": {"rules": [rule]}, "backoffLimit": 0}
        await client.create("jobs.batch", job("calm", "sleep 100", **spec), NS)
        await anyio.sleep(10)
        (first,) = await pods(client)
        condition = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
        patch = {"status": {"conditions": [condition]}}
        await client.patch("pods", meta.name(first), patch, "strategic", NS, subresource="status")
        await client.delete("pods", meta.name(first), NS)
        reason, found = await ended(client, "calm", "Complete")
        assert reason == "CompletionsReached"
        assert "failed" not in found and found["succeeded"] == 1

    on_nodes(check)


def test_backoff_limit_per_index_lets_the_others_finish() -> None:
    async def check(client: Client) -> None:
        spec = {"completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1}
        await client.create("jobs.batch", job("each", "exit 1", **spec), NS)
        reason, found = await ended(client, "each", "Failed")
        assert (reason, found["failedIndexes"], found["failed"]) == ("FailedIndexes", "0,1", 4)

    on_nodes(check)


def test_max_failed_indexes_and_fail_index() -> None:
    async def check(client: Client) -> None:
        indexed = {"completions": 5, "parallelism": 1, "completionMode": "Indexed"}
        most = {**indexed, "backoffLimitPerIndex": 0, "maxFailedIndexes": 1}
        await client.create("jobs.batch", job("most", "exit 1", **most), NS)
        reason, found = await ended(client, "most", "Failed")
        assert (reason, found["failedIndexes"]) == ("MaxFailedIndexesExceeded", "0,1")
        rule = {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}
        policy = {"podFailurePolicy": {"rules": [rule]}, "backoffLimitPerIndex": 5}
        await client.create("jobs.batch", job("index", "exit 42", **{**indexed, **policy}), NS)
        reason, found = await ended(client, "index", "Failed")
        assert (reason, found["failedIndexes"], found["failed"]) == ("FailedIndexes", "0-4", 5)

    on_nodes(check)


def test_a_success_policy_ends_the_rest() -> None:
    async def check(client: Client) -> None:
        spec = {"completions": 3, "parallelism": 3, "completionMode": "Indexed"}
        policy = {"successPolicy": {"rules": [{"succeededCount": 1}]}}
        await client.create("jobs.batch", job("enough", "sleep 5; exit 0", **spec, **policy), NS)
        reason, found = await ended(client, "enough", "Complete")
        assert reason == "SuccessPolicy" and found["succeeded"] >= 1 and found["terminating"] == 0

    on_nodes(check)


def test_a_job_takes_an_orphan_back_and_lets_a_stranger_go() -> None:
    async def check(client: Client) -> None:
        await client.create("jobs.batch", job("own", "sleep 1000", completions=2, parallelism=2), NS)
        await anyio.sleep(5)
        orphan, stranger = (meta.name(pod) for pod in await pods(client))
        await client.patch("pods", orphan, {"metadata": {"ownerReferences": None}}, "merge", NS)
        await client.patch("pods", stranger, {"metadata": {"labels": None}}, "merge", NS)

        async def settled() -> bool:
            taken = meta.controller_of(await client.get("pods", orphan, NS)) is not None
            return taken and meta.controller_of(await client.get("pods", stranger, NS)) is None

        await until(settled)
        assert meta.finalizers(await client.get("pods", stranger, NS)) == []

    on_nodes(check)


def test_pods_of_an_on_failure_job_are_restarted_where_they_are() -> None:
    async def check(client: Client) -> None:
        spec = {"restart": "OnFailure", "backoffLimit": 2}
        await client.create("jobs.batch", job("again", "exit 1", **spec), NS)
        reason, _ = await ended(client, "again", "Failed")
        assert reason == "BackoffLimitExceeded"

    on_nodes(check)


@pytest.mark.parametrize("policy", ["OrderedReady", "Parallel"])
def test_a_statefulset_scales_updates_and_rolls_back(policy: str) -> None:
    async def check(client: Client) -> None:
        await client.create(
            "statefulsets.apps", statefulset("ss", replicas=3, podManagementPolicy=policy), NS
        )

        async def image(version: str) -> None:
            containers = [{"name": "main", "image": f"registry.example/app:{version}"}]
            patch = {"spec": {"template": {"spec": {"containers": containers}}}}
            await client.patch("statefulsets.apps", "ss", patch, "strategic", NS)

        async def settled() -> bool:
            found = await client.get("statefulsets.apps", "ss", NS)
            now, wanted = found["status"], found["spec"]["replicas"]
            return bool(
                now.get("observedGeneration") == found["metadata"]["generation"]
                and now.get("readyReplicas", 0) == now["replicas"] == wanted
                and now["currentRevision"] == now["updateRevision"]
            )

        await until(settled)
        first = (await status(client, "statefulsets.apps", "ss"))["currentRevision"]
        await image("2")
        await until(settled)
        await image("1")
        await until(settled)
        assert (await status(client, "statefulsets.apps", "ss"))["currentRevision"] == first
        await client.patch(
            "statefulsets.apps", "ss", {"spec": {"replicas": 5}}, "merge", NS, subresource="scale"
        )
        await until(settled)
        await client.patch("statefulsets.apps", "ss", {"spec": {"replicas": 0}}, "merge", NS)
        await until(settled)
        assert await pods(client) == []

    on_nodes(check)


def test_a_daemonset_replaces_what_is_deleted_or_fails_and_keeps_its_revisions() -> None:
    async def check(client: Client) -> None:
        await client.create("daemonsets.apps", daemonset("ds"), NS)

        async def covered() -> bool:
            found = await status(client, "daemonsets.apps", "ds")
            return bool(found.get("numberAvailable") == 3 == len(await pods(client)))

        await until(covered)
        one, other, _ = await pods(client)
        await client.delete("pods", meta.name(one), NS)
        failed = {"status": {"phase": "Failed"}}
        await client.patch("pods", meta.name(other), failed, "merge", NS, subresource="status")
        await anyio.sleep(1)
        await until(covered)
        assert meta.name(other) not in [meta.name(pod) for pod in await pods(client)]
        (revision,) = (await client.list("controllerrevisions.apps", NS)).items
        copy = {
            **revision,
            "metadata": {
                "name": "by-hand",
                "labels": meta.labels(revision),
                "ownerReferences": meta.owner_references(revision),
            },
            "revision": 2,
        }
        await client.create("controllerrevisions.apps", copy, NS)
        await anyio.sleep(5)
        assert len((await client.list("controllerrevisions.apps", NS)).items) == 2
        await client.delete("controllerrevisions.apps", meta.name(revision), NS)
        await anyio.sleep(5)
        (kept,) = (await client.list("controllerrevisions.apps", NS)).items
        assert meta.name(kept) == "by-hand"

    on_nodes(check, nodes=3)


def test_a_quota_shows_as_a_condition_of_a_replication_controller_and_clears() -> None:
    async def check(client: Client) -> None:
        quota = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "two"},
            "spec": {"hard": {"pods": "2"}},
        }
        await client.create("resourcequotas", quota, NS)
        await anyio.sleep(5)
        rc = {
            "apiVersion": "v1",
            "kind": "ReplicationController",
            "metadata": {"name": "rc"},
            "spec": {"replicas": 3, "template": template("rc")},
        }
        await client.create("replicationcontrollers", rc, NS)

        async def refused() -> bool:
            return meta.condition_is(await client.get("replicationcontrollers", "rc", NS), "ReplicaFailure")

        await until(refused)
        await client.patch("replicationcontrollers", "rc", {"spec": {"replicas": 2}}, "merge", NS)

        async def cleared() -> bool:
            return not await refused()

        await until(cleared)

    on_nodes(check, refused=("replication-controller: POST /api/v1/namespaces/default/pods",))
