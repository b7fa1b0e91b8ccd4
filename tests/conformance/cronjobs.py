"""What conformance asks of CronJobs."""

from __future__ import annotations

from typing import Any

from tests.conformance.door import Door
from tests.conformance.objects import BATCH, condition, job
from tests.conformance.scoreboard import on_nodes

Json = dict[str, Any]
PREFIX = "[sig-apps] CronJob "
EVERY_MINUTE = "*/1 * * * ?"


def cron_job(policy: str, **more: Any) -> Json:
    inner = {"spec": job("x", "sleep 300", restart="OnFailure")["spec"]}
    spec = {"schedule": EVERY_MINUTE, "concurrencyPolicy": policy, "jobTemplate": inner, **more}
    return {"metadata": {"name": "cron"}, "spec": spec}


async def rooms(door: Door, name: str) -> tuple[str, str]:
    """Paths of the Jobs and CronJobs of a fresh namespace."""
    await door.namespace(name)
    return f"{BATCH.format(name)}/jobs", f"{BATCH.format(name)}/cronjobs"


def active(count: int) -> Any:
    return lambda found: len(found["status"].get("active") or ()) == count


def running(found: Json) -> list[str]:
    return [
        each["metadata"]["name"]
        for each in found["items"]
        if not condition(each, "Complete") and not each["metadata"].get("deletionTimestamp")
    ]


@on_nodes(PREFIX + "should schedule multiple jobs concurrently")
async def concurrent(door: Door) -> None:
    jobs, crons = await rooms(door, "cron-allow")
    await door.create(crons, cron_job("Allow"))
    await door.eventually(f"{crons}/cron", active(2))
    found = await door.get(jobs)
    assert len(running(found)) >= 2
    await door.delete(f"{crons}/cron", {"propagationPolicy": "Background"})
    await door.eventually(jobs, lambda left: not left["items"])


@on_nodes(PREFIX + "should not schedule jobs when suspended [Slow]")
async def suspended(door: Door) -> None:
    jobs, crons = await rooms(door, "cron-suspended")
    await door.create(crons, cron_job("Allow", suspend=True))
    await door.always(jobs, lambda found: not found["items"], 300)
    assert not (await door.get(f"{crons}/cron"))["status"].get("active")
    await door.delete(f"{crons}/cron")


@on_nodes(PREFIX + "should not schedule new jobs when ForbidConcurrent [Slow]")
async def forbidden(door: Door) -> None:
    jobs, crons = await rooms(door, "cron-forbid")
    await door.create(crons, cron_job("Forbid"))
    found = await door.eventually(f"{crons}/cron", active(1))
    (only,) = (each["name"] for each in found["status"]["active"])
    await door.always(jobs, lambda found: running(found) == [only], 240)
    events = await door.items("/api/v1/namespaces/cron-forbid/events")
    assert any(event["reason"] == "JobAlreadyActive" for event in events)


@on_nodes(PREFIX + "should replace jobs when ReplaceConcurrent")
async def replaced(door: Door) -> None:
    jobs, crons = await rooms(door, "cron-replace")
    await door.create(crons, cron_job("Replace"))
    found = await door.eventually(f"{crons}/cron", active(1))
    first = found["status"]["active"][0]["name"]
    second = await door.eventually(
        f"{crons}/cron", lambda each: active(1)(each) and each["status"]["active"][0]["name"] != first
    )
    name = second["status"]["active"][0]["name"]
    await door.eventually(jobs, lambda found: running(found) == [name])
    await door.gone(f"{jobs}/{first}")
