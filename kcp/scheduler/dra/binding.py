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
    """A claim that is not yet reserved for the pod; `allocation` None: it has its devices already."""

    key: str
    claim: Json
    allocation: Json | None


def claims_to_bind(
    state: ClusterState, pod: Json, allocations: Mapping[str, Json]
) -> tuple[ClaimBinding, ...]:
    if not has_claims(pod):
        return ()
    try:
        claims = claims_of(pod, state.objects[CLAIMS])
    except ClaimUnusable:
        return ()
    return tuple(
        ClaimBinding(meta.key_of(claim), claim, allocations.get(meta.key_of(claim)))
        for claim in claims
        if not facts.is_reserved_for(claim, pod)
    )


@attrs.define(eq=False)
class PodClaimsBinder:
    """Binds the claims of one pod. `written` are the claims whose status says so in the log, `unsure` those that may."""

    client: Client
    state: ClusterState
    pod: Json
    claims: Sequence[ClaimBinding]
    decision: int
    now: Callable[[], str]
    written: dict[str, Json] = attrs.field(factory=dict)
    unsure: dict[str, None] = attrs.field(factory=dict)

    async def bind(self) -> None:
        """Raises ClaimsNotBound, ApiError, Unreachable."""
        for claim in self.claims:
            await self._bind(claim)

    async def _bind(self, binding: ClaimBinding) -> None:
        claim = binding.claim
        for attempt in range(CONFLICT_RETRIES):
            try:
                if attempt:
                    claim = await self._present(binding.key)
                self.written[binding.key] = await self._write(binding, claim)
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
        for binding in self.claims:
            claim = self.written.get(binding.key) or known.get(binding.key)
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
            if binding.key in self.written:
                await self._unreserve(self.written[binding.key])
            elif binding.allocation is None:
                continue
            elif binding.key not in self.unsure or await self._never_written(binding):
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
