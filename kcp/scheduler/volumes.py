"""Before a pod is bound: its waiting claims get their volumes, or are handed to a provisioner with the chosen node.

Source: k8s v1.36 pkg/scheduler/framework/plugins/volumebinding/binder.go (BindPodVolumes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio
import structlog

from kcp.apis.semantics import volumes
from kcp.client.client import Client
from kcp.client.transport import Unreachable
from kcp.machinery import meta
from kcp.machinery.errors import ApiError
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.plugins.volume_binding import Provision

Json = dict[str, Any]
log = structlog.get_logger()
BIND_TIMEOUT_S = 600.0


class VolumesNotBound(Exception):
    """Raised when the claims did not get their volumes; the pod must be decided on again."""


def reserve(state: ClusterState, plans: Sequence[Provision], node: str) -> None:
    """Nobody else gets these volumes from now on, and whoever shares the claims goes to that node."""
    for plan in plans:
        if plan.volume:
            state.reserved[plan.volume] = meta.key_of(plan.claim)
        else:
            state.selecting[meta.key_of(plan.claim)] = node


def unreserve(state: ClusterState, plans: Sequence[Provision]) -> None:
    for plan in plans:
        if plan.volume:
            state.reserved.pop(plan.volume, None)
        else:
            state.selecting.pop(meta.key_of(plan.claim), None)


async def bind_volumes(
    client: Client,
    state: ClusterState,
    plans: Sequence[Provision],
    node: str,
    decision: int,
    changed: Callable[[], anyio.Event],
    timeout_s: float = BIND_TIMEOUT_S,
    written: dict[str, Json] | None = None,
) -> None:
    """Write claimRefs and selected nodes, then wait until every claim is bound. `changed` is set on storage changes.

    `written` takes what was written, by the name of the volume or the key of the claim.
    Raises VolumesNotBound, ApiError, Unreachable.
    """
    for plan in plans:
        if plan.volume:
            key = plan.volume
            result = await client.patch(
                "persistentvolumes", plan.volume, _claim_ref(plan.claim), "merge", cause=decision
            )
        else:
            key = meta.key_of(plan.claim)
            result = await client.patch(
                "persistentvolumeclaims",
                meta.name(plan.claim),
                {"metadata": {"annotations": {volumes.SELECTED_NODE: node}}},
                "merge",
                meta.namespace(plan.claim),
                cause=decision,
            )
        if written is not None and result.object is not None:
            written[key] = result.object
    with anyio.move_on_after(timeout_s):
        seen: set[str] = set()
        while not _all_bound(state, plans, node, seen):
            await changed().wait()
        return
    raise VolumesNotBound("binding volumes: context deadline exceeded")


async def release_volumes(
    client: Client,
    state: ClusterState,
    plans: Sequence[Provision],
    node: str,
    decision: int,
    written: Mapping[str, Json],
) -> None:
    """Take back what `bind_volumes` wrote where nothing came of it yet: then the claims may go to another node.

    Best effort: whatever changed since we last saw it stays as it is.
    """
    for plan in plans:
        key = meta.key_of(plan.claim)
        claim = _newer(state.objects["persistentvolumeclaims"].get(key), written.get(key))
        if claim is None or volumes.is_fully_bound(claim) or meta.uid(claim) != meta.uid(plan.claim):
            continue
        try:
            if plan.volume:
                await _free_volume(client, state, plan, decision, written)
            elif meta.annotations(claim).get(volumes.SELECTED_NODE) == node:
                patch = {"metadata": {**_as_seen(claim), "annotations": {volumes.SELECTED_NODE: None}}}
                await client.patch(
                    "persistentvolumeclaims",
                    meta.name(claim),
                    patch,
                    "merge",
                    meta.namespace(claim),
                    cause=decision,
                )
        except (ApiError, Unreachable) as error:
            log.info("volume not released", claim=meta.key_of(claim), error=str(error))


async def _free_volume(
    client: Client, state: ClusterState, plan: Provision, decision: int, written: Mapping[str, Json]
) -> None:
    volume = _newer(state.objects["persistentvolumes"].get(plan.volume), written.get(plan.volume))
    if volume is None or volumes.BOUND_BY_CONTROLLER not in meta.annotations(volume):
        return
    if volumes.is_bound_to(volume, plan.claim):
        annotations = {volumes.BOUND_BY_CONTROLLER: None}
        patch = {"metadata": {**_as_seen(volume), "annotations": annotations}, "spec": {"claimRef": None}}
        await client.patch("persistentvolumes", plan.volume, patch, "merge", cause=decision)


def _newer(seen: Json | None, written: Json | None) -> Json | None:
    """The cache may not show yet what we wrote; nothing when it shows no such object any more."""
    if seen is None or written is None or meta.uid(seen) != meta.uid(written):
        return seen
    return max(seen, written, key=lambda obj: int(meta.resource_version(obj)))


def _as_seen(obj: Json) -> Json:
    """The precondition that it is still so."""
    return {"uid": meta.uid(obj), "resourceVersion": meta.resource_version(obj)}


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
