"""Accept headers to forms, results to bodies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
import pytest

from kcp.api.context import Call
from kcp.api.negotiation import (
    PIECE_BYTES,
    Format,
    _pieces,
    body_media_type,
    check_acceptable,
    choose_format,
    error_response,
    parse_accept,
    plain_frame,
)
from kcp.api.results import ListResult, ObjectResult, StatusResult, WatchResult
from kcp.machinery.document import Document, normal
from kcp.machinery.errors import NotAcceptable, NotFound, TooManyRequests
from kcp.machinery.watch import WatchEvent
from kcp.wire.http import Request
from tests.api import support
from tests.api.support import rendered

PODS = support.CATALOG.by_resource("", "v1", "pods")
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
KUBECTL_GET = f"{TABLE},application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"


def call(target: str = "/api/v1/namespaces/d/pods", accept: str = "", **headers: str) -> Call:
    return support.call("GET", target, accept, **headers)


def pod(name: str, rv: int = 5) -> Document:
    value: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "d", "creationTimestamp": "2026-01-01T00:00:00Z", "uid": "u"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Pending"},
    }
    return Document.at(normal(value), rv, value)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", Format()),
        ("*/*", Format()),
        ("application/json", Format()),
        ("application/yaml", Format("yaml")),
        ("application/vnd.kubernetes.protobuf", Format()),
        ("application/vnd.kubernetes.protobuf,application/json", Format()),
        ("application/json;pretty=1", Format(pretty=True)),
        ("text/html,application/yaml;q=0.5,*/*;q=0.1", Format("yaml")),
        (KUBECTL_GET, Format("json", "Table", "v1")),
        ("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", Format("json", "Table", "v1beta1")),
        ("application/json;as=Nonsense;v=v1;g=meta.k8s.io,application/json", Format()),
        ("application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", Format("json", "PartialObjectMetadata")),
        ("application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,*/*", Format()),
    ],
)  # fmt: skip
def test_accept(accept: str, expected: Format) -> None:
    headers = {"accept": accept} if accept else {}
    assert choose_format(Request("GET", "/", headers=headers), convertible=True) == expected


def test_clauses_are_ordered_by_quality_then_as_written() -> None:
    clauses = parse_accept("*/*, application/json;q=0.2, application/yaml\nimage/png;q=0.9")
    assert [clause.subtype for clause in clauses] == ["yaml", "*", "png", "json"]


@pytest.mark.parametrize(
    ("accept", "streaming", "text"),
    [
        ("text/html", False, "application/json, application/yaml, application/vnd.kubernetes.protobuf"),
        ("application/cbor", False, "application/json, application/yaml, application/vnd.kubernetes.protobuf"),
        ("application/yaml", True, "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"),
    ],
)  # fmt: skip
def test_what_cannot_be_given_is_406(accept: str, streaming: bool, text: str) -> None:
    with pytest.raises(NotAcceptable) as caught:
        choose_format(Request("GET", "/", headers={"accept": accept}), streaming=streaming)
    assert caught.value.message == f"only the following media types are accepted: {text}"


def test_reviews_have_no_table() -> None:
    review = call("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", TABLE)
    with pytest.raises(NotAcceptable):
        check_acceptable(review)
    check_acceptable(call(accept=TABLE))
    check_acceptable(call("/api/v1/namespaces/d/pods/p/log", "text/plain"))


def test_an_object_is_its_stored_bytes() -> None:
    document = pod("a")
    response = rendered(call(), ObjectResult(document, PODS, 201, revision=5))
    assert (response.status, response.body) == (201, document.encoded)
    assert response.header("content-type") == "application/json"
    assert response.header("x-kcp-revision") == "5"


def test_a_list_joins_the_bytes_of_its_objects() -> None:
    assert PODS is not None
    documents = [pod("a"), pod("b")]
    response = rendered(call(), ListResult(PODS, documents, 9, "next", 3))
    value = orjson.loads(response.body)
    assert (value["kind"], value["apiVersion"]) == ("PodList", "v1")
    assert value["metadata"] == {"resourceVersion": "9", "continue": "next", "remainingItemCount": 3}
    assert value["items"] == [document.value for document in documents]
    assert documents[0].encoded in response.body


def test_yaml_and_pretty() -> None:
    yaml = rendered(call(accept="application/yaml"), ObjectResult(pod("a"), PODS))
    assert yaml.header("content-type") == "application/yaml"
    assert yaml.body.startswith(b"apiVersion: v1\nkind: Pod\n")
    for asked in (call("/api/v1/namespaces/d/pods?pretty=true"), call(user_agent="curl/8.5")):
        assert rendered(asked, ObjectResult(pod("a"), PODS)).body.startswith(b'{\n  "apiVersion"')
    plain = call("/api/v1/namespaces/d/pods?pretty=false", user_agent="curl/8.5")
    assert rendered(plain, ObjectResult(pod("a"), PODS)).body.startswith(b'{"apiVersion"')


def test_partial_metadata_of_one_and_of_many() -> None:
    assert PODS is not None
    one = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    many = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    value = orjson.loads(rendered(call(accept=one), ObjectResult(pod("a"), PODS)).body)
    assert (value["kind"], value["apiVersion"]) == ("PartialObjectMetadata", "meta.k8s.io/v1")
    assert value["metadata"]["name"] == "a"
    assert "spec" not in value
    value = orjson.loads(rendered(call(accept=many), ListResult(PODS, [pod("a")], 9)).body)
    assert value["kind"] == "PartialObjectMetadataList"
    assert value["metadata"] == {"resourceVersion": "9"}
    assert value["items"][0]["kind"] == "PartialObjectMetadata"
    with pytest.raises(NotAcceptable, match=r"but the requested object is a list \(\*core\.PodList\)"):
        rendered(call(accept=one), ListResult(PODS, [pod("a")], 9))
    with pytest.raises(NotAcceptable, match=r"but the requested object is not a list \(\*core\.Pod\)"):
        rendered(call(accept=many), ObjectResult(pod("a"), PODS))


def test_in_process_callers_get_the_things_themselves() -> None:
    assert PODS is not None
    inside = call()
    inside.request.identity = inside.user
    document = pod("a")
    response = rendered(inside, ObjectResult(document, PODS, revision=5))
    assert response.document is document
    assert (response.body, response.header("x-kcp-revision")) == (b"", "5")
    page = ListResult(PODS, [document], 5)
    assert rendered(inside, page).document is page
    assert rendered(inside, StatusResult({"kind": "Status"})).document == {"kind": "Status"}
    error = error_response(inside, NotFound.of("", "pods", "x"))
    assert (error.status, error.document["reason"], error.body) == (404, "NotFound", b"")


async def _batches(*events: WatchEvent) -> AsyncIterator[Sequence[WatchEvent]]:
    yield events


async def test_a_watch_is_one_json_line_per_event() -> None:
    assert PODS is not None
    event = WatchEvent("ADDED", pod("a"))
    response = rendered(call("/api/v1/pods?watch=1"), WatchResult(PODS, _batches(event, event)))
    assert response.stream is not None
    chunks = [chunk async for chunk in response.stream]
    assert chunks == [plain_frame(event) * 2]
    assert orjson.loads(chunks[0].splitlines()[0]) == {"type": "ADDED", "object": event.object}
    assert response.header("content-type") == "application/json"


async def test_a_watch_of_tables_has_its_columns_once() -> None:
    assert PODS is not None
    status = Document(orjson.dumps({"kind": "Status", "code": 410}), 0)
    events = [WatchEvent("ADDED", pod("a")), WatchEvent("MODIFIED", pod("a", 6)), WatchEvent("ERROR", status)]
    events.insert(
        2, WatchEvent("BOOKMARK", Document.at(normal({"apiVersion": "v1", "kind": "Pod", "metadata": {}}), 7))
    )
    response = rendered(call("/api/v1/pods?watch=1", KUBECTL_GET), WatchResult(PODS, _batches(*events)))
    assert response.stream is not None
    lines = [orjson.loads(line) async for chunk in response.stream for line in chunk.splitlines()]
    tables = [line["object"] for line in lines]
    assert [table.get("kind") for table in tables] == ["Table", "Table", "Table", "Status"]
    assert tables[0]["columnDefinitions"][0]["name"] == "Name"
    assert tables[1]["columnDefinitions"] is None
    assert [table["metadata"]["resourceVersion"] for table in tables[:3]] == ["5", "6", "7"]


def test_errors_are_statuses_with_retry_after() -> None:
    response = error_response(call(), TooManyRequests("slow down", 7))
    assert response.status == 429
    assert response.header("retry-after") == "7"
    assert orjson.loads(response.body)["details"] == {"retryAfterSeconds": 7}
    yaml = error_response(call(accept="application/yaml"), NotFound.of("", "pods", "x"))
    assert b"reason: NotFound" in yaml.body


def test_content_type_of_bodies() -> None:
    assert body_media_type(call()) == "application/json"
    assert body_media_type(call(content_type="Application/YAML; charset=utf-8")) == "application/yaml"


def test_a_large_batch_of_a_watch_comes_in_pieces() -> None:
    size = PIECE_BYTES // 4
    bodies = [b'"%d%b"' % (number, b"x" * size) for number in range(10)]
    events = [WatchEvent("ADDED", Document(body, number)) for number, body in enumerate(bodies)]
    pieces = list(_pieces(events, plain_frame))
    assert len(pieces) == 3 and max(map(len, pieces)) < 2 * PIECE_BYTES
    assert b"".join(pieces) == b"".join(map(plain_frame, events))
