"""The API's front: every request, from a socket or from inside, becomes a Call, passes the chain and gets an answer.

    handler = build(server)
    response = await handler(Request("GET", "/api/v1/pods"))

A request is one task; nothing here opens another or waits without a deadline.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from typing import Any

import attrs
import structlog

from kcp.api.chain import Chain
from kcp.api.context import Call, RequestInfo, Server
from kcp.api.filters.authentication import NOBODY
from kcp.api.filters.authorization import AUDIT
from kcp.api.filters.lifecycle import timeout_s
from kcp.api.negotiation import check_acceptable, error_response, over_websocket, render
from kcp.api.nonresource import Endpoints, plain_not_found
from kcp.api.passages import Passages
from kcp.api.request_info import Params, Repeated, parse_query, request_info
from kcp.api.results import WatchResult
from kcp.api.routes import handler_for, path_handler
from kcp.machinery.errors import ApiError, Expired, InternalError, NotFound, ServiceUnavailable, Timeout
from kcp.store.protocol import Compacted, FutureRevision, StoreError, TooLarge, Unavailable
from kcp.wire.deadline import DeadlineExceeded, within
from kcp.wire.http import Handler, Request, Response
from kcp.wire.websocket import is_websocket

log = structlog.get_logger(__name__)

DEADLINE_TEXT = "Timeout: request did not complete within the allotted timeout"
PANIC_TEXT = "This request caused apiserver to panic. Look in the logs for details."


def build(server: Server) -> Handler:
    """The handler for sockets and in-process transports. Registers listeners at the store; call it once."""
    every_one_is_told = AUDIT in server.extras
    return Application(
        server,
        Chain.of(server),
        Endpoints.of(server),
        Passages.of(server),
        in_vain=GIVE_UP_AFTER if every_one_is_told else 0,
    )


def api_error(error: StoreError) -> ApiError:
    """What a failure of the store looks like to a client, where no verb said it better."""
    if isinstance(error, FutureRevision):
        return Timeout.too_large_resource_version(error.asked, error.current)
    if isinstance(error, Compacted):
        return Expired("The resourceVersion for the provided list is too old.")
    if isinstance(error, TooLarge):
        return ApiError("etcdserver: request is too large")
    if isinstance(error, Unavailable):
        return ServiceUnavailable(f"the server is currently unable to handle the request: {error}")
    return InternalError(str(error))


GIVE_UP_AFTER = 16
"""So many gets in a row that had to wait tell that all will."""


def _first_step(work: Coroutine[Any, Any, Response]) -> Response | None:
    """What the coroutine returns, when it comes to that without waiting; None when it does not.

    None too when it fails: outside of a task much does. In its task it will fail again, if it is its own fault.
    """
    try:
        work.send(None)
    except StopIteration as done:
        response: Response = done.value
        return response
    except Exception:  # noqa: BLE001  the same request runs again where failures are logged
        return None
    work.close()
    return None


def _is_one_object(info: RequestInfo) -> bool:
    return info.is_resource and info.verb == "get" and not info.subresource


@attrs.define(eq=False)
class Application:
    """A Handler that can also answer what waits for nothing without a task (kcp/wire/http.py says how)."""

    server: Server
    chain: Chain
    endpoints: Endpoints
    passages: Passages
    _in_vain: int = 0
    """Gets in a row that had to wait."""

    def at_once(self, request: Request) -> Response | None:
        """The answer to a get of one object; None for all else and when something has to be waited for.

        Where every read asks the other daemons first, as on PostgreSQL, it soon stops trying.
        """
        if self._in_vain >= GIVE_UP_AFTER:
            return None
        known = self.passages.answer(request)
        if known is not None:
            return known
        params, repeated = parse_query(request.query)
        try:
            info = request_info(request, params)
        except ApiError:
            return None
        if not _is_one_object(info):
            return None
        call = self._call(request, info, params, repeated)
        response = _first_step(self._handle(call, can_wait=False))
        if response is not None:
            self.passages.remember(call, response)
        if "resourceVersion" not in params:
            self._in_vain = self._in_vain + 1 if response is None else 0
        return response

    async def __call__(self, request: Request) -> Response:
        params, repeated = parse_query(request.query)
        try:
            info = request_info(request, params)
        except ApiError as error:
            return error_response(None, error)
        return await self._handle(self._call(request, info, params, repeated))

    def _call(self, request: Request, info: RequestInfo, params: Params, repeated: Repeated) -> Call:
        call = Call(request, info, NOBODY, params=params, repeated=repeated)
        if info.is_resource:
            call.kind = self.server.catalog.by_resource(info.group, info.version, info.resource)
        return call

    async def _handle(self, call: Call, can_wait: bool = True) -> Response:
        try:
            response = await self._answer(call, can_wait)
            return self.chain.leave(call, response)
        finally:
            self.chain.release(call)

    async def _answer(self, call: Call, can_wait: bool) -> Response:
        """The answer, errors included. Only cancellation passes through, and what fails for want of a task."""
        try:
            await self.chain.enter(call)
            limit_s = timeout_s(call, self.server.settings.request_timeout_s)
            work = self._serve(call)
            return await (within(work, limit_s) if can_wait and limit_s is not None else work)
        except ApiError as error:
            return error_response(call, error)
        except DeadlineExceeded:
            return error_response(call, Timeout(DEADLINE_TEXT))
        except StoreError as error:
            return error_response(call, api_error(error))
        except Exception:
            if not can_wait:
                raise
            log.exception("request panicked", method=call.request.method, path=call.request.path)
            return error_response(call, InternalError(PANIC_TEXT))

    def _serve(self, call: Call) -> Awaitable[Response]:
        if call.info.is_resource or path_handler(call) is not None:
            return self._serve_verb(call)
        return self.endpoints.serve(call)

    async def _serve_verb(self, call: Call) -> Response:
        if call.info.is_resource and call.kind is None:
            return self._no_such_resource(call.info)
        if call.kind is not None and call.kind.deprecation:
            call.warn(call.kind.deprecation)
        check_acceptable(call)
        result: Any = await handler_for(call)(self.server, call)
        if isinstance(result, Response):
            return result
        if isinstance(result, WatchResult) and is_websocket(call.request):
            return await over_websocket(self.server, call, result)
        return render(self.server, call, result)

    def _no_such_resource(self, info: RequestInfo) -> Response:
        """A Status where the group version exists, Go's plain text where nothing answers at all."""
        if self.endpoints.discovery.serves(info.group, info.version):
            raise NotFound.path()
        return plain_not_found()
