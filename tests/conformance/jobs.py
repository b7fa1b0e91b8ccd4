"""What conformance asks of Jobs."""

from __future__ import annotations

from typing import Any

from tests.conformance.door import STRATEGIC, Door
from tests.conformance.objects import BATCH, all_of, condition, is_ready, job, owner_of
from tests.conformance.scoreboard import on_nodes

Json = dict[str, Any]
PREFIX = "[sig-apps] Job "
INDEX = "batch.kubernetes.io/job-completion-index"
FOREVER = "sleep 1000000"
FAIL_ODD = "if [ $(($JOB_COMPLETION_INDEX % 2)) -eq 0 ]; then exit 0; else exit 1; fi"
FAIL_FIRST = {"metadata": {"annotations": {"sim.kcp/exit.c": "1@1s*1"}}}
"""Of a pod template: the first start of its container fails, later ones do what the command says."""


async def rooms(door: Door, name: str) -> tuple[str, str]:
    """Paths of the pods and Jobs of a fresh namespace."""
    return await door.namespace(name) + "/pods", f"{BATCH.format(name)}/jobs"


def wide(parallelism: int, completions: int, *, indexed: bool = False, **more: Any) -> Json:
    mode = {"completionMode": "Indexed"} if indexed else {}
    return {"parallelism": parallelism, "completions": completions, **mode, **more}


async def ended(door: Door, path: str, type_: str, reason: str = "") -> Json:
    """The status of a job that has that condition."""
    found = await door.eventually(path, lambda each: condition(each, type_).get("status") == "True")
    assert reason in ("", condition(found, type_)["reason"]), found["status"]
    status: Json = found["status"]
    return status


async def completed(door: Door, path: str, count: int, reason: str = "CompletionsReached") -> Json:
    status = await ended(door, path, "Complete", reason)
    assert status["succeeded"] == count
    return status


@on_nodes(PREFIX + "should run a job to completion when tasks sometimes fail and are locally restarted")
async def local_restarts(door: Door) -> None:
    pods, jobs = await rooms(door, "job-restarts")
    body = job("fail-once-local", "exit 0", restart="OnFailure", **wide(2, 4))
    body["spec"]["template"].update(FAIL_FIRST)
    await door.create(jobs, body)
    await completed(door, f"{jobs}/fail-once-local", 4)
    ended_pods = [pod for pod in await door.items(pods) if pod["status"]["phase"] == "Succeeded"]
    assert len(ended_pods) == 4
    assert {pod["status"]["containerStatuses"][0]["restartCount"] for pod in ended_pods} == {1}


@on_nodes(PREFIX + "should create pods for an Indexed job with completion indexes and specified hostname")
async def indexes(door: Door) -> None:
    pods, jobs = await rooms(door, "job-indexes")
    await door.create(jobs, job("indexed-job", "exit 0", **wide(2, 4, indexed=True)))
    status = await completed(door, f"{jobs}/indexed-job", 4)
    assert status["completedIndexes"] == "0-3"
    hosts = {
        pod["metadata"]["annotations"][INDEX]: pod["spec"]["hostname"]
        for pod in await door.items(pods)
        if pod["status"]["phase"] == "Succeeded"
    }
    assert hosts == {str(index): f"indexed-job-{index}" for index in range(4)}
    field = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX}']"}}
    for pod in await door.items(pods):
        assert {"name": "JOB_COMPLETION_INDEX", "valueFrom": field} in pod["spec"]["containers"][0]["env"]


@on_nodes(PREFIX + "should adopt matching orphans and release non-matching pods")
async def adopts(door: Door) -> None:
    pods, jobs = await rooms(door, "job-adopts")
    await door.create(jobs, job("adopt-release", FOREVER, **wide(2, 4)))
    found = await door.eventually(pods, all_of(2, is_ready))
    first = f"{pods}/{found['items'][0]['metadata']['name']}"
    await door.patch(first, {"metadata": {"ownerReferences": None}})
    adopted = await door.eventually(first, lambda pod: owner_of(pod) == "adopt-release")
    assert adopted["metadata"]["uid"] == found["items"][0]["metadata"]["uid"]
    await door.patch(first, {"metadata": {"labels": None}})
    released = await door.eventually(first, lambda pod: not owner_of(pod))
    assert not released["metadata"].get("finalizers")


@on_nodes(PREFIX + "should allow to use the pod failure policy on exit code to fail the job early")
async def fails_early(door: Door) -> None:
    pods, jobs = await rooms(door, "job-early")
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}}
    policy = {"podFailurePolicy": {"rules": [rule]}}
    await door.create(jobs, job("pod-failure-failjob", FAIL_ODD, **wide(2, 4, indexed=True, **policy)))
    status = await ended(door, f"{jobs}/pod-failure-failjob", "Failed", "PodFailurePolicy")
    assert "completionTime" not in status and status["failed"] in (1, 2), (
        "one that failed, and perhaps one that was stopped for it"
    )
    await door.always(pods, lambda found: len(found["items"]) <= 3, 30)


@on_nodes(
    PREFIX
    + "should allow to use a pod failure policy to ignore failure matching on DisruptionTarget condition"
)
async def ignores_disruption(door: Door) -> None:
    pods, jobs = await rooms(door, "job-disruption")
    rule = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    policy = {"podFailurePolicy": {"rules": [rule]}, "backoffLimit": 2}
    await door.create(jobs, job("evicted", "sleep 60", **wide(3, 3, indexed=True, **policy)))
    await door.eventually(f"{jobs}/evicted", lambda found: found["status"].get("ready") == 3)
    names = await door.names(pods)
    for name in names:
        await door.create(f"{pods}/{name}/eviction", {"metadata": {"name": name}})
        await door.gone(f"{pods}/{name}")
    status = await completed(door, f"{jobs}/evicted", 3)
    assert status.get("failed", 0) == 0
    assert not set(names) & set(await door.names(pods))


@on_nodes(PREFIX + "should apply changes to a job status")
async def status_endpoints(door: Door) -> None:
    pods, jobs = await rooms(door, "job-status")
    made = await door.create(jobs, job("running", FOREVER, **wide(2, 4)))
    await door.eventually(pods, all_of(2, is_ready))
    path = f"{jobs}/running/status"
    own = {"type": "CustomConditionType", "status": "True", "lastTransitionTime": "2026-01-01T00:00:01Z"}
    patch = {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"conditions": [own]}}
    patched = await door.patch(path, patch)
    assert patched["metadata"]["annotations"]["patchedstatus"] == "true"
    assert condition(patched, own["type"])["lastTransitionTime"] == own["lastTransitionTime"]
    await door.always(path, lambda found: condition(found, own["type"]), 5)
    read = await door.get(path)
    condition(read, own["type"])["lastTransitionTime"] = "2026-01-01T00:00:02Z"
    updated = await door.update(path, read)
    assert condition(updated, own["type"])["lastTransitionTime"] == "2026-01-01T00:00:02Z"
    assert (await door.get(path))["metadata"]["uid"] == made["metadata"]["uid"]


@on_nodes(PREFIX + "should delete a job")
async def deleted(door: Door) -> None:
    pods, jobs = await rooms(door, "job-delete")
    await door.create(jobs, job("foo", FOREVER, **wide(2, 4)))
    await door.eventually(pods, all_of(2, is_ready))
    await door.delete(f"{jobs}/foo", {"propagationPolicy": "Background"})
    await door.gone(f"{jobs}/foo")
    await door.eventually(pods, lambda found: not found["items"])


@on_nodes(PREFIX + "should execute all indexes despite some failing when using backoffLimitPerIndex")
async def limit_per_index(door: Door) -> None:
    _, jobs = await rooms(door, "job-per-index")
    await door.create(jobs, job("per-index", FAIL_ODD, **wide(2, 4, indexed=True, backoffLimitPerIndex=1)))
    status = await ended(door, f"{jobs}/per-index", "Failed", "FailedIndexes")
    assert (status["failedIndexes"], status["completedIndexes"]) == ("1,3", "0,2")
    assert (status["failed"], status["succeeded"]) == (4, 2)


@on_nodes(PREFIX + "should mark indexes as failed when the FailIndex action is matched in podFailurePolicy")
async def fail_index(door: Door) -> None:
    _, jobs = await rooms(door, "job-fail-index")
    rule = {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [1]}}
    policy = {"podFailurePolicy": {"rules": [rule]}, "backoffLimitPerIndex": 1}
    await door.create(jobs, job("fail-index", FAIL_ODD, **wide(2, 2, indexed=True, **policy)))
    status = await ended(door, f"{jobs}/fail-index", "Failed")
    assert (status["failedIndexes"], status["completedIndexes"]) == ("1", "0")
    assert (status["failed"], status["succeeded"]) == (1, 1)


@on_nodes(
    PREFIX + "should terminate job execution when the number of failed indexes exceeds maxFailedIndexes"
)
async def max_failed(door: Door) -> None:
    _, jobs = await rooms(door, "job-max-failed")
    policy = {"backoffLimitPerIndex": 0, "maxFailedIndexes": 0}
    await door.create(jobs, job("max-failed", "exit 1", **wide(1, 4, indexed=True, **policy)))
    status = await ended(door, f"{jobs}/max-failed", "Failed", "MaxFailedIndexesExceeded")
    assert (status["failedIndexes"], status["failed"]) == ("0", 1)


@on_nodes(PREFIX + "should manage the lifecycle of a job")
async def lifecycle(door: Door) -> None:
    _, jobs = await rooms(door, "job-lifecycle")
    label = "e2e-job-label=life"
    watch = await door.watch(jobs, await door.revision(jobs), label)
    body = job("life", "exit 0", suspend=True, **wide(2, 4))
    body["metadata"]["labels"] = {"e2e-job-label": "life"}
    await door.create(jobs, body)
    patched = await door.patch(f"{jobs}/life", {"metadata": {"labels": {"life": "patched"}}}, STRATEGIC)
    assert patched["metadata"]["labels"]["life"] == "patched"
    while (await watch.until("MODIFIED"))["metadata"]["labels"].get("life") != "patched":
        pass
    suspended = await door.eventually(f"{jobs}/life", lambda found: condition(found, "Suspended"))
    assert condition(suspended, "Suspended")["status"] == "True"
    suspended["spec"]["suspend"] = False
    suspended["metadata"].setdefault("annotations", {})["updated"] = "true"
    await door.update(f"{jobs}/life", suspended)
    while (await watch.until("MODIFIED"))["metadata"].get("annotations", {}).get("updated") != "true":
        pass
    everywhere = f"/apis/batch/v1/jobs?labelSelector={label}"
    assert await door.names(everywhere) == ["life"]
    await completed(door, f"{jobs}/life", 4)
    await door.delete(f"{jobs}?labelSelector={label}", {"propagationPolicy": "Background"})
    assert await watch.until("DELETED", "life")
    assert await door.names(everywhere) == []


async def by_policy(door: Door, name: str, script: str, rule: Json, size: tuple[int, int]) -> Json:
    """The status of a job that its success policy ended."""
    _, jobs = await rooms(door, f"job-{name}")
    watch = await door.watch(jobs, await door.revision(jobs))
    policy: Json = {"successPolicy": {"rules": [rule]}}
    await door.create(jobs, job(name, script, **wide(*size, indexed=True, **policy)))
    while not (met := condition(await watch.until("MODIFIED"), "SuccessCriteriaMet")):
        pass
    assert (met["status"], met["reason"]) == ("True", "SuccessPolicy")
    status = await ended(door, f"{jobs}/{name}", "Complete", "SuccessPolicy")
    assert (status.get("active", 0), status["ready"], status["terminating"]) == (0, 0, 0)
    return status


@on_nodes(PREFIX + "with successPolicy should succeeded when all indexes succeeded")
async def success_of_all(door: Door) -> None:
    status = await by_policy(door, "all-succeeded", "exit 0", {"succeededCount": 2}, (2, 2))
    assert status["succeeded"] == 2 and not status.get("failed")


@on_nodes(
    PREFIX + "with successPolicy succeededIndexes rule should succeeded even when some indexes remain pending"
)
async def success_of_indexes(door: Door) -> None:
    status = await by_policy(door, "succeeded-indexes", FAIL_ODD, {"succeededIndexes": "0"}, (2, 5))
    assert (status["completedIndexes"], status["succeeded"]) == ("0", 1)


@on_nodes(
    PREFIX + "with successPolicy succeededCount rule should succeeded even when some indexes remain pending"
)
async def success_of_some(door: Door) -> None:
    status = await by_policy(door, "succeeded-count", FAIL_ODD, {"succeededCount": 1}, (2, 5))
    assert (status["completedIndexes"], status["succeeded"]) == ("0", 1)
