"""The pods of a Job: how many, which ones, and what each looks like.

Source: k8s v1.36 pkg/controller/job/job_controller.go (manageJob), indexed_job_utils.go.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from kcp.apis.semantics import pods as pod_facts
from kcp.apis.semantics import workloads
from kcp.controllers import effects as fx
from kcp.controllers.job import indexes
from kcp.controllers.job.backoff import Record, index_left_s
from kcp.controllers.job.policies import judge_failure
from kcp.controllers.job.state import FINALIZER, Sync, is_tracked
from kcp.controllers.replicas import (
    BURST_REPLICAS,
    create_each,
    delete_pods,
    drop_finalizer,
    pod_from_template,
)
from kcp.machinery import meta
from kcp.machinery.errors import NotFound

Json = dict[str, Any]
Steps = Generator[fx.Effect, fx.Outcome, int]
"""How many pods are active afterwards."""

ENV_NAME = "JOB_COMPLETION_INDEX"
MAX_GENERATED_NAME = 58


def manage(sync: Sync, record: Record) -> Steps:
    """One step towards the wanted number of active pods: either deletions or creations."""
    if sync.suspended:
        return (yield from _remove(sync, sync.active))
    wanted = _wanted(sync)
    surplus = _surplus(sync, max(0, len(sync.active) - wanted))[:BURST_REPLICAS]
    if surplus:
        return (yield from _remove(sync, surplus))
    leaving = sync.terminating if sync.replaces_only_failed else 0
    missing = wanted - leaving - len(sync.active)
    if missing <= 0:
        return len(sync.active)
    wait_s = 0.0 if sync.per_index else record.left_s(sync.now)
    numbers: list[int] = []
    if not wait_s and sync.indexed:
        numbers, wait_s = _due_indexes(sync, min(missing, BURST_REPLICAS))
    if wait_s:
        yield fx.RequeueAfter(wait_s)
        return len(sync.active)
    count = len(numbers) if sync.indexed else min(missing, BURST_REPLICAS)
    return (yield from _create(sync, numbers, count))


def _wanted(sync: Sync) -> int:
    parallelism = int(sync.spec.get("parallelism", 1))
    if sync.completions is None:
        return len(sync.active) if sync.succeeded() > 0 else parallelism
    return max(0, min(sync.completions - sync.succeeded(), parallelism))


def _create(sync: Sync, numbers: Sequence[int], count: int) -> Steps:
    plain = _pod(sync)
    pods = [_indexed_pod(sync, plain, number) for number in numbers] if sync.indexed else [plain] * count
    made, _ = yield from create_each(sync.job, pods)
    return len(sync.active) + len(made)


def delete_active(sync: Sync) -> Steps:
    """Delete every active pod, finalizers kept: they are counted as they end."""
    yield from delete_pods(sync.job, sync.active)
    sync.terminating += len(sync.active)
    sync.ready = 0
    return 0


def _remove(sync: Sync, pods: Sequence[Json]) -> Steps:
    """Delete pods that shall not count: their finalizers go first, and who keeps it stays."""
    if not pods:
        return len(sync.active)
    tracked = [pod for pod in pods if is_tracked(pod)]
    if tracked:
        outcome = yield fx.All([drop_finalizer("pods", pod, FINALIZER) for pod in tracked])
        kept = {
            meta.uid(pod)
            for pod, part in zip(tracked, outcome.all, strict=True)
            if part.error is not None and not isinstance(part.error, NotFound)
        }
        pods = [pod for pod in pods if meta.uid(pod) not in kept]
    yield from delete_pods(sync.job, pods)
    sync.terminating += len(pods)
    sync.ready -= sum(map(pod_facts.is_ready, pods))
    return len(sync.active) - len(pods)


def _surplus(sync: Sync, at_least: int) -> list[Json]:
    """Duplicates and strangers among the indexes first, then the least valuable."""
    doomed: list[Json] = []
    kept = sync.active
    if sync.indexed:
        by_index: dict[int, list[Json]] = {}
        for pod in sync.active:
            by_index.setdefault(indexes.index_of(pod) if sync.has_valid_index(pod) else -1, []).append(pod)
        doomed = by_index.pop(-1, [])
        kept = []
        for _, same in sorted(by_index.items()):
            *extra, best = _by_value(sync, same)
            doomed += extra
            kept.append(best)
    missing = at_least - len(doomed)
    return doomed + _by_value(sync, kept)[:missing] if missing > 0 else doomed


def _by_value(sync: Sync, pods: Sequence[Json]) -> list[Json]:
    return workloads.deletion_order(pods, [0] * len(pods), sync.now)


def _due_indexes(sync: Sync, count: int) -> tuple[list[int], float]:
    """(indexes to make pods for now, or else seconds until the first is due)"""
    taken = indexes.merge(sync.succeeded_indexes, sync.failed_indexes or (), indexes.indexes_of(sync.active))
    if sync.replaces_only_failed:
        leaving = [pod for pod in sync.pods if pod_facts.is_terminating(pod)]
        taken = indexes.merge(taken, indexes.indexes_of(leaving))
    numbers = indexes.first_missing(taken, count, sync.completions or 0)
    if not sync.per_index:
        return numbers, 0.0
    waits = [(number, index_left_s(sync.held.get(number), sync.now)) for number in numbers]
    due = [number for number, wait_s in waits if not wait_s]
    return due, 0.0 if due else min((wait_s for _, wait_s in waits), default=0.0)


def _pod(sync: Sync) -> Json:
    """A pod of the template, with the finalizer that makes it count exactly once."""
    template = sync.spec["template"]
    if sync.indexed:
        template = {**template, "spec": _with_index_variable(template["spec"])}
    pod = pod_from_template(sync.job, template)
    others = [f for f in meta.finalizers(pod) if f != FINALIZER]
    return {**pod, "metadata": {**pod["metadata"], "finalizers": [*others, FINALIZER]}}


def _indexed_pod(sync: Sync, plain: Json, number: int) -> Json:
    name = meta.name(sync.job)
    ending = f"-{number}-"
    metadata = plain["metadata"]
    annotations = {**(metadata.get("annotations") or {}), indexes.INDEX: str(number)}
    if sync.per_index:
        annotations |= _failure_annotations(sync, number)
    metadata = {
        **metadata,
        "generateName": name[: MAX_GENERATED_NAME - len(ending)] + ending,
        "annotations": annotations,
        "labels": {**(metadata.get("labels") or {}), indexes.INDEX: str(number)},
    }
    return {**plain, "metadata": metadata, "spec": {**plain["spec"], "hostname": f"{name}-{number}"}}


def _failure_annotations(sync: Sync, number: int) -> dict[str, str]:
    """The failures of this index so far, handed down from the pod that is replaced."""
    replaced = sync.held.get(number)
    if replaced is None:
        return {indexes.FAILURE_COUNT: "0"}
    counted, ignored = indexes.failures_of(replaced)
    if judge_failure(sync.job, replaced).counts:
        counted += 1
    else:
        ignored += 1
    handed = {indexes.FAILURE_COUNT: str(counted)}
    return {**handed, indexes.IGNORED_FAILURE_COUNT: str(ignored)} if ignored else handed


def _with_index_variable(spec: Json) -> Json:
    """JOB_COMPLETION_INDEX in every container that does not set it itself."""
    source = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{indexes.INDEX}']"}}
    changed = dict(spec)
    for field in ("initContainers", "containers"):
        if spec.get(field):
            changed[field] = [
                container
                if any(variable["name"] == ENV_NAME for variable in container.get("env") or ())
                else {
                    **container,
                    "env": [*(container.get("env") or ()), {"name": ENV_NAME, "valueFrom": source}],
                }
                for container in spec[field]
            ]
    return changed
