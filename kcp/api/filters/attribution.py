"""Whose doing a change is: the Cause that the event log keeps with every event.

It replaces the audit log: user, groups, user agent, field manager and address are columns of the log's actors.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import attrs

from kcp.api.context import Call, Server
from kcp.api.options import manager_of_agent
from kcp.store.protocol import Actor, Cause

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


@attrs.define
class Attribution:
    @classmethod
    def of(cls, server: Server) -> Attribution:
        del server
        return cls()

    def enter(self, call: Call) -> None:
        call.fence = call.request.fence
        if call.info.verb in _READS and not call.info.subresource:
            return
        request = call.request
        agent = request.header("user-agent")
        manager = call.params.get("fieldManager") or manager_of_agent(agent)
        actor = _actor(call.user.name, call.user.groups, agent, manager, request.peer_address)
        call.cause = Cause(actor, call.audit_id, _decision(request.cause))
