"""What users see of a CronJob: Jobs on time, concurrency, missed starts, history."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from kcp.controllers import effects as fx
from kcp.controllers.cronjob import CONTROLLER
from kcp.machinery import meta
from kcp.machinery.errors import Forbidden
from kcp.machinery.times import format_time
from tests.support.builders import job, metadata
from tests.support.planning import World, events, of_type, writes

Json = dict[str, Any]
KEY, RESOURCE, JOBS = "default/tick", "cronjobs.batch", "jobs.batch"
FIRST = "tick-29453761"  # a minute after the world's start


def cron(**spec: Any) -> Json:
    template = {
        "metadata": {"labels": {"made": "by-cron"}, "annotations": {"note": "x"}},
        "spec": job("x")["spec"],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": metadata("tick", creationTimestamp="2026-01-01T00:00:00Z", uid="cron"),
        "spec": {
            "schedule": "* * * * *",
            "concurrencyPolicy": "Allow",
            "suspend": False,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 1,
            "jobTemplate": template,
            **spec,
        },
    }


def jobs(world: World) -> list[str]:
    return [meta.name(each) for each in world.all(JOBS)]


def status(world: World) -> Json:
    return world.get(RESOURCE, KEY).get("status") or {}


def finish(world: World, name: str, type_: str = "Complete") -> None:
    current = world.get(JOBS, f"default/{name}")
    stamp = format_time(world.now)
    condition = {"type": type_, "status": "True", "lastTransitionTime": stamp}
    done: Json = {"conditions": [condition], "startTime": stamp}
    if type_ == "Complete":
        done["completionTime"] = stamp
    world.put({**current, "status": done})


def minute(world: World, count: int = 1) -> list[fx.Effect]:
    world.sleep(60 * count)
    return world.plan(CONTROLLER, KEY)


def test_nothing_before_its_time() -> None:
    world = World(cron())
    (wait,) = of_type(world.plan(CONTROLLER, KEY), fx.RequeueAfter)
    assert wait.seconds == pytest.approx(60.1)
    assert not jobs(world)


def test_a_job_is_made_on_time_from_the_template() -> None:
    world = World(cron())
    effects = minute(world)
    assert jobs(world) == [FIRST]
    assert events(effects) == [("SuccessfulCreate", f"Created job {FIRST}")]
    made = world.get(JOBS, f"default/{FIRST}")
    assert meta.labels(made) == {"made": "by-cron"}
    assert meta.annotations(made) == {
        "note": "x",
        "batch.kubernetes.io/cronjob-scheduled-timestamp": "2026-01-01T00:01:00Z",
    }
    assert meta.is_controlled_by(made, world.get(RESOURCE, KEY))
    (active,) = status(world)["active"]
    assert (active["name"], active["uid"], active["kind"]) == (FIRST, meta.uid(made), "Job")
    assert status(world)["lastScheduleTime"] == "2026-01-01T00:01:00Z"


def test_a_moment_never_starts_two() -> None:
    world = World(cron())
    minute(world)
    world.sleep(10)
    assert not writes(world.plan(CONTROLLER, KEY))
    assert jobs(world) == [FIRST]


def test_the_stamp_is_in_the_time_zone() -> None:
    world = World(cron(timeZone="Asia/Tokyo"))
    minute(world)
    annotations = meta.annotations(world.get(JOBS, f"default/{FIRST}"))
    assert annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"] == "2026-01-01T09:01:00+09:00"


def test_a_job_that_was_made_but_not_noted_is_taken_up() -> None:
    world = World(cron())
    minute(world)
    current = world.get(RESOURCE, KEY)
    world.put({**current, "status": {}})
    effects = world.plan(CONTROLLER, KEY)
    assert jobs(world) == [FIRST] and status(world)["active"][0]["name"] == FIRST
    assert ("UnexpectedJob", f"Saw a job that the controller did not create or forgot: {FIRST}") in events(
        effects
    )


def test_jobs_that_ended_leave_the_list() -> None:
    world = World(cron())
    minute(world)
    finish(world, FIRST)
    effects = world.plan(CONTROLLER, KEY)
    assert ("SawCompletedJob", f"Saw completed job: {FIRST}, condition: Complete") in events(effects)
    assert "active" not in status(world)
    assert status(world)["lastSuccessfulTime"] == "2026-01-01T00:01:00Z"


def test_jobs_that_vanished_leave_it_too() -> None:
    world = World(cron())
    minute(world)
    del world.objects[JOBS][f"default/{FIRST}"]
    effects = world.plan(CONTROLLER, KEY)
    assert ("MissingJob", f"Active job went missing: {FIRST}") in events(effects)
    assert "active" not in status(world)


def test_forbid_waits_for_the_one_before() -> None:
    world = World(cron(concurrencyPolicy="Forbid"))
    minute(world)
    effects = minute(world)
    assert (
        "JobAlreadyActive",
        "Not starting job because prior execution is running and concurrency policy is Forbid",
    ) in events(effects)
    assert jobs(world) == [FIRST]
    finish(world, FIRST)
    world.plan(CONTROLLER, KEY)
    assert len(jobs(world)) == 2


def test_replace_ends_the_one_before() -> None:
    world = World(cron(concurrencyPolicy="Replace"))
    minute(world)
    effects = minute(world)
    (delete,) = of_type(effects, fx.Delete)
    assert (delete.name, delete.propagation) == (FIRST, "Background") and delete.uid
    assert ("SuccessfulDelete", f"Deleted job {FIRST}") in events(effects)
    assert jobs(world) == ["tick-29453762"]
    assert [entry["name"] for entry in status(world)["active"]] == ["tick-29453762"]


def test_allow_lets_them_run_side_by_side() -> None:
    world = World(cron())
    for _ in range(3):
        minute(world)
    assert len(status(world)["active"]) == 3


def test_suspended_means_no_jobs() -> None:
    world = World(cron(suspend=True))
    effects = minute(world, 5)
    assert not jobs(world) and not events(effects) and not of_type(effects, fx.RequeueAfter)


def test_of_missed_moments_only_the_latest_runs() -> None:
    world = World(cron())
    effects = minute(world, 30)
    assert jobs(world) == ["tick-29453790"]
    assert "TooManyMissedTimes" not in dict(events(effects))


def test_very_many_missed_moments_are_told() -> None:
    world = World(cron())
    effects = minute(world, 200)
    assert dict(events(effects))["TooManyMissedTimes"] == (
        "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
    )
    assert jobs(world) == ["tick-29453960"]


def test_a_deadline_forgives_what_is_long_past() -> None:
    world = World(cron(schedule="0 * * * *", startingDeadlineSeconds=120))
    world.sleep(3600 + 600)
    assert not jobs(world) and not of_type(world.plan(CONTROLLER, KEY), fx.Create)
    world.now -= timedelta(seconds=540)
    world.plan(CONTROLLER, KEY)
    assert len(jobs(world)) == 1


def test_history_is_kept_to_its_limits() -> None:
    world = World(cron(successfulJobsHistoryLimit=2, failedJobsHistoryLimit=1))
    for number in range(6):
        minute(world)
        finish(world, jobs(world)[-1], "Failed" if number % 2 else "Complete")
    world.plan(CONTROLLER, KEY)
    assert [name[-2:] for name in jobs(world)] == ["63", "65", "66"]


def test_a_refused_job_is_told() -> None:
    world = World(cron())
    world.fail[fx.Create] = Forbidden("exceeded quota")
    assert ("FailedCreate", "Error creating job: exceeded quota") in events(minute(world))
    assert "active" not in status(world)


def test_a_schedule_or_zone_that_cannot_be_used_is_told() -> None:
    world = World(cron(schedule="every day"))
    assert events(minute(world)) == [
        (
            "UnparseableSchedule",
            'unparseable schedule: "every day" : expected exactly 5 fields, found 2: [every day]',
        )
    ]
    world = World(cron(timeZone="Nowhere/City"))
    assert events(minute(world)) == [
        ("UnknownTimeZone", 'invalid timeZone: "Nowhere/City": unknown time zone Nowhere/City')
    ]
    world = World(cron(schedule="TZ=Asia/Tokyo * * * * *"))
    assert events(minute(world))[0] == (
        "UnsupportedSchedule",
        'CRON_TZ or TZ used in schedule "TZ=Asia/Tokyo * * * * *" is not officially supported, see '
        "https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
    )
    assert jobs(world) == [FIRST]


def test_a_cron_job_that_is_deleted_starts_nothing() -> None:
    doomed = cron()
    doomed["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world = World(doomed)
    minute(world)
    assert not jobs(world)
