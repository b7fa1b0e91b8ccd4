"""From a Result to a Response: Accept and Content-Type, JSON, YAML, lists by joining bytes, watches by framing them.

Protobuf is decoded when it comes in and accepted when it is asked for, but answers are JSON. In-process callers get
the documents themselves, without a codec.
Source: k8s v1.36 apiserver/pkg/endpoints/handlers/negotiation, apiserver/pkg/endpoints/handlers/response.go.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Literal

import orjson

from kcp.api import tables
from kcp.api.context import Call, Server
from kcp.api.results import ListResult, ObjectResult, Result, StatusResult, WatchResult
from kcp.base.values import frozen
from kcp.machinery.codec.yaml import encode_yaml
from kcp.machinery.document import Document
from kcp.machinery.errors import ApiError, BadRequest, NotAcceptable
from kcp.machinery.watch import WatchEvent
from kcp.wire import websocket
from kcp.wire.http import Request, Response
from kcp.wire.tunnel import TunnelClosed

Media = Literal["json", "yaml"]

JSON_TYPE, YAML_TYPE = "application/json", "application/yaml"
ACCEPTED = (JSON_TYPE, YAML_TYPE, "application/vnd.kubernetes.protobuf")
STREAMED = ("application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch")
REVISION_HEADER = "x-kcp-revision"
"""The store's revision of a write, so that clients can wait for their own writes."""
PIECE_BYTES = 256 * 1024
"""What a watch hands to its connection at once, at most about."""

_CONTENT_TYPES = {"json": JSON_TYPE, "yaml": YAML_TYPE}
_CONVERTED = ("Table", "PartialObjectMetadata", "PartialObjectMetadataList")
_STREAMS = frozenset({"attach", "exec", "log", "portforward", "proxy"})
_HUMAN_AGENTS = ("curl", "Wget", "Mozilla/5.0")


@frozen
class Clause:
    """One entry of an Accept header, parameters lower-case by name."""

    type: str
    subtype: str
    quality: float
    params: tuple[tuple[str, str], ...] = ()

    def param(self, name: str) -> str:
        return next((value for key, value in self.params if key == name), "")


@frozen
class Format:
    """How to write an answer. `convert` is the kind asked for with `as=`, `version` its `v=`."""

    media: Media = "json"
    convert: str = ""
    version: str = "v1"
    pretty: bool = False


@lru_cache(maxsize=512)
def parse_accept(header: str) -> tuple[Clause, ...]:
    """The clauses, most wanted first; equal ones in the order written, `*/*` behind all others of its quality."""
    clauses = [_clause(part) for part in header.replace("\n", ",").split(",") if part.strip()]
    return tuple(sorted(clauses, key=lambda c: (-c.quality, (c.type == "*") + (c.subtype == "*"))))


def _clause(part: str) -> Clause:
    media, *pairs = part.split(";")
    kind, _, subtype = media.strip().partition("/")
    params = [tuple(pair.strip().partition("=")[::2]) for pair in pairs]
    named = {key.strip().lower(): value.strip().strip('"') for key, value in params}
    try:
        quality = float(named.pop("q", "1"))
    except ValueError:
        quality = 1.0
    return Clause(kind.lower(), (subtype or "*").lower(), quality, tuple(named.items()))


@lru_cache(maxsize=512)
def _choose(header: str, convertible: bool, streaming: bool) -> Format | None:
    if not header:
        return Format()
    for clause in parse_accept(header):
        for accepted in ACCEPTED:
            chosen = _format(clause, accepted, convertible, streaming)
            if chosen is not None:
                return chosen
    return None


def _format(clause: Clause, accepted: str, convertible: bool, streaming: bool) -> Format | None:
    kind, subtype = accepted.split("/")
    if clause.type not in (kind, "*") or clause.subtype not in (subtype, "*"):
        return None
    stream = clause.param("stream")
    if (stream and stream != "watch") or clause.param("sv"):
        return None
    if (stream or streaming) and accepted == YAML_TYPE:
        return None
    pretty = clause.param("pretty") == "1"
    media: Media = "yaml" if accepted == YAML_TYPE else "json"
    if not any(clause.param(name) for name in ("as", "g", "v")):
        return Format(media, pretty=pretty)
    if not convertible or not _converts(clause, accepted):
        return None
    return Format(media, clause.param("as"), clause.param("v"), pretty)


def _converts(clause: Clause, accepted: str) -> bool:
    """Whether `as=…;g=meta.k8s.io;v=…` names something that exists. Tables have no protobuf form."""
    kind = clause.param("as")
    if clause.param("g") != "meta.k8s.io" or clause.param("v") not in ("v1", "v1beta1"):
        return False
    return kind in _CONVERTED and not (kind == "Table" and accepted == ACCEPTED[2])


def choose_format(request: Request, *, convertible: bool = False, streaming: bool = False) -> Format:
    """The best format that the client accepts. Raises NotAcceptable with the types there are."""
    chosen = _choose(request.header("accept"), convertible, streaming)
    if chosen is None:
        types = ", ".join(STREAMED if streaming else ACCEPTED)
        raise NotAcceptable(f"only the following media types are accepted: {types}")
    return chosen


def check_acceptable(call: Call) -> None:
    """Refuse a hopeless Accept header before anything is written. Raises NotAcceptable.

    Not for subresources that stream whatever they like.
    """
    if call.request.identity is None and call.info.subresource not in _STREAMS:
        choose_format(call.request, convertible=_has_tables(call), streaming=call.info.verb == "watch")


def body_media_type(call: Call) -> str:
    """The media type of the request body, without parameters; JSON when the client does not say."""
    return media_type(call.request.header("content-type"))


@lru_cache(maxsize=64)
def media_type(header: str) -> str:
    return header.partition(";")[0].strip().lower() or JSON_TYPE


def is_pretty(call: Call) -> bool:
    """Whether a human reads: `?pretty=true`, or a browser or curl that does not say otherwise."""
    asked = call.params.get("pretty")
    if asked:
        return asked in ("1", "t", "T", "TRUE", "true", "True")
    return call.request.header("user-agent").startswith(_HUMAN_AGENTS)


def render(server: Server, call: Call, result: Result) -> Response:
    """The Response for a Result. Raises NotAcceptable or BadRequest when the client asks for an impossible form."""
    if call.request.identity is not None:
        return _in_process(result)
    if isinstance(result, WatchResult):
        return _watch(server, call, result)
    convertible = not isinstance(result, StatusResult) and _has_tables(call)
    form = choose_format(call.request, convertible=convertible)
    if isinstance(result, ObjectResult):
        response = Response(result.status, [], _object_body(server, call, result, form))
    elif isinstance(result, ListResult):
        response = _list_response(_list_parts(server, call, result, form))
    else:
        response = Response(result.status, [], orjson.dumps(result.value))
    _finish(call, response, form)
    if not isinstance(result, ListResult) and result.revision:
        response.headers.append((REVISION_HEADER, str(result.revision)))
    return response


def _has_tables(call: Call) -> bool:
    return call.kind is not None and "get" in call.kind.verbs


def _in_process(result: Result) -> Response:
    if isinstance(result, ObjectResult):
        headers = [(REVISION_HEADER, str(result.revision))] if result.revision else []
        return Response(result.status, headers, document=result.document)
    if isinstance(result, ListResult):
        return Response(200, document=result)
    if isinstance(result, WatchResult):
        return Response(200, events=result.events)
    headers = [(REVISION_HEADER, str(result.revision))] if result.revision else []
    return Response(result.status, headers, document=result.value)


def _finish(call: Call, response: Response, form: Format) -> None:
    """Turn the JSON body into the form asked for, and say what it is."""
    if form.media == "yaml":
        response.body, response.parts = encode_yaml(orjson.loads(response.whole)), ()
    elif form.pretty or is_pretty(call):
        response.body = orjson.dumps(orjson.loads(response.whole), option=orjson.OPT_INDENT_2) + b"\n"
        response.parts = ()
    response.headers.append(("content-type", _CONTENT_TYPES[form.media]))


def _object_body(server: Server, call: Call, result: ObjectResult, form: Format) -> bytes:
    document = result.document
    if not form.convert or result.document.value.get("kind") == "Status":
        return document.encoded
    if form.convert == "PartialObjectMetadataList":
        raise NotAcceptable(
            "you requested PartialObjectMetadataList, but the requested object is not a list "
            f"({_go_type(call)})"
        )
    if form.convert == "PartialObjectMetadata":
        return tables.partial_metadata(document, form.version)
    kind = result.kind or call.kind
    assert kind is not None, "an object without a kind has no columns"
    table = tables.TableWriter(kind, form.version, tables.include_object(call.params), server.clock.now())
    return table.whole([document], tables.metadata(str(document.rv)))


def _list_response(parts: list[bytes]) -> Response:
    """A long list is left in parts: to put it together would touch each byte, and fresh memory for it, once more."""
    if sum(map(len, parts)) > PIECE_BYTES:
        return Response(200, [], parts=parts)
    return Response(200, [], b"".join(parts))


def _items(head: bytes, items: Sequence[bytes]) -> list[bytes]:
    """`head`, the items with commas between, and the end of the list."""
    parts = [b","] * (2 * len(items) + 1)
    parts[0], parts[1::2] = head, items
    if not items:
        return [head, b"]}"]
    parts[-1] = b"]}"
    return parts


def _list_parts(server: Server, call: Call, result: ListResult, form: Format) -> list[bytes]:
    head = tables.metadata(str(result.rv), result.continue_token, result.remaining)
    if not form.convert:
        kind = result.kind
        start = b'{"kind":"%bList","apiVersion":"%b","metadata":%b,"items":[' % (
            kind.kind.encode(),
            kind.api_version.encode(),
            head,
        )
        return _items(start, [document.encoded for document in result.documents])
    if form.convert == "PartialObjectMetadata":
        raise NotAcceptable(
            f"you requested PartialObjectMetadata, but the requested object is a list ({_go_type(call)}List)"
        )
    if form.convert == "PartialObjectMetadataList":
        items = [tables.partial_metadata(document, form.version) for document in result.documents]
        start = (
            b'{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/%b","metadata":%b,"items":['
            % (
                form.version.encode(),
                head,
            )
        )
        return _items(start, items)
    table = tables.TableWriter(
        result.kind, form.version, tables.include_object(call.params), server.clock.now()
    )
    return [table.whole(result.documents, head)]


def _go_type(call: Call) -> str:
    """How Go prints the type in its 406 texts: `*core.Pod`, `*unstructured.Unstructured`."""
    kind = call.kind
    if kind is None or kind.custom:
        return "*unstructured.Unstructured"
    group = kind.group.split(".")[0] or "core"
    return f"*{group}.{kind.kind}"


def _watch(server: Server, call: Call, result: WatchResult) -> Response:
    form = choose_format(call.request, convertible=_has_tables(call), streaming=True)
    encode = _event_encoder(server, call, result, form)
    return Response(200, [("content-type", JSON_TYPE)], stream=_frames(result, encode))


Encode = Callable[[WatchEvent], bytes]
"""From a watch event to its JSON line."""


def _event_encoder(server: Server, call: Call, result: WatchResult, form: Format) -> Encode:
    if not form.convert:
        return plain_frame
    if form.convert == "Table":
        now = server.clock.now
        writer = tables.TableWriter(result.kind, form.version, tables.include_object(call.params), now())

        def table_frame(event: WatchEvent) -> bytes:
            if event.type == "ERROR":
                return plain_frame(event)
            writer.now = now()
            head = tables.metadata(str(event.document.rv))
            return _frame(event.type, writer.whole([event.document], head, blank=event.type == "BOOKMARK"))

        return table_frame
    version = form.version

    def partial_frame(event: WatchEvent) -> bytes:
        if event.type == "ERROR":
            return plain_frame(event)
        return _frame(event.type, tables.partial_metadata(event.document, version))

    return partial_frame


def _frame(kind: str, body: bytes) -> bytes:
    return b'{"type":"%b","object":%b}\n' % (kind.encode(), body)


def plain_frame(event: WatchEvent) -> bytes:
    """One line of a watch. Cost: one concatenation; the object's bytes are those of the store."""
    return b'{"type":"%b","object":%b}\n' % (event.type.encode(), event.document.encoded)


async def _frames(result: WatchResult, encode: Encode) -> AsyncIterator[bytes]:
    try:
        async for batch in result.events:
            if len(batch) == 1:
                yield encode(batch[0])
                continue
            for piece in _pieces(batch, encode):
                yield piece
    finally:
        await _close(result.events)


def _pieces(batch: Sequence[WatchEvent], encode: Encode) -> Iterator[bytes]:
    """The batch's lines in pieces of about PIECE_BYTES: a peer that stopped reading has at most one of them waiting."""
    lines: list[bytes] = []
    size = 0
    for event in batch:
        line = encode(event)
        lines.append(line)
        size += len(line)
        if size >= PIECE_BYTES:
            yield b"".join(lines)
            lines, size = [], 0
    if lines:
        yield b"".join(lines)


async def _close(events: AsyncIterator[Sequence[WatchEvent]]) -> None:
    close = getattr(events, "aclose", None)
    if close is not None:
        await close()


async def over_websocket(server: Server, call: Call, result: WatchResult) -> Response:
    """Serve a watch as one text message per event, for clients that asked to become a WebSocket.

    Returns when the watch ended or the client has gone; the connection was taken over, so the answer is not written.
    """
    form = choose_format(call.request, convertible=_has_tables(call), streaming=True)
    encode = _event_encoder(server, call, result, form)
    try:
        socket = websocket.accept(call.request, cancel_when_lost=True)
        async for batch in result.events:
            for event in batch:
                await socket.send(encode(event).decode())
        await socket.close()
    except websocket.HandshakeError as error:
        raise BadRequest(str(error)) from None
    except TunnelClosed:
        pass
    finally:
        await _close(result.events)
    return Response(101)


def error_response(call: Call | None, error: ApiError) -> Response:
    """The Status of an error, as YAML for clients that want that alone, else as JSON."""
    status = error.status()
    headers: list[tuple[str, str]] = []
    if error.retry_after_s:
        headers.append(("retry-after", str(error.retry_after_s)))
    code = status["code"]
    if call is not None and call.request.identity is not None:
        return Response(code, headers, document=status)
    response = Response(code, headers, orjson.dumps(status))
    form = Format() if call is None else _choose(call.request.header("accept"), False, False) or Format()
    if call is None:
        response.headers.append(("content-type", JSON_TYPE))
    else:
        _finish(call, response, form)
    return response


def document_of(value: dict[str, Any]) -> Document:
    """A Document for something that is not stored."""
    return Document(orjson.dumps(value), 0, value)
