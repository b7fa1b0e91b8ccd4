"""Leases as the log keeps them: a row with the newest state, an epoch that fences, renewals without event rows.

change             revision   event row   epoch
create             yes        yes         0
renewal            yes        no          same           (holder the same, marked `Put.renewal`)
other holder       yes        yes         +1             (+0 when released to the empty holder)
delete             yes        yes, with the last body
"""

from __future__ import annotations

from collections.abc import Callable

from kcp.base.values import frozen
from kcp.machinery.document import Json
from kcp.store.protocol import Fence, Fenced

RESOURCE = "leases.coordination.k8s.io"


@frozen
class LeaseRow:
    """The newest state of one Lease. `logged_rv` is its newest event row, `body` its normal form."""

    oid: int
    rv: int
    logged_rv: int
    holder: str
    epoch: int
    acquired_us: int
    renewed_us: int
    ttl_ms: int
    body: bytes

    def expired(self, now_us: int) -> bool:
        return not self.holder or now_us >= self.renewed_us + self.ttl_ms * 1000


def _holder(value: Json) -> str:
    spec = value.get("spec")
    holder = spec.get("holderIdentity") if isinstance(spec, dict) else None
    return holder if isinstance(holder, str) else ""


def _ttl_ms(value: Json) -> int:
    spec = value.get("spec")
    seconds = spec.get("leaseDurationSeconds") if isinstance(spec, dict) else None
    return seconds * 1000 if isinstance(seconds, int) else 0


def advance(
    before: LeaseRow | None, oid: int, rv: int, ts_us: int, value: Json, body: bytes, *, renewal: bool
) -> tuple[LeaseRow, bool]:
    """The row after a write, and whether the write is a mere renewal.

    A write that claims to be a renewal but names another holder is an ordinary change.
    """
    holder, ttl_ms = _holder(value), _ttl_ms(value)
    if before is None:
        return LeaseRow(oid, rv, rv, holder, 0, ts_us, ts_us, ttl_ms, body), False
    same = holder == before.holder
    renewal = renewal and same
    return (
        LeaseRow(
            oid,
            rv,
            before.logged_rv if renewal else rv,
            holder,
            before.epoch + (not same and holder != ""),
            before.acquired_us if same else ts_us,
            ts_us,
            ttl_ms,
            body,
        ),
        renewal,
    )


def check_fence(fence: Fence, lease_of: Callable[[int], LeaseRow | None]) -> None:
    """Raise Fenced unless the Lease still exists, is held, and has not changed hands since the claim."""
    lease = lease_of(fence.lease_oid)
    if lease is None:
        raise Fenced(f"the lease {fence.lease_oid} is gone")
    if not lease.holder:
        raise Fenced(f"the lease {fence.lease_oid} has no holder")
    if lease.epoch != fence.epoch:
        raise Fenced(f"the lease {fence.lease_oid} is at epoch {lease.epoch}, not {fence.epoch}")
