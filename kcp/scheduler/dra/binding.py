"""Before a pod is bound: its claims get their devices and are reserved for it, in the log.

What was decided is in `state.devices` until the log shows it. If the pod cannot be bound after all, what was not written is
given back at once; what was written stays the claim's, without the reservation, and serves the next attempt.
Source: k8s v1.36 pkg/scheduler/framework/plugins/dynamicresources/dynamicresources.go (PreBind, bindClaim, Unreserve).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import anyio
import attrs
import structlog

from kcp.apis.semantics import resource_claims as facts
from kcp.base.values import frozen
from kcp.client.client import Client
from kcp.client.transport import Unreachable
from kcp.machinery import meta
from kcp.machinery.errors import ApiError, Conflict, NotFound
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.dra.claims import ClaimUnusable, claims_of, has_claims
from kcp.scheduler.dra.devices import CLAIMS, allocation_of
from kcp.scheduler.dra.extended import backed, is_special, special_claim, special_key, to_create
from kcp.scheduler.pod_class import PodInfo

Json = dict[str, Any]
log = structlog.get_logger()

CONFLICT_RETRIES = 5
"""Source: k8s v1.36 client-go/util/retry DefaultRetry."""
SETTLE_EVERY_S = 1.0
SETTLE_AT_MOST = 120
BINDING_TIMEOUT_S = 600.0
"""Source: k8s v1.36 DynamicResourcesBindingTimeoutDefault."""


class ClaimsNotBound(Exception):
    """Raised when the pod cannot go on with its claims; it is decided on again."""


@frozen
class ClaimBinding:
    """A claim that is not yet reserved for the pod; `allocation` None: it has its devices already.

    With `mappings` it is that of the pod's extended resources, which has to be created.
    """

    key: str
    claim: Json
    allocation: Json | None
    mappings: tuple[Json, ...] = ()


def claims_to_bind(
    state: ClusterState, info: PodInfo, node: str, allocations: Mapping[str, Json]
) -> tuple[ClaimBinding, ...]:
    pod = info.pod
    found: tuple[ClaimBinding, ...] = ()
    if has_claims(pod):
        try:
            claims = claims_of(pod, state.objects[CLAIMS])
        except ClaimUnusable:
            return ()
        found = tuple(
            ClaimBinding(meta.key_of(claim), claim, allocations.get(meta.key_of(claim)))
            for claim in claims
            if not facts.is_reserved_for(claim, pod)
        )
    key = special_key(meta.namespace(pod), info.uid)
    if key in allocations:
        offered = state.nodes[node].allocatable
        lacking = [n for n in backed(info.cls.shape, state.device_classes) if not offered.get(n)]
        claim, mappings = special_claim(pod, lacking, state.device_classes)
        found += (ClaimBinding(key, claim, allocations[key], mappings),)
    return found


@attrs.define(eq=False)
class PodClaimsBinder:
    """Binds the claims of one pod. `written` are the claims whose status says so in the log, `unsure` those that may.

    `latest` has claims as somebody who binds them too has written them.
    """

    client: Client
    state: ClusterState
    pod: Json
    claims: Sequence[ClaimBinding]
    decision: int
    now: Callable[[], str]
    latest: dict[str, Json] = attrs.field(factory=dict)
    written: dict[str, Json] = attrs.field(factory=dict)
    unsure: dict[str, None] = attrs.field(factory=dict)
    made: Json | None = None
    """The claim of the pod's extended resources, once it is there."""

    async def bind(self, sharing: bool | None = None) -> None:
        """All claims, or only those that get devices, or (`sharing`) have them. Raises ClaimsNotBound, ApiError, Unreachable."""
        for claim in self.claims:
            if sharing is None or sharing == (claim.allocation is None):
                await self._bind(claim)

    async def _bind(self, binding: ClaimBinding) -> None:
        if binding.mappings:
            await self._bind_special(binding)
            return
        await self._bind_there(binding, self.latest.get(binding.key, binding.claim))

    async def _bind_special(self, binding: ClaimBinding) -> None:
        """The claim of the pod's extended resources: created, allocated, and told in the pod's status."""
        namespace = meta.namespace(self.pod)
        try:
            made = await self.client.create(CLAIMS, to_create(binding.claim), namespace, cause=self.decision)
        except ApiError as error:
            raise ClaimsNotBound(f"create claim for extended resources {binding.key}: {error}") from error
        claim = made.object or {}
        self.made = claim
        await self._bind_there(attrs.evolve(binding, key=meta.key_of(claim)), claim)
        status = {"resourceClaimName": meta.name(claim), "requestMappings": list(binding.mappings)}
        patch = {"metadata": {"uid": meta.uid(self.pod)}, "status": {"extendedResourceClaimStatus": status}}
        try:
            await self.client.patch(
                "pods", meta.name(self.pod), patch, "merge", namespace, subresource="status", cause=self.decision
            )  # fmt: skip
        except ApiError as error:
            where = f"pod {meta.key_of(self.pod)} ExtendedResourceClaimStatus"
            raise ClaimsNotBound(f"update {where}: {error}") from error

    async def _bind_there(self, binding: ClaimBinding, claim: Json) -> None:
        for attempt in range(CONFLICT_RETRIES):
            try:
                if attempt:
                    claim = await self._present(binding.key)
                written = await self._write(binding, claim)
                self.written[binding.key] = self.latest[binding.key] = written
                self.state.devices.written(binding.key, written)
                return
            except Conflict:
                if attempt == CONFLICT_RETRIES - 1:
                    raise

    async def _present(self, key: str) -> Json:
        namespace, name = meta.split_key(key)
        try:
            return await self.client.get(CLAIMS, name, namespace)
        except ApiError as error:
            raise ClaimsNotBound(f"get updated claim {key} after conflict: {error}") from error

    async def _write(self, binding: ClaimBinding, claim: Json) -> Json:
        key = binding.key
        if meta.is_deleting(claim):
            raise ClaimsNotBound(f"claim {key} got deleted in the meantime")
        status = dict(claim.get("status") or {})
        if binding.allocation is not None:
            if status.get("allocation") is not None:
                raise ClaimsNotBound(f"claim {key} got allocated elsewhere in the meantime")
            if facts.FINALIZER not in meta.finalizers(claim):
                claim = await self._protect(key, claim)
            status["allocation"] = {"allocationTimestamp": self.now(), **binding.allocation}
        status["reservedFor"] = [*(status.get("reservedFor") or ()), facts.consumer_of(self.pod)]
        what = "allocation and reservation" if binding.allocation is not None else "reservation"
        self.unsure[key] = None
        try:
            written = await self.client.update_status(
                CLAIMS, {**claim, "status": status}, cause=self.decision
            )
        except Conflict:
            del self.unsure[key]
            raise
        except ApiError as error:
            del self.unsure[key]
            raise ClaimsNotBound(f"add {what} to claim {key}: {error}") from error
        del self.unsure[key]
        return written.object or {}

    async def _protect(self, key: str, claim: Json) -> Json:
        metadata = {**claim["metadata"], "finalizers": [*meta.finalizers(claim), facts.FINALIZER]}
        try:
            written = await self.client.update(CLAIMS, {**claim, "metadata": metadata}, cause=self.decision)
        except Conflict:
            raise
        except ApiError as error:
            raise ClaimsNotBound(f"add finalizer to claim {key}: {error}") from error
        return written.object or claim

    # --- devices that must be ready first ---

    @property
    def waits(self) -> bool:
        """Whether a device of the pod has conditions that must hold before the pod may be bound."""
        return any(
            result.get("bindingConditions") for claim in self._claims() for result in facts.results_of(claim)
        )

    def _claims(self) -> Iterator[Json]:
        known = self.state.objects[CLAIMS]
        for key in dict.fromkeys([*self.written, *(binding.key for binding in self.claims)]):
            claim = self.written.get(key) or known.get(key)
            if claim is not None:
                yield claim

    async def wait_until_ready(
        self, changed: Callable[[], anyio.Event], timeout_s: float = BINDING_TIMEOUT_S
    ) -> None:
        """Raises ClaimsNotBound when a device failed, its claim went, or time is over: the claim is freed then."""
        with anyio.move_on_after(timeout_s):
            while not all(self._ready(key) for key in self.written):
                await changed().wait()
            return
        for key in self.written:
            await deallocate(self.client, self.state.objects[CLAIMS].get(key), self.decision)
        raise ClaimsNotBound("device binding timeout")

    def _ready(self, key: str) -> bool:
        """On what the cache has of the claim, once it shows the allocation."""
        claim = self.state.objects[CLAIMS].get(key)
        if claim is None:
            raise ClaimsNotBound(f'could not find ResourceClaim "{key}"')
        if allocation_of(claim) is None:
            return False
        fault = facts.binding_fault(claim)
        if fault:
            raise ClaimsNotBound(fault)
        return facts.is_ready(claim)

    # --- it came to nothing ---

    async def undo(self) -> None:
        """The pod is not bound: what was not written is free again, what was written is not reserved for it any more."""
        for binding in self.claims:
            if binding.mappings:
                await self._undo_special(binding)
            elif binding.key in self.written:
                await self._unreserve(self.written[binding.key])
            elif binding.allocation is None:
                continue
            elif binding.key not in self.unsure or await self._never_written(binding):
                self.state.devices.give_back(binding.key)

    async def _undo_special(self, binding: ClaimBinding) -> None:
        """Nobody else can use it, so it goes; if it cannot be deleted now, the pod's next attempt sees to it."""
        if self.made is not None:
            await delete_special(self.client, self.made, self.decision)
        self.state.devices.give_back(binding.key)

    async def _unreserve(self, claim: Json) -> None:
        uid = meta.uid(self.pod)
        patch = {
            "metadata": {"uid": meta.uid(claim)},
            "status": {"reservedFor": [{"$patch": "delete", "uid": uid}]},
        }
        try:
            await self.client.patch(
                CLAIMS, meta.name(claim), patch, "strategic", meta.namespace(claim), subresource="status",
                cause=self.decision,
            )  # fmt: skip
        except (ApiError, Unreachable) as error:
            log.warning("reservation not removed", claim=meta.key_of(claim), error=str(error))

    async def _never_written(self, binding: ClaimBinding) -> bool:
        """Asked until there is an answer: devices that may be allocated must not be given to anybody else."""
        namespace, name = meta.split_key(binding.key)
        for _ in range(SETTLE_AT_MOST):
            try:
                claim = await self.client.get(CLAIMS, name, namespace)
            except NotFound:
                return True
            except (ApiError, Unreachable):
                await anyio.sleep(SETTLE_EVERY_S)
                continue
            if allocation_of(claim) is None:
                return True
            self.written[binding.key] = claim
            self.state.devices.written(binding.key, claim)
            await self._unreserve(claim)
            return False
        return True


async def deallocate(client: Client, claim: Json | None, decision: int) -> None:
    """Take the devices off a claim that nobody uses, so that it can get others; best effort."""
    if claim is None:
        return
    kept = ("allocation", "reservedFor", "devices")
    status = {field: value for field, value in (claim.get("status") or {}).items() if field not in kept}
    try:
        await client.update_status(CLAIMS, {**claim, "status": status}, cause=decision)
    except (ApiError, Unreachable) as error:
        log.info("claim not deallocated", claim=meta.key_of(claim), error=str(error))


async def delete_special(client: Client, claim: Json, decision: int) -> None:
    """Delete the claim of a pod's extended resources, its protection first; best effort."""
    name, namespace = meta.name(claim), meta.namespace(claim)
    try:
        present = await client.get(CLAIMS, name, namespace)
        if meta.uid(present) != meta.uid(claim):
            return
        if facts.FINALIZER in meta.finalizers(present):
            left = [finalizer for finalizer in meta.finalizers(present) if finalizer != facts.FINALIZER]
            metadata = {**present["metadata"], "finalizers": left}
            await client.update(CLAIMS, {**present, "metadata": metadata}, cause=decision)
        await client.delete(CLAIMS, name, namespace, uid=meta.uid(claim), cause=decision)
    except NotFound:
        return
    except (ApiError, Unreachable) as error:
        log.info("claim of extended resources not deleted", claim=meta.key_of(claim), error=str(error))


async def free(client: Client, claim: Json, decision: int) -> None:
    """A claim that stands in its pod's way gives its devices back."""
    await (delete_special if is_special(claim) else deallocate)(client, claim, decision)
