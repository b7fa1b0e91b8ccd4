"""The Job controller: what it watches and the order of one plan.

Keys are Jobs, and `pod:<namespace>/<name>` for pods that lost their Job while they still carry its finalizer.
Source: k8s v1.36 pkg/controller/job/job_controller.go.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.job.accounting import RESOURCE, account
from kcp.controllers.job.backoff import Record
from kcp.controllers.job.manage import delete_active, manage
from kcp.controllers.job.state import FINALIZER, Sync, is_finished, is_tracked
from kcp.controllers.job.verdict import completed, deadline_left_s, judge
from kcp.controllers.replicas import claim, drop_finalizer
from kcp.controllers.sources import Controller, Owned, Self
from kcp.machinery import meta
from kcp.machinery.labels import from_label_selector
from kcp.machinery.times import format_time

Json = dict[str, Any]
Steps = Generator[fx.Effect, fx.Outcome, None]
POD_KEY = "pod:"
OUR_NAME = "kubernetes.io/job-controller"
MODES = ("NonIndexed", "Indexed")


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    if key.startswith(POD_KEY):
        yield from _release_orphan(key.removeprefix(POD_KEY), view)
        return
    job = view.jobs.get(key)
    yield from _release_strays(key, job, view)
    if job is None or is_finished(job):
        if env.memo is not None:
            yield fx.Memo(None)
        return
    if not is_ours(job):
        return
    if job["spec"].get("completionMode", "NonIndexed") not in MODES:
        text = "Skipped Job sync because completion mode is unknown"
        yield fx.Event(job, "Warning", "UnknownCompletionMode", text)
        return
    yield from _sync(job, view, env)


def _sync(job: Json, view: fx.View, env: fx.Env) -> Steps:
    owned = view.pods.index("owner", meta.uid(job))
    orphans = view.pods.index("owner", f"orphan:{meta.namespace(job)}")
    selector = from_label_selector(job["spec"].get("selector"))
    pods = yield from claim(job, "pods", RESOURCE, owned, orphans, selector, finalizer=FINALIZER)
    sync = Sync(job, pods, env.now)
    if not sync.status.get("startTime") and not sync.suspended:
        sync.status = {**sync.status, "startTime": format_time(env.now)}
    record = Record.read(env.memo)
    if not sync.per_index:
        record = record.after(sync.newly_succeeded(), sync.newly_failed())
    active = yield from _decide(sync, record)
    counts = {"active": active, "ready": max(sync.ready, 0), "terminating": sync.terminating}
    sync.status = {**sync.status, **counts}
    if not active:
        del sync.status["active"]
    if (yield from account(sync)) and record.memo() != env.memo:
        yield fx.Memo(record.memo())


def _decide(sync: Sync, record: Record) -> Generator[fx.Effect, fx.Outcome, int]:
    """End the Job or go on with it; how many pods are active afterwards."""
    sync.verdict = judge(sync)
    if sync.verdict is not None:
        return (yield from delete_active(sync))
    left_s = deadline_left_s(sync)
    if left_s is not None:
        yield fx.RequeueAfter(left_s)
    managed = not meta.is_deleting(sync.job)
    active = (yield from manage(sync, record)) if managed else len(sync.active)
    sync.verdict = completed(sync, active)
    if sync.verdict is None and managed:
        yield from _note_suspension(sync)
    return active


def _note_suspension(sync: Sync) -> Steps:
    """Suspending stops the clock of activeDeadlineSeconds; resuming starts it anew."""
    if sync.suspended:
        condition = sync.new_condition("Suspended", "True", "JobSuspended", "Job suspended")
        if sync.set_condition(condition):
            sync.status = {k: v for k, v in sync.status.items() if k != "startTime"}
            yield fx.Event(sync.job, "Normal", "Suspended", "Job suspended")
        return
    condition = sync.new_condition("Suspended", "False", "JobResumed", "Job resumed")
    if sync.set_condition(condition):
        sync.status = {**sync.status, "startTime": format_time(sync.now)}
        yield fx.Event(sync.job, "Normal", "Resumed", "Job resumed")


def is_ours(job: Json) -> bool:
    """Jobs of another manager are left alone."""
    return job["spec"].get("managedBy") in (None, OUR_NAME)


def _release_strays(key: str, job: Json | None, view: fx.View) -> Steps:
    """Pods of a Job that is over, gone, or was replaced by another of its name need not be counted any more."""
    if job is not None and not is_ours(job):
        return
    alive = meta.uid(job) if job is not None and not is_finished(job) else ""
    strays = [
        pod
        for pod in view.pods.index("job", key)
        if is_tracked(pod) and (meta.controller_of(pod) or {}).get("uid") != alive
    ]
    if strays:
        yield fx.All([drop_finalizer("pods", pod, FINALIZER) for pod in strays])


def _release_orphan(key: str, view: fx.View) -> Steps:
    pod = view.pods.get(key)
    if pod is None or not is_tracked(pod) or meta.controller_of(pod) is not None:
        return
    if any(_would_adopt(job, pod) for job in view.jobs.list(meta.namespace(pod))):
        return
    yield drop_finalizer("pods", pod, FINALIZER)


def _would_adopt(job: Json, pod: Json) -> bool:
    if is_finished(job) or meta.is_deleting(job) or meta.is_deleting(pod):
        return False
    return from_label_selector(job["spec"].get("selector")).matches(meta.labels(pod))


def orphaned(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """Jobs that might adopt an orphan; the orphan itself when it carries our finalizer."""
    pod = new or old
    if pod is None or meta.controller_of(pod) is not None:
        return []
    keys = [
        meta.key_of(job)
        for job in readers["jobs"].list(meta.namespace(pod))
        if from_label_selector(job["spec"].get("selector")).matches(meta.labels(pod))
    ]
    return [*keys, POD_KEY + meta.key_of(pod)] if new is not None and is_tracked(new) else keys


def job_of(pod: Json) -> list[str]:
    """Index `job`: the key of the Job that controls the pod, whatever its uid."""
    controller = meta.controller_of(pod)
    if controller is None or controller["kind"] != "Job":
        return []
    return [f"{meta.namespace(pod)}/{controller['name']}"]


CONTROLLER = Controller(
    name="job-controller",
    identity="job-controller",
    plan=plan,
    watches={
        "jobs": Self(RESOURCE),
        "pods": Owned("pods", "Job", "batch", orphans=orphaned, indexes={"job": job_of}),
    },
)
