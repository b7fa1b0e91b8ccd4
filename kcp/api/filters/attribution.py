"""Whose doing a change is: the Cause that the event log keeps with every event.

It replaces the audit log: user, groups, user agent, field manager and address are columns of the log's actors.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import attrs

from kcp.api.context import Call, Server
from kcp.api.options import manager_of_agent
from kcp.machinery import fence
from kcp.machinery.errors import Conflict
from kcp.store.protocol import Actor, Cause, Fence, Key, Store

LEASES = "leases.coordination.k8s.io"
FENCED_TEXT = "the lease that this write is fenced by is no longer held"
_READS = frozenset({"get", "list", "watch"})


@lru_cache(maxsize=1024)
def _actor(name: str, groups: tuple[str, ...], agent: str, manager: str, address: str) -> Actor:
    return Actor(name, groups, agent, manager, address)


def _decision(cause: Any) -> int | None:
    """The decision behind an in-process request: its id, or a Cause that carries one."""
    if isinstance(cause, int):
        return cause
    decision = getattr(cause, "decision_id", None)
    return decision if isinstance(decision, int) else None


def resolve_fence(store: Store, claim: Any) -> Fence:
    """A leader's claim (namespace, name, uid, holder, epoch of its Lease) as the store checks it in the transaction.

    Raises Conflict with cause LeaseFenced when the Lease says otherwise already.
    """
    if isinstance(claim, Fence):
        return claim
    key = Key(LEASES, claim.namespace, claim.name)
    lease, held = store.get(key), store.lease_epoch(key)
    if lease is None or held is None or lease.uid != claim.uid:
        raise fenced(claim.name)
    spec = lease.value.get("spec") or {}
    if spec.get("holderIdentity") != claim.holder or (spec.get("leaseTransitions") or 0) != claim.epoch:
        raise fenced(claim.name)
    return Fence(*held)


def fenced(name: str) -> Conflict:
    error = Conflict.of("coordination.k8s.io", "leases", name, FENCED_TEXT)
    error.details["causes"] = [{"reason": "LeaseFenced", "message": FENCED_TEXT}]
    return error


def _claim(call: Call) -> Any:
    """What the caller claims to lead: handed over inside the process, a header over HTTPS. Raises BadRequest."""
    request = call.request
    if request.fence is not None or request.document is not None:
        return request.fence
    text = request.header(fence.HEADER)
    return fence.parse(text) if text else None


@attrs.define
class Attribution:
    store: Store

    @classmethod
    def of(cls, server: Server) -> Attribution:
        return cls(server.store)

    def enter(self, call: Call) -> None:
        claim = _claim(call)
        if claim is not None:
            call.fence = resolve_fence(self.store, claim)
        if call.info.verb in _READS and not call.info.subresource:
            return
        request = call.request
        agent = request.header("user-agent")
        manager = call.params.get("fieldManager") or manager_of_agent(agent)
        actor = _actor(call.user.name, call.user.groups, agent, manager, request.peer_address)
        call.cause = Cause(actor, call.audit_id, _decision(request.cause))
