"""ResourceQuota: `status.hard` follows the spec, `status.used` is summed up where admission does not know it yet.

Admission moves `used` in the transaction of each write, so the sums never drift in normal running. What is left here:
new quotas and changed limits, imported data, and pods that stop counting with time because they should be gone.
A sum is taken live and written only if the quota did not change meanwhile, so a lagging cache cannot undo admission.
Source: k8s v1.36 pkg/controller/resourcequota/resource_quota_controller.go.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from typing import Any

from kcp.apis.semantics import pods as pod_facts
from kcp.apis.semantics.quota import UNCOUNTED, Usage, resource_of, stuck_at, total_usage
from kcp.base.clock import microseconds
from kcp.controllers import effects as fx
from kcp.controllers.sources import Controller, Fan
from kcp.machinery import meta
from kcp.machinery.quantity import parse

Json = dict[str, Any]
FULL_RESYNC_S = 300.0
PODS_SPACING_S = 5.0
"""At most one recount of a namespace's pods in this time."""


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    """The memo holds when everything, and when the pods, were last counted."""
    quota = view.quotas.get(key)
    if quota is None:
        if env.memo is not None:
            yield fx.Memo(None)
        return
    now_us = microseconds(env.now)
    memo = {
        what: us for what, us in (env.memo or {}).items() if us <= now_us
    }  # the clock may have been set back
    full_wait = memo.get("full_us", 0) / 1e6 + FULL_RESYNC_S - now_us / 1e6
    pods_wait = memo.get("pods_us", 0) / 1e6 + PODS_SPACING_S - now_us / 1e6
    served = {row["resource"] for row in env.settings["resources"] if row["namespaced"]} - UNCOUNTED
    resources = counted_resources(quota, served)
    if full_wait <= 0 or not is_settled(quota, resources):
        ok = yield from _recount(quota, resources, env.now)
        if ok:
            yield fx.Memo({"full_us": now_us, "pods_us": now_us})
            yield fx.RequeueAfter(_next_check(quota, resources, view, env.now, FULL_RESYNC_S))
        return
    if "pods" in resources:
        if pods_wait > 0:
            yield fx.RequeueAfter(pods_wait)
            return
        cached = total_usage(quota, "pods", view.pods.list(meta.namespace(quota)), env.now)
        if _differs(quota, cached):
            yield from _recount(quota, ["pods"], env.now)
        yield fx.Memo({**memo, "pods_us": now_us})
    yield fx.RequeueAfter(_next_check(quota, resources, view, env.now, full_wait))


def counted_resources(quota: Json, served: set[str]) -> list[str]:
    """The resources that the quota's limits are about, as far as they are served."""
    hard = quota["spec"].get("hard") or {}
    found = {resource for name in hard if (resource := resource_of(name)) is not None}
    return sorted(found & served)


def is_settled(quota: Json, resources: Sequence[str]) -> bool:
    """The status has the limits of the spec, and a number for each that something counts for."""
    hard, status = quota["spec"].get("hard") or {}, quota.get("status") or {}
    used = status.get("used") or {}
    return hard == (status.get("hard") or {}) and all(
        name in used for name in hard if resource_of(name) in resources
    )


def _recount(quota: Json, resources: Sequence[str], now: datetime) -> Generator[fx.Effect, fx.Outcome, bool]:
    """Sum up past the cache and write what differs. A resource that cannot be listed keeps its old numbers."""
    fresh: Usage = {}
    complete = True
    for resource in resources:
        outcome = yield fx.LiveList(resource, meta.namespace(quota))
        complete = complete and outcome.ok
        if outcome.ok:
            fresh.update(total_usage(quota, resource, outcome.items, now))
    hard = quota["spec"].get("hard") or {}
    status = quota.get("status") or {}
    if _differs(quota, fresh) or (status.get("hard") or {}) != hard:
        old = {name: text for name, text in (status.get("used") or {}).items() if name in hard}
        used = {**old, **{name: str(amount) for name, amount in fresh.items()}}
        written = yield fx.Status("resourcequotas", quota, {**status, "hard": hard, "used": used})
        if not written.ok:
            return False
    return complete


def _differs(quota: Json, usage: Usage) -> bool:
    used = (quota.get("status") or {}).get("used") or {}
    return any(name not in used or parse(used[name]) != amount for name, amount in usage.items())


def _next_check(
    quota: Json, resources: Sequence[str], view: fx.View, now: datetime, at_most_s: float
) -> float:
    """Seconds until the first deleting pod stops counting, or the next full count is due."""
    if "pods" not in resources:
        return at_most_s
    waits = [
        (limit - now).total_seconds() + 0.001
        for pod in view.pods.index("deleting", meta.namespace(quota))
        if not pod_facts.is_terminal(pod) and (limit := stuck_at(pod)) is not None and limit >= now
    ]
    return min([at_most_s, *waits])


def changed_limits(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    if new is None or (old is not None and old["spec"].get("hard") == new["spec"].get("hard")):
        return [meta.key_of(old)] if new is None and old is not None else []
    return [meta.key_of(new)]


def going_pod(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """A pod that begins to go will stop counting at some time, even if it never goes."""
    if new is None or not meta.is_deleting(new) or (old is not None and meta.is_deleting(old)):
        return []
    return [meta.key_of(quota) for quota in readers["quotas"].list(meta.namespace(new))]


def by_deleting(pod: Json) -> list[str]:
    return [meta.namespace(pod)] if meta.is_deleting(pod) else []


CONTROLLER = Controller(
    name="resourcequota-controller",
    identity="resourcequota-controller",
    plan=plan,
    watches={
        "quotas": Fan("resourcequotas", keys=changed_limits),
        "pods": Fan("pods", keys=going_pod, indexes={"deleting": by_deleting}),
    },
    settings={"resources": ()},
)
