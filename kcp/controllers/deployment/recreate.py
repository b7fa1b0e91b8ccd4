"""Recreate: all old pods are gone before the first new one is made.

Source: k8s v1.36 pkg/controller/deployment/recreate.go.
"""

from __future__ import annotations

from collections.abc import Generator

from kcp.apis.semantics import pods as pod_facts
from kcp.controllers import effects as fx
from kcp.controllers.deployment.conditions import is_complete
from kcp.controllers.deployment.progress import sync_rollout_status
from kcp.controllers.deployment.revisions import clean_up, sync_revision
from kcp.controllers.deployment.rollout import Rollout, active
from kcp.controllers.deployment.scaling import scale_to
from kcp.machinery import meta


def recreate(rollout: Rollout, view: fx.View) -> Generator[fx.Effect, fx.Outcome, None]:
    yield from sync_revision(rollout, create=False)
    going = active(rollout.old)
    for rs in going:
        yield from scale_to(rollout, rs, 0)
    if not going and not _old_pods_run(rollout, view):
        if rollout.new is None:
            yield from sync_revision(rollout, create=True)
        if rollout.new is None:
            return
        yield from scale_to(rollout, rollout.new, rollout.replicas)
        if is_complete(rollout, rollout.deployment.get("status", {})):
            yield from clean_up(rollout)
    yield from sync_rollout_status(rollout)


def _old_pods_run(rollout: Rollout, view: fx.View) -> bool:
    return any(
        not pod_facts.is_terminal(pod) for rs in rollout.old for pod in view.pods.index("owner", meta.uid(rs))
    )
