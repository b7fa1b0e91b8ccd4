"""connect: verbs on subresources that lead out of the API server, and creates that nothing is stored of."""

from __future__ import annotations

from kcp.api.auth.reviews import REVIEWS
from kcp.api.context import Call, Server
from kcp.api.decoding import decode_object
from kcp.api.options import write_options
from kcp.api.registry import begin, with_managed_fields
from kcp.api.results import Result, StatusResult
from kcp.machinery.errors import Invalid, NotFound


async def review(server: Server, call: Call) -> Result:
    """A virtual kind: the answer is the object with its status filled in, 201."""
    kind = call.kind
    assert kind is not None
    answer = REVIEWS.get((kind.group, kind.kind))
    if answer is None:
        raise NotFound.path()
    options = write_options(call, "CreateOptions")
    obj = decode_object(server, call, kind, options.field_validation)
    kind.strategy.default(obj)
    errors = kind.strategy.validate_create(obj)
    if errors:
        raise Invalid.of(kind.group, kind.kind, "", errors)
    obj = with_managed_fields(begin(server, call, kind, options), None, obj)
    return StatusResult(await answer(server, call, obj), 201)
