"""What users see of a Job: completions, failures and their policies, suspension, exact counting."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcp.controllers import effects as fx
from kcp.controllers.job import CONTROLLER
from kcp.controllers.job.controller import orphaned
from kcp.controllers.job.state import FINALIZER
from kcp.machinery import meta
from kcp.machinery.errors import Forbidden, InternalError
from tests.support.builders import served_job
from tests.support.planning import World, events, of_type, writes
from tests.support.pods_by_hand import edit, end_running, pod_names, run_new, set_status, start_deleting

Json = dict[str, Any]
KEY, RESOURCE = "default/work", "jobs.batch"
INDEX = "batch.kubernetes.io/job-completion-index"


def start(**spec: Any) -> World:
    world = World(served_job("work", **spec))
    world.plan(CONTROLLER, KEY)
    run_new(world)
    return world


def indexed(**spec: Any) -> World:
    return start(completionMode="Indexed", **{"completions": 3, "parallelism": 3, **spec})


def settle(world: World, limit: int = 20) -> list[fx.Effect]:
    """Plan, run new pods and sleep through back-offs until nothing is left to do."""
    done: list[fx.Effect] = []
    for _ in range(limit):
        effects = world.plan(CONTROLLER, KEY)
        done.extend(effects)
        fresh = run_new(world)
        waits = of_type(effects, fx.RequeueAfter)
        if waits and not writes(effects):
            world.sleep(min(wait.seconds for wait in waits))
        elif not fresh and not writes(effects):
            return done
    raise AssertionError("does not settle")


def status(world: World) -> Json:
    found: Json = world.get(RESOURCE, KEY)["status"]
    return found


def conditions(world: World) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in status(world).get("conditions", ())}


def message(world: World, type_: str) -> str:
    found = meta.condition(world.get(RESOURCE, KEY), type_)
    assert found is not None
    return str(found["message"])


def made(effects: list[fx.Effect]) -> list[Json]:
    return [effect.object for effect in of_type(effects, fx.Create)]


def pods(world: World, index: int) -> list[Json]:
    return [pod for pod in world.all("pods") if meta.annotations(pod).get(INDEX) == str(index)]


def living(world: World) -> list[Json]:
    return [p for p in world.all("pods") if p["status"]["phase"] == "Running" and not meta.is_deleting(p)]


def end(world: World, pod: Json, code: int) -> None:
    set_status(world, pod, "Failed" if code else "Succeeded", exit_code=code)


# -- running to completion ---------------------------------------------------------------------------


def test_a_job_runs_as_many_pods_as_it_may_until_enough_have_succeeded() -> None:
    world = start(completions=3, parallelism=2)
    assert len(living(world)) == 2
    assert status(world)["active"] == 2
    end(world, living(world)[0], 0)
    settle(world)
    assert (status(world)["succeeded"], status(world)["active"], status(world)["ready"]) == (1, 2, 2)
    end_running(world, 0)
    effects = settle(world)
    assert status(world)["succeeded"] == 3 and "active" not in status(world)
    assert conditions(world) == {
        "SuccessCriteriaMet": ("True", "CompletionsReached"),
        "Complete": ("True", "CompletionsReached"),
    }
    assert status(world)["completionTime"] == "2026-01-01T00:00:00Z"
    assert status(world)["uncountedTerminatedPods"] == {}
    assert ("Completed", "Job completed") in events(effects)
    assert not any(meta.finalizers(pod) for pod in world.all("pods"))
    assert not writes(world.plan(CONTROLLER, KEY))


def test_without_completions_the_first_success_ends_it() -> None:
    world = World(served_job("work", parallelism=3, completions=None))
    world.plan(CONTROLLER, KEY)
    run_new(world)
    end(world, living(world)[0], 0)
    settle(world)
    assert len(living(world)) == 2 and "Complete" not in conditions(world)
    end_running(world, 0)
    settle(world)
    assert conditions(world)["Complete"] == ("True", "CompletionsReached")


def test_a_job_whose_start_lies_ahead_of_the_clock_is_not_completed_before_it() -> None:
    """The clock was set back meanwhile; the API would refuse the earlier time, again and again."""
    world = start()
    ahead = "2030-01-01T00:00:00Z"
    job = world.get(RESOURCE, KEY)
    world.put({**job, "status": {**job["status"], "startTime": ahead}})
    end_running(world, 0)
    settle(world)
    assert conditions(world)["Complete"][0] == "True" and status(world)["completionTime"] == ahead


def test_pods_carry_the_finalizer_and_the_labels() -> None:
    world = start()
    (one,) = world.all("pods")
    assert meta.finalizers(one) == [FINALIZER]
    assert meta.labels(one)["batch.kubernetes.io/job-name"] == "work"
    assert meta.name(one).startswith("work-")


def test_lowered_parallelism_takes_pods_away_without_counting_them() -> None:
    world = start(completions=5, parallelism=3)
    edit(world, RESOURCE, KEY, parallelism=1)
    settle(world)
    assert len(world.all("pods")) == 1
    assert "failed" not in status(world)


def test_a_pod_that_keeps_its_finalizer_is_not_taken_away_as_it_would_count_as_failed() -> None:
    world = start(completions=5, parallelism=3)
    edit(world, RESOURCE, KEY, parallelism=1)
    world.fail[fx.Patch] = InternalError("no")
    effects = world.plan(CONTROLLER, KEY)
    assert not of_type(effects, fx.Delete) and status(world)["active"] == 3
    del world.fail[fx.Patch]
    settle(world)
    assert len(living(world)) == 1 and "failed" not in status(world)


def test_every_pod_is_counted_once_though_writes_fail() -> None:
    world = start(completions=2, parallelism=2)
    end_running(world, 0)
    world.fail[fx.Patch] = InternalError("lost")
    for _ in range(3):
        world.plan(CONTROLLER, KEY)
    assert len(status(world)["uncountedTerminatedPods"]["succeeded"]) == 2
    assert "Complete" not in conditions(world)
    world.fail.clear()
    settle(world)
    assert (status(world)["succeeded"], status(world)["uncountedTerminatedPods"]) == (2, {})
    world = start(completions=2, parallelism=2)
    end_running(world, 0)
    world.fail[fx.Status] = InternalError("lost")
    world.plan(CONTROLLER, KEY)
    assert all(FINALIZER in meta.finalizers(pod) for pod in world.all("pods"))
    world.fail.clear()
    settle(world)
    assert status(world)["succeeded"] == 2


def test_a_refused_pod_is_told() -> None:
    world = World(served_job("work"))
    world.fail[fx.Create] = Forbidden("exceeded quota")
    effects = world.plan(CONTROLLER, KEY)
    assert ("FailedCreate", "Error creating: exceeded quota") in events(effects)
    assert "active" not in status(world)


# -- failing -----------------------------------------------------------------------------------------


def test_failures_wait_ten_seconds_and_then_twice_as_long_each_time() -> None:
    world = start(backoffLimit=10)
    waits = []
    for _ in range(4):
        end_running(world, 1)
        effects = world.plan(CONTROLLER, KEY)
        assert not made(effects)
        (wait,) = of_type(effects, fx.RequeueAfter)
        waits.append(wait.seconds)
        world.sleep(wait.seconds)
        assert len(made(world.plan(CONTROLLER, KEY))) == 1
        run_new(world)
    assert waits == [10, 20, 40, 80]
    assert status(world)["failed"] == 4


def test_a_success_forgives_the_failures_before_it() -> None:
    world = start(completions=5, backoffLimit=10)
    end_running(world, 1)
    world.plan(CONTROLLER, KEY)
    world.sleep(10)
    world.plan(CONTROLLER, KEY)
    run_new(world)
    end_running(world, 0)
    assert len(made(world.plan(CONTROLLER, KEY))) == 1
    assert world.memos == {}


def test_too_many_failures_end_it() -> None:
    world = start(parallelism=2, completions=4, backoffLimit=1)
    end_running(world, 1)
    effects = settle(world)
    assert status(world)["failed"] == 2
    assert conditions(world) == {
        "FailureTarget": ("True", "BackoffLimitExceeded"),
        "Failed": ("True", "BackoffLimitExceeded"),
    }
    assert message(world, "Failed") == "Job has reached the specified backoff limit"
    assert ("BackoffLimitExceeded", "Job has reached the specified backoff limit") in events(effects)


def test_pods_of_a_failed_job_are_deleted_and_count_as_failed() -> None:
    world = start(parallelism=3, completions=3, backoffLimit=0)
    end(world, living(world)[0], 1)
    settle(world)
    assert len(world.all("pods")) == 1
    assert status(world)["failed"] == 3


def test_the_end_waits_for_pods_that_still_terminate() -> None:
    world = start(parallelism=2, completions=2, backoffLimit=0)
    going = start_deleting(world, living(world)[0])
    end(world, living(world)[0], 1)
    world.plan(CONTROLLER, KEY)
    assert conditions(world) == {"FailureTarget": ("True", "BackoffLimitExceeded")}
    assert status(world)["terminating"] == 1
    del world.objects["pods"][meta.key_of(going)]
    settle(world)
    assert "Failed" in conditions(world)


def test_with_on_failure_restarts_count() -> None:
    world = start(restart="OnFailure", backoffLimit=2)
    (one,) = living(world)
    statuses = [{"name": "main", "restartCount": 2, "state": {"running": {}}}]
    world.put({**one, "status": {**one["status"], "containerStatuses": statuses}})
    settle(world)
    assert conditions(world)["Failed"] == ("True", "BackoffLimitExceeded")


def test_the_deadline_ends_it() -> None:
    world = start(activeDeadlineSeconds=30)
    assert fx.RequeueAfter(30) in world.plan(CONTROLLER, KEY)
    world.sleep(30)
    effects = settle(world)
    assert ("DeadlineExceeded", "Job was active longer than specified deadline") in events(effects)
    assert conditions(world)["Failed"] == ("True", "DeadlineExceeded")
    assert not world.all("pods")


# -- policies ----------------------------------------------------------------------------------------

EXIT_42 = {"onExitCodes": {"operator": "In", "values": [42]}}
DISRUPTED = {"onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def policy(action: str, rule: Json) -> Json:
    return {"podFailurePolicy": {"rules": [{"action": action, **rule}]}}


def test_a_policy_may_fail_the_whole_job() -> None:
    world = start(**policy("FailJob", EXIT_42))
    (one,) = living(world)
    end(world, one, 42)
    settle(world)
    text = f"Container main for pod default/{meta.name(one)} failed with exit code 42 matching FailJob rule at index 0"
    assert message(world, "Failed") == message(world, "FailureTarget") == text
    assert conditions(world)["Failed"] == ("True", "PodFailurePolicy")


def test_a_policy_may_ignore_a_failure() -> None:
    world = start(backoffLimit=0, **policy("Ignore", DISRUPTED))
    (one,) = living(world)
    disrupted = {"type": "DisruptionTarget", "status": "True"}
    world.put({**one, "status": {**one["status"], "phase": "Failed", "conditions": [disrupted]}})
    settle(world)
    assert "failed" not in status(world) and len(living(world)) == 1


def test_a_condition_may_fail_the_job_too() -> None:
    world = start(**policy("FailJob", DISRUPTED))
    (one,) = living(world)
    disrupted = {"type": "DisruptionTarget", "status": "True"}
    world.put({**one, "status": {**one["status"], "phase": "Failed", "conditions": [disrupted]}})
    settle(world)
    text = f"Pod default/{meta.name(one)} has condition DisruptionTarget matching FailJob rule at index 0"
    assert message(world, "Failed") == text


@pytest.mark.parametrize(("operator", "ends"), [("In", False), ("NotIn", True)])
def test_exit_codes_may_be_named_or_excluded(operator: str, ends: bool) -> None:
    rule = {"onExitCodes": {"operator": operator, "values": [42], "containerName": "main"}}
    world = start(**policy("FailJob", rule))
    end_running(world, 1)
    world.plan(CONTROLLER, KEY)
    assert ("FailureTarget" in conditions(world)) == ends


def test_with_a_policy_a_leaving_pod_is_not_replaced_before_it_has_ended() -> None:
    world = start(**policy("Ignore", DISRUPTED), podReplacementPolicy="Failed")
    going = start_deleting(world, living(world)[0])
    effects = world.plan(CONTROLLER, KEY)
    assert not made(effects) and status(world)["terminating"] == 1
    world.put({**going, "status": {"phase": "Failed"}})
    settle(world)
    assert status(world)["failed"] == 1 and len(living(world)) == 1


def test_without_one_a_leaving_pod_has_failed_and_is_replaced() -> None:
    world = start()
    start_deleting(world, living(world)[0])
    settle(world)
    assert status(world)["failed"] == 1 and len(living(world)) == 1


# -- indexes -----------------------------------------------------------------------------------------


def test_indexed_pods_know_their_index() -> None:
    world = indexed()
    one = pods(world, 1)[0]
    assert meta.labels(one)[INDEX] == "1"
    assert one["spec"]["hostname"] == "work-1"
    assert meta.name(one).startswith("work-1-")
    (variable,) = one["spec"]["containers"][0]["env"]
    path = f"metadata.labels['{INDEX}']"
    assert variable == {
        "name": "JOB_COMPLETION_INDEX",
        "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}},
    }


def test_each_index_succeeds_once() -> None:
    world = indexed(completions=5, parallelism=5)
    for index in (1, 3, 4):
        end(world, pods(world, index)[0], 0)
    settle(world)
    assert (status(world)["completedIndexes"], status(world)["succeeded"]) == ("1,3,4", 3)
    end_running(world, 0)
    settle(world)
    assert status(world)["completedIndexes"] == "0-4"
    assert conditions(world)["Complete"] == ("True", "CompletionsReached")


def test_a_failed_index_is_tried_again() -> None:
    world = indexed()
    end(world, pods(world, 2)[0], 1)
    settle(world)
    assert sorted(meta.annotations(p)[INDEX] for p in living(world)) == ["0", "1", "2"]


def test_duplicates_of_an_index_go() -> None:
    world = indexed()
    twin = {**pods(world, 0)[0]}
    twin["metadata"] = {**twin["metadata"], "name": "work-0-twin", "uid": "twin"}
    world.put(twin)
    settle(world)
    assert len(pods(world, 0)) == 1 and "failed" not in status(world)


def test_an_elastic_job_forgets_indexes_beyond_its_end() -> None:
    world = indexed()
    end(world, pods(world, 2)[0], 0)
    settle(world)
    edit(world, RESOURCE, KEY, completions=2, parallelism=2)
    settle(world)
    assert "completedIndexes" not in status(world)
    assert sorted(meta.annotations(p)[INDEX] for p in living(world)) == ["0", "1"]


PER_INDEX = {"backoffLimitPerIndex": 1, "backoffLimit": 2**31 - 1}


def test_each_index_has_its_own_limit_and_the_others_go_on() -> None:
    world = indexed(completions=2, parallelism=2, **PER_INDEX)
    end(world, pods(world, 0)[0], 1)
    effects = settle(world)
    (second,) = [p for p in pods(world, 0) if p["status"]["phase"] == "Running"]
    assert meta.annotations(second)["batch.kubernetes.io/job-index-failure-count"] == "1"
    assert any(isinstance(effect, fx.RequeueAfter) for effect in effects)
    end(world, second, 1)
    settle(world)
    assert status(world)["failedIndexes"] == "0"
    assert len(living(world)) == 1 and "Failed" not in conditions(world)
    end_running(world, 0)
    effects = settle(world)
    assert conditions(world)["Failed"] == ("True", "FailedIndexes")
    assert ("FailedIndexes", "Job has failed indexes") in events(effects)
    assert (status(world)["completedIndexes"], status(world)["failed"]) == ("1", 2)


def test_the_failed_pod_waits_for_its_replacement_before_it_is_let_go() -> None:
    world = indexed(completions=1, parallelism=1, **PER_INDEX)
    (first,) = pods(world, 0)
    end(world, first, 1)
    world.plan(CONTROLLER, KEY)
    assert FINALIZER in meta.finalizers(world.get("pods", meta.key_of(first)))
    settle(world)
    assert not meta.finalizers(world.get("pods", meta.key_of(first)))


def test_too_many_failed_indexes_end_the_job() -> None:
    world = indexed(backoffLimitPerIndex=0, maxFailedIndexes=1, backoffLimit=2**31 - 1)
    for index in (0, 1):
        end(world, pods(world, index)[0], 1)
    effects = settle(world)
    assert conditions(world)["Failed"] == ("True", "MaxFailedIndexesExceeded")
    text = "Job has exceeded the specified maximal number of failed indexes"
    assert ("MaxFailedIndexesExceeded", text) in events(effects)
    assert status(world)["failedIndexes"] == "0,1"


def test_a_policy_may_fail_an_index_at_once() -> None:
    world = indexed(completions=2, parallelism=2, **{**PER_INDEX, **policy("FailIndex", EXIT_42)})
    end(world, pods(world, 0)[0], 42)
    settle(world)
    assert status(world)["failedIndexes"] == "0" and len(pods(world, 0)) == 1


@pytest.mark.parametrize(
    ("rule", "finished", "met"),
    [
        ({"succeededIndexes": "0,2"}, (0, 2), True),
        ({"succeededIndexes": "0,2"}, (0, 1), False),
        ({"succeededIndexes": "0-2", "succeededCount": 1}, (1,), True),
        ({"succeededCount": 2}, (0, 3), True),
        ({"succeededCount": 2}, (3,), False),
    ],
)
def test_a_success_policy_may_end_it_early(rule: Json, finished: tuple[int, ...], met: bool) -> None:
    world = indexed(completions=5, parallelism=5, successPolicy={"rules": [rule]})
    for index in finished:
        end(world, pods(world, index)[0], 0)
    settle(world)
    assert ("Complete" in conditions(world)) == met
    if met:
        assert conditions(world)["SuccessCriteriaMet"] == ("True", "SuccessPolicy")
        assert message(world, "Complete") == "Matched rules at index 0"
        assert not living(world) and "failed" not in status(world)


# -- suspension --------------------------------------------------------------------------------------


def test_a_suspended_job_has_no_pods_and_no_clock() -> None:
    world = start(parallelism=2, completions=2, activeDeadlineSeconds=30)
    edit(world, RESOURCE, KEY, suspend=True)
    effects = settle(world)
    assert ("Suspended", "Job suspended") in events(effects)
    assert not world.all("pods") and "failed" not in status(world)
    assert conditions(world)["Suspended"] == ("True", "JobSuspended") and "startTime" not in status(world)
    world.sleep(100)
    edit(world, RESOURCE, KEY, suspend=False)
    effects = settle_running(world)
    assert ("Resumed", "Job resumed") in events(effects)
    assert conditions(world)["Suspended"] == ("False", "JobResumed")
    assert status(world)["startTime"] == "2026-01-01T00:01:40Z" and len(living(world)) == 2


def settle_running(world: World) -> list[fx.Effect]:
    """Two plans: the deadline's clock never lets a running job rest."""
    effects = world.plan(CONTROLLER, KEY)
    run_new(world)
    return effects + world.plan(CONTROLLER, KEY)


def test_a_job_may_begin_suspended() -> None:
    world = World(served_job("work", suspend=True))
    settle(world)
    assert not world.all("pods") and "startTime" not in status(world)


# -- belonging ---------------------------------------------------------------------------------------


def test_pods_are_released_without_the_finalizer_and_adopted_with_it() -> None:
    world = start()
    (one,) = world.all("pods")
    labels = {k: v for k, v in meta.labels(one).items() if "controller-uid" not in k}
    world.put({**one, "metadata": {**one["metadata"], "labels": labels}})
    world.plan(CONTROLLER, KEY)
    freed = world.get("pods", meta.key_of(one))
    assert meta.controller_of(freed) is None and not meta.finalizers(freed)
    run_new(world)
    world.put({**freed, "metadata": {**freed["metadata"], "labels": meta.labels(one)}})
    world.plan(CONTROLLER, KEY)
    adopted = world.objects["pods"].get(meta.key_of(one))
    assert adopted is None or meta.finalizers(adopted) == [FINALIZER]


def test_pods_that_lost_their_job_lose_its_finalizer() -> None:
    world = start()
    (one,) = world.all("pods")
    del world.objects[RESOURCE][KEY]
    world.plan(CONTROLLER, KEY)
    assert not meta.finalizers(world.get("pods", meta.key_of(one)))


def test_orphans_with_the_finalizer_are_freed_unless_a_job_wants_them() -> None:
    world = start()
    (one,) = world.all("pods")
    bare = {k: v for k, v in one["metadata"].items() if k != "ownerReferences"}
    orphan = world.put({**one, "metadata": bare})
    readers: Any = world.view(CONTROLLER)
    keys = orphaned(one, orphan, readers)
    assert keys == [KEY, f"pod:{meta.key_of(one)}"]
    assert not writes(world.plan(CONTROLLER, keys[1]))
    del world.objects[RESOURCE][KEY]
    assert len(of_type(world.plan(CONTROLLER, keys[1]), fx.Patch)) == 1
    assert not meta.finalizers(world.get("pods", meta.key_of(one)))


def test_a_job_with_another_manager_is_left_alone() -> None:
    world = World(served_job("work", managedBy="example.com/other"))
    assert world.plan(CONTROLLER, KEY) == []
    world = World(served_job("work", managedBy="kubernetes.io/job-controller"))
    assert made(world.plan(CONTROLLER, KEY))


def test_an_unknown_mode_is_told_and_skipped() -> None:
    world = World(served_job("work", completionMode="Later"))
    assert events(world.plan(CONTROLLER, KEY)) == [
        ("UnknownCompletionMode", "Skipped Job sync because completion mode is unknown")
    ]
    assert not pod_names(world)


def test_a_job_that_is_deleted_lets_its_pods_go() -> None:
    world = start()
    job = world.get(RESOURCE, KEY)
    world.put({**job, "metadata": {**job["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}})
    effects = world.plan(CONTROLLER, KEY)
    assert not made(effects)
    assert not any(meta.finalizers(pod) for pod in world.all("pods"))


# -- the law of counting -----------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(st.sampled_from(["plan", "succeed", "fail", "delete"]), st.integers(0, 9), st.booleans()),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.sampled_from(["NonIndexed", "Indexed"]), st.sampled_from([fx.Patch, fx.Status, fx.Create]))
def test_no_pod_is_lost_or_counted_twice_whatever_fails(
    steps: list[tuple[str, int, bool]], mode: str, lossy: type
) -> None:
    world = World(served_job("work", completions=8, parallelism=4, completionMode=mode, backoffLimit=10**6))
    ended: dict[str, set[str]] = {"succeed": set(), "fail": set(), "delete": set()}
    for action, number, loses in steps:
        world.sleep(600)
        running = [p for p in world.all("pods") if (p.get("status") or {}).get("phase") == "Running"]
        if action == "plan" or not running:
            world.fail = {lossy: InternalError("lost")} if loses else {}
            world.plan(CONTROLLER, KEY)
            world.fail = {}
            run_new(world)
        else:
            one = running[number % len(running)]
            ended[action].add(meta.uid(one))
            if action == "delete":
                start_deleting(world, {**one, "status": {**one["status"], "phase": "Failed"}})
            else:
                end(world, one, 1 if action == "fail" else 0)
    for _ in range(6):
        world.sleep(600)
        world.plan(CONTROLLER, KEY)
    found = status(world)
    assert found.get("succeeded", 0) == len(ended["succeed"])
    assert found.get("failed", 0) == len(ended["fail"]) + len(ended["delete"])
    assert found["uncountedTerminatedPods"] == {}
