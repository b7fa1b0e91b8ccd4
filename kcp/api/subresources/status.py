"""The status subresource of every kind that has one: get, update, patch."""

from __future__ import annotations

from kcp.api.context import Call, Server
from kcp.api.registry import STATUS
from kcp.api.results import Result
from kcp.api.subresources.approval import REQUESTS, status_rules
from kcp.api.transaction import Rules
from kcp.api.verbs import patch, update


def _rules(server: Server, call: Call) -> Rules:
    assert call.kind is not None
    return status_rules(server.clock.now) if call.kind.resource == REQUESTS else STATUS


async def put(server: Server, call: Call) -> Result:
    return await update.handle(server, call, subresource="status", rules=_rules(server, call))


async def apply_patch(server: Server, call: Call) -> Result:
    return await patch.handle(server, call, subresource="status", rules=_rules(server, call))
