"""CronJob: makes a Job at each moment of its schedule, and clears away old ones.

Source: k8s v1.36 pkg/controller/cronjob/cronjob_controllerv2.go.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import attrs

from kcp.apis.batch.schedule import time_zone_faults
from kcp.controllers import effects as fx
from kcp.controllers.cron_schedule import Schedule, ScheduleError, most_recent, parse, until_next_s
from kcp.controllers.sources import Controller, Owned, Self
from kcp.machinery import meta
from kcp.machinery.errors import AlreadyExists, go_quote
from kcp.machinery.times import format_time, parse_time

Json = dict[str, Any]
Steps = Generator[fx.Effect, fx.Outcome, None]
RESOURCE, JOBS = "cronjobs.batch", "jobs.batch"
SCHEDULED_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"


@attrs.define
class Run:
    """One plan's working copy; owned by the plan. `status` is what will be written at the end."""

    cron: Json
    jobs: Sequence[Json]
    now: datetime
    status: Json = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.status = dict(self.cron.get("status") or {})

    @property
    def spec(self) -> Json:
        return self.cron["spec"]  # type: ignore[no-any-return]

    @property
    def active(self) -> list[Json]:
        return self.status.get("active") or []

    def forget(self, uid: str) -> None:
        kept = [reference for reference in self.active if reference.get("uid") != uid]
        self.status = {k: v for k, v in self.status.items() if k != "active"}
        if kept:
            self.status["active"] = kept

    def earliest(self) -> datetime:
        last = self.status.get("lastScheduleTime")
        return parse_time(last or self.cron["metadata"]["creationTimestamp"])

    def event(self, type_: Any, reason: str, message: str) -> fx.Event:
        return fx.Event(self.cron, type_, reason, message)


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    cron = view.cronjobs.get(key)
    if cron is None:
        return
    run = Run(cron, view.jobs.index("owner", meta.uid(cron)), env.now)
    yield from _note_jobs(run)
    yield from _drop_missing(run)
    if not meta.is_deleting(cron):
        yield from _schedule(run)
    yield from _clean_up(run)
    yield fx.Status(RESOURCE, cron, run.status)


def _note_jobs(run: Run) -> Steps:
    """Jobs that ended leave the list of active ones; the latest success is remembered."""
    listed = {reference.get("uid") for reference in run.active}
    for job in run.jobs:
        ended = finished_as(job)
        if not ended and meta.uid(job) not in listed:
            text = f"Saw a job that the controller did not create or forgot: {meta.name(job)}"
            yield run.event("Warning", "UnexpectedJob", text)
        elif ended and meta.uid(job) in listed:
            run.forget(meta.uid(job))
            text = f"Saw completed job: {meta.name(job)}, condition: {ended}"
            yield run.event("Normal", "SawCompletedJob", text)
        completed = (job.get("status") or {}).get("completionTime")
        if ended == "Complete" and completed and completed > run.status.get("lastSuccessfulTime", ""):
            run.status = {**run.status, "lastSuccessfulTime": completed}


def _drop_missing(run: Run) -> Steps:
    """Active Jobs that are no more; the cache alone is not believed."""
    known = {meta.uid(job) for job in run.jobs}
    for reference in run.active:
        if reference.get("uid") in known:
            continue
        outcome = yield fx.Live(JOBS, meta.namespace(run.cron), reference["name"])
        if outcome.ok and outcome.object is None:
            yield run.event("Normal", "MissingJob", f"Active job went missing: {reference['name']}")
            run.forget(reference.get("uid", ""))


def finished_as(job: Json) -> str:
    """`Complete`, `Failed`, or nothing."""
    return next((type_ for type_ in ("Complete", "Failed") if meta.condition_is(job, type_)), "")


def _schedule(run: Run) -> Steps:
    """Start a Job if one is due, and come back for the next."""
    zone = run.spec.get("timeZone")
    if zone is not None and time_zone_faults(zone):
        text = f"invalid timeZone: {go_quote(zone)}: unknown time zone {zone}"
        yield run.event("Warning", "UnknownTimeZone", text)
        return
    if run.spec.get("suspend"):
        return
    written = run.spec["schedule"]
    if "TZ" in written:
        text = (
            f"CRON_TZ or TZ used in schedule {go_quote(written)} is not officially supported, see "
            "https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
        )
        yield run.event("Warning", "UnsupportedSchedule", text)
    try:
        schedule = parse(written, zone or "")
    except ScheduleError as fault:
        text = f"unparseable schedule: {go_quote(written)} : {fault}"
        yield run.event("Warning", "UnparseableSchedule", text)
        return
    try:
        yield from _start_due(run, schedule)
    except ScheduleError as fault:
        yield run.event("Warning", "InvalidSchedule", f"invalid schedule: {written} : {fault}")
        return
    wait_s = until_next_s(schedule, run.earliest(), run.now)
    if wait_s is not None:
        yield fx.RequeueAfter(wait_s)


def _start_due(run: Run, schedule: Schedule) -> Steps:
    deadline_s = run.spec.get("startingDeadlineSeconds")
    earliest = run.earliest()
    if deadline_s is not None:
        earliest = max(earliest, run.now - timedelta(seconds=deadline_s))
    missed = most_recent(schedule, earliest, run.now)
    if missed.latest is None:
        return
    if missed.count > 100:
        text = (
            "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
        )
        yield run.event("Warning", "TooManyMissedTimes", text)
    due = missed.latest
    if deadline_s is not None and due + timedelta(seconds=deadline_s) < run.now:
        stamp = due.strftime("%a, %d %b %Y %H:%M:%S +0000")
        yield run.event("Warning", "MissSchedule", f"Missed scheduled time to start a job: {stamp}")
        return
    name = job_name(run.cron, due)
    last = run.status.get("lastScheduleTime")
    if any(r["name"] == name for r in run.active) or (last and parse_time(last) == due):
        return
    if (yield from _make_room(run)):
        yield from _start(run, due)


def _make_room(run: Run) -> Generator[fx.Effect, fx.Outcome, bool]:
    """What the concurrency policy says about Jobs that still run; whether a new one may start."""
    policy = run.spec.get("concurrencyPolicy")
    if policy == "Forbid" and run.active:
        text = "Not starting job because prior execution is running and concurrency policy is Forbid"
        yield run.event("Normal", "JobAlreadyActive", text)
        return False
    if policy == "Replace":
        for reference in run.active:
            if not (yield from _delete(run, reference["name"], reference.get("uid", ""))):
                return False
    return True


def _start(run: Run, due: datetime) -> Steps:
    job = new_job(run.cron, due)
    outcome = yield fx.Create(JOBS, meta.namespace(run.cron), job)
    made = outcome.object
    if isinstance(outcome.error, AlreadyExists):
        made = (yield fx.Live(JOBS, meta.namespace(run.cron), meta.name(job))).object
        if made is None or not meta.is_controlled_by(made, run.cron):
            return
        if any(reference.get("uid") == meta.uid(made) for reference in run.active):
            return
    elif outcome.error is not None:
        if not outcome.error.has_cause("NamespaceTerminating"):
            text = f"Error creating job: {outcome.error.message}"
            yield run.event("Warning", "FailedCreate", text)
        return
    else:
        yield run.event("Normal", "SuccessfulCreate", f"Created job {meta.name(job)}")
    assert made is not None
    reference = {
        "kind": "Job",
        "namespace": meta.namespace(made),
        "name": meta.name(made),
        "uid": meta.uid(made),
        "apiVersion": "batch/v1",
        "resourceVersion": meta.resource_version(made),
    }
    run.status = {
        **run.status,
        "active": [*run.active, reference],
        "lastScheduleTime": format_time(due),
    }


def job_name(cron: Json, due: datetime) -> str:
    """The moment in minutes is part of the name: no moment can start two Jobs."""
    return f"{meta.name(cron)}-{int(due.timestamp()) // 60}"


def new_job(cron: Json, due: datetime) -> Json:
    template = cron["spec"]["jobTemplate"]
    given = template.get("metadata") or {}
    metadata: Json = {
        "name": job_name(cron, due),
        "namespace": meta.namespace(cron),
        "annotations": {**(given.get("annotations") or {}), SCHEDULED_AT: _local_stamp(cron, due)},
        "ownerReferences": [meta.owner_reference(cron)],
    }
    if given.get("labels"):
        metadata["labels"] = given["labels"]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]}


def _local_stamp(cron: Json, due: datetime) -> str:
    """RFC 3339 in the CronJob's time zone."""
    zone = cron["spec"].get("timeZone")
    stamp = due.astimezone(ZoneInfo(zone)).isoformat(timespec="seconds") if zone else format_time(due)
    return stamp.removesuffix("+00:00") + "Z" if stamp.endswith("+00:00") else stamp


def _clean_up(run: Run) -> Steps:
    """Keep as many successful and failed Jobs as the limits say; the oldest go."""
    for ended, limit in (
        ("Complete", run.spec.get("successfulJobsHistoryLimit")),
        ("Failed", run.spec.get("failedJobsHistoryLimit")),
    ):
        if limit is None:
            continue
        jobs = [job for job in run.jobs if finished_as(job) == ended and not meta.is_deleting(job)]
        for job in sorted(jobs, key=_by_start)[: max(0, len(jobs) - limit)]:
            yield from _delete(run, meta.name(job), meta.uid(job))


def _by_start(job: Json) -> tuple[bool, str, str]:
    started = (job.get("status") or {}).get("startTime") or ""
    return not started, started, meta.name(job)


def _delete(run: Run, name: str, uid: str) -> Generator[fx.Effect, fx.Outcome, bool]:
    namespace = meta.namespace(run.cron)
    outcome = yield fx.Delete(JOBS, namespace, name, uid=uid, propagation="Background")
    if outcome.error is not None:
        yield run.event("Warning", "FailedDelete", f"Deleted job: {outcome.error.message}")
        return False
    run.forget(uid)
    yield run.event("Normal", "SuccessfulDelete", f"Deleted job {name}")
    return True


CONTROLLER = Controller(
    name="cronjob-controller",
    identity="cronjob-controller",
    plan=plan,
    watches={"cronjobs": Self(RESOURCE), "jobs": Owned(JOBS, "CronJob", "batch")},
)
