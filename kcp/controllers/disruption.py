"""Disruption: how many pods of a PodDisruptionBudget may be evicted now.

Keys are budgets (`namespace/name`) and, for conditions that an eviction left on a pod which then was not deleted, pods
(`pod:namespace/name`). The eviction itself, and taking a disruption from the budget, is the API server's.
Source: k8s v1.36 pkg/controller/disruption/disruption.go.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from kcp.apis.semantics import pods as pod_facts
from kcp.base.values import frozen
from kcp.controllers import effects as fx
from kcp.controllers.sources import Controller, Fan
from kcp.machinery import meta
from kcp.machinery.errors import Conflict, NotFound
from kcp.machinery.gvk import GroupVersion, group_resource
from kcp.machinery.intstr import scaled_value
from kcp.machinery.labels import SelectorError, from_label_selector
from kcp.machinery.times import format_time, parse_time

Json = dict[str, Any]
Steps = Generator[fx.Effect, fx.Outcome, None]
BUDGETS = "poddisruptionbudgets.policy"
POD_PREFIX = "pod:"
DELETION_TIMEOUT = timedelta(minutes=2)
"""How long an evicted pod may take until its deletion is seen; after that it counts again."""
STALE_CONDITION = timedelta(minutes=2)
UNMANAGED = (
    "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of "
    "the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please "
    'set ".spec.minAvailable" field of the PDB to an integer value.'
)
BY_KUBELET = "TerminationByKubelet"
"""A kubelet may take long to end a pod that it marked: that mark never gets stale."""
NO_SUCH_ENDPOINT = "could not find the requested resource"

SCALED: Mapping[tuple[str, str], str] = {
    ("", "ReplicationController"): "replicationcontrollers",
    ("apps", "ReplicaSet"): "replicasets",
    ("apps", "StatefulSet"): "statefulsets",
}
"""Controllers of pods whose scale is read from the cache: (group, kind) -> name in the view."""


class CannotCount(Exception):
    """Raised when the number of expected pods cannot be told; the text goes into the condition and the Event."""


@frozen
class Expected:
    """`count` pods should exist, `healthy` of them at least; `unmanaged` pods have no controller to ask."""

    count: int
    healthy: int
    unmanaged: tuple[str, ...] = ()


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    if key.startswith(POD_PREFIX):
        yield from _clear_stale_condition(view.pods.get(key.removeprefix(POD_PREFIX)), env.now)
        return
    budget = view.budgets.get(key)
    if budget is None:
        return
    selected = pods_of(budget, view)
    if not selected:
        yield fx.Event(budget, "Normal", "NoPods", "No matching pods found")
    try:
        expected = yield from _expected(budget, selected, view, env.settings["resources"])
    except CannotCount as why:
        text = f"Failed to calculate the number of expected pods: {why}"
        yield fx.Event(budget, "Warning", "CalculateExpectedPodCountFailed", text)
        yield from _fail_safe(budget, str(why), env.now)
        return
    if expected.unmanaged:
        text = UNMANAGED.format(selector_text(budget["spec"].get("selector")))
        yield fx.Event(budget, "Warning", "UnmanagedPods", text)
    yield from _update(budget, selected, expected, view, env.now)


def pods_of(budget: Json, view: fx.View) -> list[Json]:
    """The pods that the budget selects. A budget without selector selects none, an empty selector all."""
    selector = from_label_selector(budget["spec"].get("selector"))
    return [pod for pod in view.pods.list(meta.namespace(budget)) if selector.matches(meta.labels(pod))]


def _expected(
    budget: Json, selected: Sequence[Json], view: fx.View, resources: Sequence[Json]
) -> Generator[fx.Effect, fx.Outcome, Expected]:
    spec = budget["spec"]
    bound, reserve = spec.get("minAvailable"), spec.get("maxUnavailable")
    if reserve is None and isinstance(bound, int):
        return Expected(len(selected), bound)
    if reserve is None and bound is None:
        return Expected(0, 0)
    count, unmanaged = yield from _expected_scale(selected, view, resources)
    try:
        if reserve is not None:
            return Expected(count, max(0, count - scaled_value(reserve, count, True)), unmanaged)
        assert bound is not None
        return Expected(count, scaled_value(bound, count, True), unmanaged)
    except ValueError as error:
        raise CannotCount(str(error)) from error


def _expected_scale(
    selected: Sequence[Json], view: fx.View, resources: Sequence[Json]
) -> Generator[fx.Effect, fx.Outcome, tuple[int, tuple[str, ...]]]:
    """(sum of the scales of the pods' controllers, each counted once; names of pods without controller)."""
    scales: dict[str, int] = {}
    seen: dict[str, str] = {}
    unmanaged: list[str] = []
    for pod in selected:
        ref = meta.controller_of(pod)
        if ref is None:
            unmanaged.append(meta.name(pod))
            continue
        if ref["uid"] in seen:
            continue
        found = yield from _scale_of(ref, meta.namespace(pod), view, resources)
        if found is None:
            raise CannotCount(f'found no controllers for pod "{meta.name(pod)}"')
        seen[ref["uid"]], (uid, scale) = found[0], found
        scales[uid] = scale
    return sum(scales.values()), tuple(unmanaged)


def _scale_of(
    ref: Json, namespace: str, view: fx.View, resources: Sequence[Json]
) -> Generator[fx.Effect, fx.Outcome, tuple[str, int] | None]:
    """(uid, replicas) of what decides how many pods there are; a ReplicaSet's Deployment speaks for it."""
    group = GroupVersion.parse(ref["apiVersion"]).group
    reader = SCALED.get((group, ref["kind"]))
    if reader is None:
        return (yield from _scale_subresource(ref, group, namespace, resources))
    owner = getattr(view, reader).get(f"{namespace}/{ref['name']}")
    if owner is None or meta.uid(owner) != ref["uid"]:
        return None
    above = meta.controller_of(owner) if ref["kind"] == "ReplicaSet" else None
    if above is not None and above["kind"] == "Deployment":
        owner = view.deployments.get(f"{namespace}/{above['name']}")
        if owner is None or meta.uid(owner) != above["uid"]:
            return None
    return meta.uid(owner), owner["spec"].get("replicas", 1)


def _scale_subresource(
    ref: Json, group: str, namespace: str, resources: Sequence[Json]
) -> Generator[fx.Effect, fx.Outcome, tuple[str, int] | None]:
    row = next((r for r in resources if (r["group"], r["kind"]) == (group, ref["kind"])), None)
    if row is None:
        raise CannotCount(f'no matches for kind "{ref["kind"]}" in group "{group}"')
    root = f"/apis/{group}/{row['version']}" if group else f"/api/{row['version']}"
    path = f"{root}/namespaces/{namespace}/{row['plural']}/{ref['name']}/scale"
    outcome = yield fx.Request("GET", path)
    if outcome.error is not None:
        if not isinstance(outcome.error, NotFound):
            raise CannotCount(outcome.error.message)
        if NO_SUCH_ENDPOINT in outcome.error.message:
            resource = group_resource(group, row["plural"])
            raise CannotCount(f"{resource} does not implement the scale subresource")
        return None
    scale = outcome.object or {}
    if meta.uid(scale) != ref["uid"]:
        return None
    return ref["uid"], (scale.get("spec") or {}).get("replicas", 0)


def _update(
    budget: Json, selected: Sequence[Json], expected: Expected, view: fx.View, now: datetime
) -> Steps:
    disrupted, recheck = yield from _still_disrupted(budget, selected, now)
    healthy = sum(_counts_as_healthy(pod, disrupted) for pod in selected)
    allowed = healthy - expected.healthy if expected.count > 0 else 0
    status = {
        **(budget.get("status") or {}),
        "observedGeneration": meta.generation(budget),
        "disruptedPods": disrupted,
        "disruptionsAllowed": max(0, allowed),
        "currentHealthy": healthy,
        "desiredHealthy": expected.healthy,
        "expectedPods": expected.count,
    }
    if not disrupted:
        del status["disruptedPods"]
    condition = {
        "type": "DisruptionAllowed",
        "status": "True" if allowed > 0 else "False",
        "reason": "SufficientPods" if allowed > 0 else "InsufficientPods",
        "message": "",
        "observedGeneration": meta.generation(budget),
    }
    status["conditions"] = meta.set_condition(status.get("conditions"), condition, now)
    if status != budget.get("status"):
        yield from _warn_of_several(budget, selected, view)
        written = yield fx.Status(BUDGETS, budget, status)
        if written.error is not None:
            if not isinstance(written.error, (Conflict, NotFound)):
                yield from _fail_safe(budget, written.error.message, now)
            return
    if recheck is not None:
        yield fx.RequeueAfter(recheck)


def _still_disrupted(
    budget: Json, selected: Sequence[Json], now: datetime
) -> Generator[fx.Effect, fx.Outcome, tuple[Json, float | None]]:
    """(evicted pods whose deletion is still awaited, seconds until the first of them counts again)."""
    noted = (budget.get("status") or {}).get("disruptedPods") or {}
    awaited: Json = {}
    waits: list[float] = []
    for pod in selected if noted else ():
        since = noted.get(meta.name(pod))
        if since is None or meta.is_deleting(pod):
            continue
        left_s = (parse_time(since) + DELETION_TIMEOUT - now).total_seconds()
        if left_s < 0:
            text = f"Pod was expected by PDB {meta.key_of(budget)} to be deleted but it wasn't"
            yield fx.Event(pod, "Warning", "NotDeleted", text)
            continue
        awaited[meta.name(pod)] = since
        waits.append(left_s)
    return awaited, min(waits) + 0.001 if waits else None


def _counts_as_healthy(pod: Json, disrupted: Mapping[str, str]) -> bool:
    return pod_facts.is_ready(pod) and not meta.is_deleting(pod) and meta.name(pod) not in disrupted


def _warn_of_several(budget: Json, selected: Sequence[Json], view: fx.View) -> Steps:
    """Eviction refuses pods of several budgets: whoever asks why finds it on the pod."""
    others = [b for b in view.budgets.list(meta.namespace(budget)) if meta.name(b) != meta.name(budget)]
    if not others or any(meta.name(b) < meta.name(budget) for b in others if _overlaps(b, selected)):
        return
    for pod in selected:
        if any(_overlaps(other, [pod]) for other in others):
            text = (
                f'Pod "{meta.namespace(pod)}"/"{meta.name(pod)}" matches multiple PodDisruptionBudgets.  '
                f'Chose "{meta.name(budget)}" arbitrarily.'
            )
            yield fx.Event(pod, "Warning", "MultiplePodDisruptionBudgets", text)


def _overlaps(budget: Json, selected: Sequence[Json]) -> bool:
    selector = from_label_selector(budget["spec"].get("selector"))
    return any(selector.matches(meta.labels(pod)) for pod in selected)


def _fail_safe(budget: Json, why: str, now: datetime) -> Steps:
    """Nothing may be evicted while nobody can say what that would leave."""
    status = {"disruptionsAllowed": 0, **(budget.get("status") or {})}
    condition = {
        "type": "DisruptionAllowed",
        "status": "False",
        "reason": "SyncFailed",
        "message": why,
        "observedGeneration": status.get("observedGeneration", 0),
    }
    status["disruptionsAllowed"] = 0
    status["conditions"] = meta.set_condition(status.get("conditions"), condition, now)
    for count in ("currentHealthy", "desiredHealthy", "expectedPods"):
        status.setdefault(count, 0)
    yield fx.Status(BUDGETS, budget, status)


def selector_text(selector: Json | None) -> str:
    """A LabelSelector as Go prints it."""
    if selector is None:
        return "nil"
    pairs = "".join(f"{k}: {v}," for k, v in sorted((selector.get("matchLabels") or {}).items()))
    expressions = "".join(
        f"{{{e.get('key', '')} {e.get('operator', '')} [{' '.join(e.get('values') or ())}]}},"
        for e in selector.get("matchExpressions") or ()
    )
    return (
        f"&LabelSelector{{MatchLabels:map[string]string{{{pairs}}},"
        f"MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )


def _clear_stale_condition(pod: Json | None, now: datetime) -> Steps:
    """An eviction that did not come to pass must not look like one for ever."""
    left_s = _stale_in(pod, now) if pod is not None else None
    if pod is None or left_s is None:
        return
    if left_s > 0:
        yield fx.RequeueAfter(left_s)
        return
    cleared = {"type": "DisruptionTarget", "status": "False", "lastTransitionTime": format_time(now)}
    conditions = [cleared if c["type"] == "DisruptionTarget" else c for c in pod["status"]["conditions"]]
    yield fx.Status("pods", pod, {**pod["status"], "conditions": conditions})


def _stale_in(pod: Json, now: datetime) -> float | None:
    """Seconds until the pod's DisruptionTarget condition is stale; None when it has none to speak of."""
    entry = pod_facts.condition(pod, "DisruptionTarget")
    if entry is None or entry.get("status") != "True" or not pod_facts.is_active(pod):
        return None
    if entry.get("reason") == BY_KUBELET:
        return None
    since = entry.get("lastTransitionTime")
    return (parse_time(since) + STALE_CONDITION - now).total_seconds() if since else 0.0


def touched_budget(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    return [meta.key_of(new)] if new is not None else []


def touched_pod(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    keys: dict[str, None] = {}
    if new is not None and pod_facts.condition_is_true(new, "DisruptionTarget"):
        keys[POD_PREFIX + meta.key_of(new)] = None
    if old is None or new is None or _standing(old) != _standing(new):
        for pod in (old, new):
            for budget in readers["budgets"].list(meta.namespace(pod)) if pod is not None else ():
                if _selects(budget, pod):
                    keys[meta.key_of(budget)] = None
    return list(keys)


def _standing(pod: Json) -> tuple[Any, ...]:
    """What a budget asks of a pod."""
    controller = meta.controller_of(pod)
    uid = controller["uid"] if controller else None
    return meta.labels(pod), pod_facts.is_ready(pod), meta.is_deleting(pod), uid


def _selects(budget: Json, pod: Json | None) -> bool:
    try:
        return pod is not None and from_label_selector(budget["spec"].get("selector")).matches(
            meta.labels(pod)
        )
    except SelectorError:
        return False


def rescaled(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """A new scale moves the budgets of the namespace before the first pod comes or goes."""
    if old is None or new is None or old["spec"].get("replicas") == new["spec"].get("replicas"):
        return []
    return [meta.key_of(budget) for budget in readers["budgets"].list(meta.namespace(new))]


CONTROLLER = Controller(
    name="disruption-controller",
    event_source="controllermanager",
    identity="disruption-controller",
    plan=plan,
    watches={
        "budgets": Fan(BUDGETS, keys=touched_budget),
        "pods": Fan("pods", keys=touched_pod),
        "replicasets": Fan("replicasets.apps", keys=rescaled),
        "deployments": Fan("deployments.apps", keys=rescaled),
        "statefulsets": Fan("statefulsets.apps", keys=rescaled),
        "replicationcontrollers": Fan("replicationcontrollers", keys=rescaled),
    },
    workers=1,
    settings={"resources": ()},
)
