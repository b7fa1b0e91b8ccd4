"""update: PUT of a whole object, with its resourceVersion and uid as preconditions."""

from __future__ import annotations

from kcp.api.context import Call, Server
from kcp.api.decoding import decode_object
from kcp.api.documents import private_copy
from kcp.api.options import write_options
from kcp.api.registry import MAIN, authorize_create, begin, create, result_of, stored_form, update
from kcp.api.results import Result
from kcp.api.transaction import Rules, Write
from kcp.apis.kind import Json
from kcp.machinery.errors import AlreadyExists, BadRequest, NotFound


def check_name(call: Call, obj: Json) -> None:
    """Raises BadRequest when the body names another object than the path."""
    name, wanted = obj["metadata"].get("name") or "", call.info.name
    if name and name != wanted:
        raise BadRequest(f"the name of the object ({name}) does not match the name on the URL ({wanted})")


async def handle(server: Server, call: Call, *, subresource: str = "", rules: Rules = MAIN) -> Result:
    """200 with the object, or 201 for a kind that may be created by an update."""
    kind = call.kind
    assert kind is not None
    options = write_options(call, "UpdateOptions")
    obj = stored_form(kind, decode_object(server, call, kind, options.field_validation))
    check_name(call, obj)
    write = begin(server, call, kind, options, subresource=subresource, rules=rules)
    if not subresource and kind.strategy.allow_create_on_update:
        return await _create_or_update(write, obj)
    return result_of(write, await update(write, call.info.name, lambda old: private_copy(obj)))


async def _create_or_update(write: Write, obj: Json) -> Result:
    """Whichever applies; when the object appears or goes in between, the other one."""
    name, server = write.call.info.name, write.server
    if server.store.get(write.key(name)) is None:
        authorize_create(write, name)
        created = private_copy(obj)
        created["metadata"].pop("resourceVersion", None)
        try:
            return result_of(write, await create(write, created), 201)
        except AlreadyExists:
            pass
    try:
        return result_of(write, await update(write, name, lambda old: private_copy(obj)))
    except NotFound:
        authorize_create(write, name)
        obj["metadata"].pop("resourceVersion", None)
        return result_of(write, await create(write, obj), 201)
