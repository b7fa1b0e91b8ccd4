"""Before a pod is bound: its waiting claims get their volumes, or are handed to a provisioner with the chosen node.

Source: k8s v1.36 pkg/scheduler/framework/plugins/volumebinding/binder.go (BindPodVolumes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anyio

from kcp.apis.semantics import volumes
from kcp.client.client import Client
from kcp.machinery import meta
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.plugins.volume_binding import Provision

Json = dict[str, Any]
BIND_TIMEOUT_S = 600.0


class VolumesNotBound(Exception):
    """Raised when the claims did not get their volumes; the pod must be decided on again."""


def reserve(state: ClusterState, plans: Sequence[Provision]) -> None:
    """Nobody else gets these volumes from now on."""
    for plan in plans:
        if plan.volume:
            state.reserved[plan.volume] = meta.key_of(plan.claim)


def unreserve(state: ClusterState, plans: Sequence[Provision]) -> None:
    for plan in plans:
        state.reserved.pop(plan.volume, None)


async def bind_volumes(
    client: Client,
    state: ClusterState,
    plans: Sequence[Provision],
    node: str,
    decision: int,
    changed: Callable[[], anyio.Event],
    timeout_s: float = BIND_TIMEOUT_S,
) -> None:
    """Write claimRefs and selected nodes, then wait until every claim is bound. `changed` is set on storage changes.

    Raises VolumesNotBound, ApiError, Unreachable.
    """
    for plan in plans:
        if plan.volume:
            await client.patch(
                "persistentvolumes", plan.volume, _claim_ref(plan.claim), "merge", cause=decision
            )
        else:
            await client.patch(
                "persistentvolumeclaims",
                meta.name(plan.claim),
                {"metadata": {"annotations": {volumes.SELECTED_NODE: node}}},
                "merge",
                meta.namespace(plan.claim),
                cause=decision,
            )
    with anyio.move_on_after(timeout_s):
        seen: set[str] = set()
        while not _all_bound(state, plans, node, seen):
            await changed().wait()
        return
    raise VolumesNotBound("binding volumes: context deadline exceeded")


def _claim_ref(claim: Json) -> Json:
    return {
        "metadata": {"annotations": {volumes.BOUND_BY_CONTROLLER: "yes"}},
        "spec": {
            "claimRef": {
                "kind": "PersistentVolumeClaim",
                "apiVersion": "v1",
                "namespace": meta.namespace(claim),
                "name": meta.name(claim),
                "uid": meta.uid(claim),
            }
        },
    }


def _all_bound(state: ClusterState, plans: Sequence[Provision], node: str, seen: set[str]) -> bool:
    """`seen` collects the claims whose selected node we have read back: from then on it must stay."""
    done = True
    for plan in plans:
        key = meta.key_of(plan.claim)
        claim = state.objects["persistentvolumeclaims"].get(key)
        if claim is None:
            raise VolumesNotBound(f'persistentvolumeclaim "{meta.name(plan.claim)}" not found')
        if volumes.is_fully_bound(claim):
            continue
        done = False
        selected = meta.annotations(claim).get(volumes.SELECTED_NODE, "")
        if not plan.volume and selected == node:
            seen.add(key)
        elif not plan.volume and key in seen:
            raise VolumesNotBound(f'selectedNode annotation reset for PVC "{meta.name(claim)}"')
    return done
