"""TTL after finished: deletes Jobs some time after they ended.

The precondition on the revision stands for the fresh read that Kubernetes does before it deletes.
Source: k8s v1.36 pkg/controller/ttlafterfinished.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.sources import Controller, Self
from kcp.machinery import meta
from kcp.machinery.times import parse_time

Json = dict[str, Any]


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    job = view.jobs.get(key)
    ttl_s = job["spec"].get("ttlSecondsAfterFinished") if job is not None else None
    if job is None or ttl_s is None or meta.is_deleting(job):
        return
    ended = finished_at(job)
    if ended is None:
        return
    left_s = (ended + timedelta(seconds=ttl_s) - env.now).total_seconds()
    if left_s > 0:
        yield fx.RequeueAfter(left_s)
        return
    yield fx.Delete(
        "jobs.batch",
        meta.namespace(job),
        meta.name(job),
        uid=meta.uid(job),
        rv=meta.resource_version(job),
        propagation="Foreground",
    )


def finished_at(job: Json) -> datetime | None:
    """When the Job became Complete or Failed; None while it runs."""
    for type_ in ("Complete", "Failed"):
        condition = meta.condition(job, type_)
        if condition is not None and condition["status"] == "True" and condition.get("lastTransitionTime"):
            return parse_time(condition["lastTransitionTime"])
    return None


CONTROLLER = Controller(
    name="ttl-after-finished-controller",
    identity="ttl-after-finished-controller",
    plan=plan,
    watches={"jobs": Self("jobs.batch")},
)
