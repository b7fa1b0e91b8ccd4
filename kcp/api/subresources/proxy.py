"""nodes, pods and services `proxy`: requests that go through the API server to somebody else.

`server.extras["proxy"]`, when the control plane has put it there: async (server, call, object) -> Response.
"""

from __future__ import annotations

from typing import Any

from kcp.api.context import Call, Server
from kcp.api.verbs import get
from kcp.machinery.errors import ServiceUnavailable
from kcp.wire.http import Response


async def handle(server: Server, call: Call) -> Response:
    """Raises NotFound for an object that is not there, ServiceUnavailable when nobody can reach it."""
    assert call.kind is not None
    name = call.info.name
    target = (await get.read(server, call)).value if ":" not in name else {}
    forward: Any = server.extras.get("proxy")
    if forward is None:
        raise ServiceUnavailable(f'no endpoints available for {call.kind.singular} "{name}"')
    response: Response = await forward(server, call, target)
    return response
