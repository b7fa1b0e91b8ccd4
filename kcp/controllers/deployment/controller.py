"""The Deployment controller: what it watches and the order of one sync.

Source: k8s v1.36 pkg/controller/deployment/deployment_controller.go.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.deployment.conditions import progressing, set_condition
from kcp.controllers.deployment.progress import sync_plain_status
from kcp.controllers.deployment.recreate import recreate
from kcp.controllers.deployment.revisions import clean_up, roll_back, sync_revision
from kcp.controllers.deployment.rolling import roll
from kcp.controllers.deployment.rollout import ROLLBACK_TO, Rollout
from kcp.controllers.deployment.scaling import is_scaling_event, scale
from kcp.controllers.replicas import claim
from kcp.controllers.sources import Controller, Fan, Owned, Self
from kcp.machinery import meta
from kcp.machinery.labels import from_label_selector

Json = dict[str, Any]
Steps = Generator[fx.Effect, fx.Outcome, None]


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    deployment = view.deployments.get(key)
    if deployment is None:
        return
    selector = from_label_selector(deployment["spec"].get("selector"))
    if selector.empty:
        yield from _refuse_selecting_all(deployment)
        return
    owned = view.replicasets.index("owner", meta.uid(deployment))
    orphans = view.replicasets.index("owner", f"orphan:{meta.namespace(deployment)}")
    sets = yield from claim(deployment, "replicasets.apps", "deployments.apps", owned, orphans, selector)
    rollout = Rollout(deployment, sets, env.now)
    rollout.new = rollout.find_new()
    if meta.is_deleting(deployment):
        yield from sync_plain_status(rollout)
        return
    yield from _note_pause(rollout)
    yield from _next_step(rollout, view)


def _next_step(rollout: Rollout, view: fx.View) -> Steps:
    if rollout.spec.get("paused"):
        yield from _only_scale(rollout)
    elif ROLLBACK_TO in meta.annotations(rollout.deployment):
        yield from roll_back(rollout)
    elif is_scaling_event(rollout):
        yield from _only_scale(rollout)
    elif rollout.rolling:
        yield from roll(rollout)
    else:
        yield from recreate(rollout, view)


def _only_scale(rollout: Rollout) -> Steps:
    yield from sync_revision(rollout, create=False)
    yield from scale(rollout)
    if rollout.spec.get("paused") and ROLLBACK_TO not in meta.annotations(rollout.deployment):
        yield from clean_up(rollout)
    yield from sync_plain_status(rollout)


def _note_pause(rollout: Rollout) -> Steps:
    """Pausing and resuming show as Progressing=Unknown, so that a pause does not run into the deadline."""
    if not rollout.has_deadline:
        return
    current = progressing(rollout.deployment)
    if current is not None and current["reason"] == "ProgressDeadlineExceeded":
        return
    noted = current is not None and current["reason"] == "DeploymentPaused"
    paused = bool(rollout.spec.get("paused"))
    if paused == noted:
        return
    if paused:
        condition = ("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused")
    else:
        condition = ("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed")
    status = set_condition(rollout.deployment.get("status", {}), condition, rollout.now)
    outcome = yield fx.Status("deployments.apps", rollout.deployment, status)
    if outcome.ok and outcome.object is not None:
        rollout.deployment = outcome.object


def _refuse_selecting_all(deployment: Json) -> Steps:
    text = "This deployment is selecting all pods. A non-empty selector is required."
    yield fx.Event(deployment, "Warning", "SelectingAll", text)
    status = deployment.get("status", {})
    generation = deployment["metadata"].get("generation", 0)
    if status.get("observedGeneration", 0) < generation:
        yield fx.Status("deployments.apps", deployment, {**status, "observedGeneration": generation})


def adopting(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """Keys of the Deployments that might adopt an orphan ReplicaSet."""
    rs = new or old
    if rs is None or meta.controller_of(rs) is not None:
        return []
    return [
        meta.key_of(d)
        for d in readers["deployments"].list(meta.namespace(rs))
        if from_label_selector(d["spec"].get("selector")).matches(meta.labels(rs))
    ]


def finished_pods(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """A Recreate rollout goes on when a pod is gone."""
    if new is not None or old is None:
        return []
    owner = meta.controller_of(old)
    if owner is None or owner["kind"] != "ReplicaSet":
        return []
    rs = readers["replicasets"].get(f"{meta.namespace(old)}/{owner['name']}")
    controller = meta.controller_of(rs) if rs else None
    if controller is None or controller["kind"] != "Deployment":
        return []
    key = f"{meta.namespace(old)}/{controller['name']}"
    deployment = readers["deployments"].get(key)
    recreates = deployment is not None and deployment["spec"].get("strategy", {}).get("type") == "Recreate"
    return [key] if recreates else []


def owner_uid(obj: Json) -> list[str]:
    controller = meta.controller_of(obj)
    return [controller["uid"]] if controller else []


CONTROLLER = Controller(
    name="deployment-controller",
    identity="deployment-controller",
    plan=plan,
    watches={
        "deployments": Self("deployments.apps"),
        "replicasets": Owned("replicasets.apps", "Deployment", "apps", orphans=adopting),
        "pods": Fan("pods", keys=finished_pods, indexes={"owner": owner_uid}),
    },
)
