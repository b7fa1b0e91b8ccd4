"""The claims of a pod on its node: a pod starts when its devices are allocated and reserved for it.

Simulated nodes have no drivers to prepare devices; what the kubelet checks before it asks one is all there is.
Source: k8s v1.36 pkg/kubelet/cm/dra/manager.go (prepareResources).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kcp.apis.semantics import resource_claims as facts
from kcp.client.client import Client
from kcp.client.transport import Unreachable
from kcp.machinery import meta
from kcp.machinery.errors import ApiError

if TYPE_CHECKING:
    from kcp.node.pod_worker import PodWorker

Json = dict[str, Any]
CLAIMS = "resourceclaims.resource.k8s.io"
REASON = "FailedPrepareDynamicResources"
RETRY_S = 10.0


async def ready(worker: PodWorker) -> bool:
    """Whether the pod may start; if not, that is said and looked at again later."""
    fault = await prepare(worker.agent.client, worker.pod)
    if fault:
        worker.event("Warning", REASON, fault)
        worker.wake_at(worker.agent.monotonic() + RETRY_S)
    return not fault


async def prepare(client: Client, pod: Json) -> str:
    """Why the pod may not start yet, in the kubelet's words; "" when all of its claims are ready. Reads each claim."""
    for entry in facts.claim_entries(pod):
        name = facts.claim_name(pod, entry)
        if name is None:
            return _failed(f'prepare resource claim: pod "{meta.key_of(pod)}": ResourceClaim not created yet')
        fault = await _claim_fault(client, pod, entry, name) if name else ""
        if fault:
            return _failed(fault)
    return ""


async def _claim_fault(client: Client, pod: Json, entry: Json, name: str) -> str:
    namespace = meta.namespace(pod)
    try:
        claim = await client.get(CLAIMS, name, namespace)
    except (ApiError, Unreachable) as error:
        return f"failed to fetch ResourceClaim {name} referenced by pod {meta.name(pod)}: {error}"
    if not entry.get("resourceClaimName") and not facts.is_for_pod(claim, pod):
        return (
            f"ResourceClaim {namespace}/{name} was not created for pod {meta.key_of(pod)} (pod is not owner)"
        )
    if not facts.is_reserved_for(claim, pod):
        who = f"{meta.name(pod)} ({meta.uid(pod)})"
        return f"pod {who} is not allowed to use ResourceClaim {name} ({meta.uid(claim)})"
    return ""


def _failed(fault: str) -> str:
    return f"Failed to prepare dynamic resources: prepare dynamic resources: {fault}"
