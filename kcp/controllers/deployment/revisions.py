"""Revisions of a Deployment: finding or creating the ReplicaSet of the present template, history, clean-up, rollback.

Source: k8s v1.36 pkg/controller/deployment/{sync,rollback}.go, util/deployment_util.go.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from kcp.apis.semantics import workloads
from kcp.controllers import effects as fx
from kcp.controllers.deployment.conditions import progressing, set_condition, with_condition
from kcp.controllers.deployment.rollout import (
    ROLLBACK_TO,
    Rollout,
    by_creation,
    total_spec,
)
from kcp.machinery import meta
from kcp.machinery.errors import AlreadyExists

Json = dict[str, Any]
Steps = Generator[fx.Effect, fx.Outcome, None]
MAX_HISTORY_CHARS = 2000
RESOURCE = "replicasets.apps"


def sync_revision(rollout: Rollout, *, create: bool) -> Steps:
    """Set `rollout.new`: bring the existing new ReplicaSet up to date, or create it when `create` is set."""
    rollout.new = rollout.find_new()
    revision = 1 + max((workloads.revision(rs) for rs in rollout.old), default=0)
    if rollout.new is not None:
        yield from _refresh_new(rollout, revision)
    elif create:
        yield from _create_new(rollout, revision)


def _refresh_new(rollout: Rollout, revision: int) -> Steps:
    rs = rollout.new
    assert rs is not None
    annotations = new_set_annotations(rollout, rs, revision, exists=True)
    min_ready_s = rollout.spec.get("minReadySeconds", 0)
    if annotations != meta.annotations(rs) or rs["spec"].get("minReadySeconds", 0) != min_ready_s:
        changed = {
            **rs,
            "metadata": {**rs["metadata"], "annotations": annotations},
            "spec": {**rs["spec"], "minReadySeconds": min_ready_s},
        }
        outcome = yield fx.Update(RESOURCE, changed)
        if outcome.ok and outcome.object is not None:
            rollout.put(outcome.object)
            rs = outcome.object
    found = rollout.has_deadline and progressing(rollout.deployment) is None
    condition = ("Progressing", "True", "FoundNewReplicaSet", f'Found new replica set "{meta.name(rs)}"')
    yield from _publish(rollout, annotations.get(workloads.REVISION, ""), condition if found else None)


def _create_new(rollout: Rollout, revision: int) -> Steps:
    deployment = rollout.deployment
    template = rollout.spec["template"]
    collisions = deployment.get("status", {}).get("collisionCount")
    rs = _new_set(rollout, template, workloads.pod_template_hash(template, collisions), revision)
    outcome = yield fx.Create(RESOURCE, meta.namespace(deployment), rs)
    created, existed = outcome.object, False
    if isinstance(outcome.error, AlreadyExists):
        live = (yield fx.Live(RESOURCE, meta.namespace(deployment), meta.name(rs))).object
        controller = meta.controller_of(live) if live else None
        if (
            live
            and controller
            and controller["uid"] == meta.uid(deployment)
            and workloads.equal_templates(live["spec"]["template"], template)
        ):
            created, existed = live, True
        else:
            yield fx.Status(
                "deployments.apps",
                deployment,
                {**deployment.get("status", {}), "collisionCount": (collisions or 0) + 1},
            )
            return
    elif outcome.error is not None:
        yield from _report_failure(rollout, rs, outcome)
        return
    if created is None:
        return
    rollout.new = created
    rollout.put(created)
    name = meta.name(created)
    if not existed and workloads.replicas(created) > 0:
        yield scaling_event(deployment, created, 0, workloads.replicas(created))
    condition = ("Progressing", "True", "NewReplicaSetCreated", f'Created new replica set "{name}"')
    announce = not existed and rollout.has_deadline
    yield from _publish(
        rollout, meta.annotations(created).get(workloads.REVISION, ""), condition if announce else None
    )


def _report_failure(rollout: Rollout, rs: Json, outcome: fx.Outcome) -> Steps:
    assert outcome.error is not None
    if outcome.error.has_cause("NamespaceTerminating"):
        return
    message = f'Failed to create new replica set "{meta.name(rs)}": {outcome.error.message}'
    if rollout.has_deadline:
        condition = ("Progressing", "False", "ReplicaSetCreateError", message)
        status = with_condition(rollout.deployment.get("status", {}), condition, rollout.now)
        yield fx.Status("deployments.apps", rollout.deployment, status)
    yield fx.Event(rollout.deployment, "Warning", "ReplicaSetCreateError", message)


def _new_set(rollout: Rollout, template: Json, template_hash: str, revision: int) -> Json:
    deployment = rollout.deployment
    metadata = template.get("metadata", {})
    labels = {**metadata.get("labels", {}), workloads.POD_TEMPLATE_HASH: template_hash}
    selector = rollout.spec["selector"]
    rs: Json = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{meta.name(deployment)}-{template_hash}",
            "namespace": meta.namespace(deployment),
            "labels": labels,
            "annotations": {},
            "ownerReferences": [meta.owner_reference(deployment)],
        },
        "spec": {
            "minReadySeconds": rollout.spec.get("minReadySeconds", 0),
            "selector": {
                **selector,
                "matchLabels": {
                    **selector.get("matchLabels", {}),
                    workloads.POD_TEMPLATE_HASH: template_hash,
                },
            },
            "template": {**template, "metadata": {**metadata, "labels": labels}},
            "replicas": 0,
        },
    }
    rs["spec"]["replicas"] = new_set_replicas(rollout, rs, [*rollout.sets, rs])
    rs["metadata"]["annotations"] = new_set_annotations(rollout, rs, revision, exists=False)
    return rs


def new_set_replicas(rollout: Rollout, new: Json, sets: list[Json]) -> int:
    """How large the new ReplicaSet may be now. Source: k8s NewRSNewReplicas."""
    if not rollout.rolling:
        return rollout.replicas
    room = rollout.replicas + rollout.max_surge - total_spec(sets)
    if room <= 0:
        return workloads.replicas(new)
    return workloads.replicas(new) + min(room, rollout.replicas - workloads.replicas(new))


def new_set_annotations(rollout: Rollout, rs: Json, revision: int, *, exists: bool) -> dict[str, str]:
    """The annotations a new ReplicaSet should have. Source: k8s SetNewReplicaSetAnnotations."""
    annotations = dict(meta.annotations(rs))
    annotations.update(workloads.inherited_annotations(rollout.deployment))
    had = annotations.get(workloads.REVISION)
    if (workloads.revision(rs)) < revision:
        annotations[workloads.REVISION] = str(revision)
        if had:
            annotations[workloads.REVISION_HISTORY] = _append_history(
                annotations.get(workloads.REVISION_HISTORY, ""), had
            )
    if not exists:
        annotations.update(replica_annotations(rollout))
    return annotations


def _append_history(history: str, revision: str) -> str:
    entries = [entry for entry in history.split(",") if entry]
    while entries and len(",".join([*entries, revision])) > MAX_HISTORY_CHARS:
        entries.pop(0)
    return ",".join([*entries, revision])


def replica_annotations(rollout: Rollout) -> dict[str, str]:
    return {
        workloads.DESIRED_REPLICAS: str(rollout.replicas),
        workloads.MAX_REPLICAS: str(rollout.replicas + rollout.max_surge),
    }


def _publish(rollout: Rollout, revision: str, condition: tuple[str, str, str, str] | None) -> Steps:
    """Copy the revision onto the Deployment and set a condition, in one status write, if either changed."""
    deployment = rollout.deployment
    annotations = dict(meta.annotations(deployment))
    stale = bool(revision) and annotations.get(workloads.REVISION) != revision
    if not stale and condition is None:
        return
    if stale:
        annotations[workloads.REVISION] = revision
    status = deployment.get("status", {})
    if condition is not None:
        status = set_condition(status, condition, rollout.now)
    changed = {
        **deployment,
        "metadata": {**deployment["metadata"], "annotations": annotations},
        "status": status,
    }
    outcome = yield fx.Update("deployments.apps", changed, subresource="status")
    if outcome.ok and outcome.object is not None:
        rollout.deployment = outcome.object


def scaling_event(deployment: Json, rs: Json, old: int, new: int) -> fx.Event:
    word = "up" if new > old else "down"
    return fx.Event(
        deployment,
        "Normal",
        "ScalingReplicaSet",
        f"Scaled {word} replica set {meta.name(rs)} from {old} to {new}",
    )


def clean_up(rollout: Rollout) -> Steps:
    """Delete old ReplicaSets beyond revisionHistoryLimit, the lowest revisions first."""
    limit = rollout.spec.get("revisionHistoryLimit")
    if limit is None or limit == 2**31 - 1:
        return
    old = [rs for rs in rollout.old if not meta.is_deleting(rs)]
    surplus = len(old) - limit
    if surplus <= 0:
        return
    old.sort(key=lambda rs: (workloads.revision(rs), by_creation(rs)))
    for rs in old[:surplus]:
        status = rs.get("status", {})
        current = rs["metadata"].get("generation", 0) <= status.get("observedGeneration", 0)
        if status.get("replicas", 0) == 0 and workloads.replicas(rs) == 0 and current:
            yield fx.Delete(RESOURCE, meta.namespace(rs), meta.name(rs), uid=meta.uid(rs))


def roll_back(rollout: Rollout) -> Steps:
    """The legacy rollback annotation: copy the template of that revision (0: the last but one) back."""
    deployment = rollout.deployment
    wanted = workloads.annotated_replicas(deployment, ROLLBACK_TO) or 0
    revisions = sorted((workloads.revision(rs), by_creation(rs), i) for i, rs in enumerate(rollout.sets))
    if wanted == 0:
        wanted = revisions[-2][0] if len(revisions) > 1 else 0
    target = next(
        (
            rs
            for rs in rollout.sets
            if wanted and workloads.annotated_replicas(rs, workloads.REVISION) == wanted
        ),
        None,
    )
    annotations = {k: v for k, v in meta.annotations(deployment).items() if k != ROLLBACK_TO}
    spec = rollout.spec
    if target is None:
        yield _rollback_event(
            deployment, "Warning", "DeploymentRollbackRevisionNotFound", "Unable to find last revision."
        )
    elif workloads.equal_templates(target["spec"]["template"], spec["template"]):
        text = f'The rollback revision contains the same template as current deployment "{meta.name(deployment)}"'
        yield _rollback_event(deployment, "Warning", "DeploymentRollbackTemplateUnchanged", text)
    else:
        template = target["spec"]["template"]
        labels = {
            k: v
            for k, v in template["metadata"].get("labels", {}).items()
            if k != workloads.POD_TEMPLATE_HASH
        }
        spec = {**spec, "template": {**template, "metadata": {**template["metadata"], "labels": labels}}}
        text = f'Rolled back deployment "{meta.name(deployment)}" to revision {wanted}'
        yield _rollback_event(deployment, "Normal", "DeploymentRollback", text)
    yield fx.Update(
        "deployments.apps",
        {**deployment, "metadata": {**deployment["metadata"], "annotations": annotations}, "spec": spec},
    )


def _rollback_event(deployment: Json, type_: str, reason: str, message: str) -> fx.Event:
    return fx.Event(deployment, "Normal" if type_ == "Normal" else "Warning", reason, message)
