"""Reading answers: decoded documents from in-process transports, JSON bytes from sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson

from kcp.base.values import frozen
from kcp.machinery.document import Document
from kcp.machinery.errors import ApiError, from_status, go_quote
from kcp.machinery.watch import WatchEvent
from kcp.wire.http import Response

Json = dict[str, Any]

REVISION_HEADER = "x-kcp-revision"
"""The store's revision of a write, also where the answer is a Status. Other servers do not send it."""
MAX_WATCH_LINE_BYTES = 64 * 1024 * 1024

_GENERIC_MESSAGES = {
    400: "the server rejected our request for an unknown reason",
    401: "the server has asked for the client to provide credentials",
    404: "the server could not find the requested resource",
    405: "the server does not allow this method on the requested resource",
    406: "the server was unable to respond with a content type that the client supports",
    409: "the server reported a conflict",
    415: "the server was unable to process the request: unsupported media type",
    422: "the server rejected our request due to an error in our request",
    429: "the server has received too many requests and has asked us to try again later",
    503: "the server is currently unable to handle the request",
    504: "the server was unable to return a response in the time allotted, but may still be processing the request",
}
"""For answers that are no Status. Source: k8s v1.36 apimachinery/pkg/api/errors/errors.go NewGenericServerResponse."""


@frozen
class ListPage:
    """A page of a list at revision `rv`. `items` are shared and read-only in process."""

    items: Sequence[Json]
    rv: int
    continue_: str = ""
    remaining: int | None = None


@frozen
class WriteResult:
    """What a write left behind: the object (a Status where Kubernetes answers with one) and its revision.

    `revision` is the revision of the event; a write that changed nothing gives the object's old one, and a server
    that does not say gives 0.
    """

    object: Json
    revision: int
    status: int = 200


def parse_rv(text: str | None) -> int:
    """A resourceVersion as a number; 0 for none and for servers whose versions are no numbers."""
    return int(text) if text and text.isdecimal() else 0


def rv_of(obj: Json) -> int:
    metadata = obj.get("metadata")
    return parse_rv(metadata.get("resourceVersion")) if metadata else 0


def value_of(response: Response) -> Any:
    """The decoded answer: JSON where it is JSON, else the body's bytes."""
    document = response.document
    if document is not None:
        return document.value if isinstance(document, Document) else document
    content_type = response.header("content-type", "application/json")
    if response.body and "json" in content_type:
        return orjson.loads(response.body)
    return response.body


def raise_for_status(response: Response) -> None:
    """Raises the error of a failed answer."""
    if response.status >= 400:
        raise error_of(response)


def error_of(response: Response) -> ApiError:
    """The error that an answer with a failure status describes, whether its body is a Status or not."""
    try:
        value = value_of(response)
    except ValueError:
        value = response.body
    if isinstance(value, dict) and value.get("kind") == "Status":
        return from_status(value, response.status)
    text = value.decode("utf-8", "replace").strip() if isinstance(value, bytes) else str(value)
    code = response.status
    message = _GENERIC_MESSAGES.get(code) or (text if code == 403 and text else "")
    if not message and code >= 500:
        message = f"an error on the server ({go_quote(text or 'unknown')}) has prevented the request from succeeding"
    retry_after = response.header("retry-after")
    details = {"retryAfterSeconds": int(retry_after)} if retry_after.isdecimal() else {}
    return from_status({"message": message or text or f"unknown ({code})", "details": details}, code)


def page_of(response: Response) -> ListPage:
    """The list in an answer. Raises ValueError when it is no list (a Table, an object)."""
    document = response.document
    if document is not None and hasattr(document, "documents"):
        items = [each.value for each in document.documents]
        return ListPage(items, document.rv, document.continue_token, getattr(document, "remaining", None))
    value = value_of(response)
    if not isinstance(value, dict) or "items" not in value:
        raise ValueError(
            f"expected a list, got {value.get('kind') if isinstance(value, dict) else 'no JSON object'}"
        )
    metadata = value.get("metadata") or {}
    kind, api_version = value.get("kind", "").removesuffix("List"), value.get("apiVersion", "")
    items = value["items"] or []
    for item in items:
        item.setdefault("kind", kind)
        item.setdefault("apiVersion", api_version)
    return ListPage(
        items,
        parse_rv(metadata.get("resourceVersion")),
        metadata.get("continue", ""),
        metadata.get("remainingItemCount"),
    )


def written(response: Response) -> WriteResult:
    """The outcome of a write. Raises the error of a failed one."""
    raise_for_status(response)
    value = value_of(response)
    obj = value if isinstance(value, dict) else {}
    revision = parse_rv(response.header(REVISION_HEADER))
    if not revision and obj.get("kind") != "Status":
        revision = rv_of(obj)
    return WriteResult(obj, revision, response.status)


async def watch_events(response: Response) -> AsyncIterator[Sequence[WatchEvent]]:
    """Batches of events of a watch over a socket: what arrived together. Ends with the stream."""
    assert response.stream is not None, "the answer does not stream"
    rest = b""
    async for chunk in response.stream:
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        if len(rest) > MAX_WATCH_LINE_BYTES:
            raise ValueError(f"a watch event exceeds {MAX_WATCH_LINE_BYTES} bytes")
        batch = [decode_event(line) for line in lines if line]
        if batch:
            yield batch


def decode_event(line: bytes) -> WatchEvent:
    """One line of a watch: `{"type": …, "object": …}`. Keeps the object's own bytes where they can be cut out."""
    message = orjson.loads(line)
    obj = message["object"]
    head = b'{"type":"%b","object":' % message["type"].encode()
    tail = line.rstrip()
    encoded = tail[len(head) : -1] if tail.startswith(head) else orjson.dumps(obj)
    return WatchEvent(message["type"], Document(encoded, rv_of(obj), obj))


def bulk_outcome(result: Json, status: int = 201) -> WriteResult | ApiError:
    """One entry of the answer to many creates or deletes; `status` is what a request of its own would have got."""
    if "status" in result:
        return from_status(result["status"])
    return WriteResult(result["document"].value, result["revision"], status)
