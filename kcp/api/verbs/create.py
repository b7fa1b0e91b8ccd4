"""create: POST of a new object."""

from __future__ import annotations

from kcp.api.context import Call, Server
from kcp.api.decoding import decode_object
from kcp.api.options import write_options
from kcp.api.registry import begin, create, result_of, stored_form
from kcp.api.results import Result


async def handle(server: Server, call: Call) -> Result:
    """Decode, default, admit, validate, write: 201 with the object."""
    kind = call.kind
    assert kind is not None
    options = write_options(call, "CreateOptions")
    obj = decode_object(server, call, kind, options.field_validation)
    write = begin(server, call, kind, options)
    written = await create(write, stored_form(kind, obj))
    return result_of(write, written, 201)
