"""get: one object by name."""

from __future__ import annotations

from kcp.api.context import Call, Server
from kcp.api.documents import served
from kcp.api.options import revision
from kcp.api.registry import not_found
from kcp.api.results import ObjectResult, Result
from kcp.api.verbs.freshness import wait_until_fresh
from kcp.store.protocol import Key, Record


async def read(server: Server, call: Call) -> Record:
    """The object that the path names, at least as new as the request's resourceVersion. Raises NotFound."""
    kind, info = call.kind, call.info
    assert kind is not None
    asked = call.params.get("resourceVersion")
    if asked:
        await wait_until_fresh(server, revision(asked))
    else:
        await server.store.catch_up()
    record = server.store.get(Key(kind.resource, info.namespace if kind.namespaced else "", info.name))
    if record is None:
        raise not_found(kind, info.name)
    return record


async def handle(server: Server, call: Call) -> Result:
    record = await read(server, call)
    assert call.kind is not None
    return ObjectResult(served(call.kind, record.document), call.kind, 200, record.rv)
