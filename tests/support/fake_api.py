"""A test double of any Kubernetes API server: an in-memory handler that speaks Request and Response.

For tests of the client alone. It keeps objects and a log of events, lists in pages, watches with bookmarks and initial
events, and can be told to misbehave. `in_process` answers with documents, otherwise with JSON bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import parse_qs

import anyio
import attrs
import orjson

from kcp.client.transport import Unreachable
from kcp.machinery.document import Document
from kcp.machinery.errors import AlreadyExists, ApiError, Conflict, Expired, Invalid, NotFound, Timeout
from kcp.machinery.watch import INITIAL_EVENTS_END, WatchEvent, WatchType
from kcp.wire.http import Request, Response

Json = dict[str, Any]


@attrs.frozen
class Row:
    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def prefix(self) -> str:
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    @property
    def resource(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


ROWS = (
    Row("", "v1", "pods", "Pod"),
    Row("", "v1", "configmaps", "ConfigMap"),
    Row("", "v1", "events", "Event"),
    Row("", "v1", "nodes", "Node", False),
    Row("apps", "v1", "deployments", "Deployment"),
    Row("coordination.k8s.io", "v1", "leases", "Lease"),
    Row("events.k8s.io", "v1", "events", "Event"),
)


@attrs.frozen
class Page:
    documents: Sequence[Document]
    rv: int
    continue_token: str = ""
    remaining: int | None = None


@attrs.define(eq=False)
class Watcher:
    """One open watch: where it stands in the log, and what is to be sent out of turn."""

    row: Row
    namespace: str
    rv: int
    extra: deque[WatchEvent] = attrs.field(factory=deque)
    wake: anyio.Event = attrs.field(factory=anyio.Event)
    ended_at: int | None = None


@attrs.define(eq=False)
class FakeApi:
    in_process: bool = True
    watch_list: bool = True
    aggregated: bool = True
    rv: int = 0
    horizon: int = 0
    objects: dict[str, dict[str, Document]] = attrs.field(factory=dict)
    log: list[tuple[str, str, WatchEvent]] = attrs.field(factory=list)
    watchers: list[Watcher] = attrs.field(factory=list)
    requests: list[Request] = attrs.field(factory=list)
    faults: deque[ApiError | Exception] = attrs.field(factory=deque)
    """Raised by the next requests, one each."""
    watch_faults: deque[ApiError | Exception] = attrs.field(factory=deque)
    """Raised by the next watch requests, one each."""

    def put(self, resource: str, obj: Json) -> Json:
        """Write past all checks, as another client would."""
        row = _row(resource)
        known = self.objects.setdefault(resource, {})
        key = _key(obj)
        old = known.get(key)
        self.rv += 1
        metadata = {"uid": f"uid-{self.rv}", **(old.value["metadata"] if old else {}), **obj["metadata"]}
        obj = {"apiVersion": row.api_version, "kind": row.kind, **obj}
        obj["metadata"] = {**metadata, "resourceVersion": str(self.rv)}
        document = known[key] = Document(orjson.dumps(obj), self.rv, obj)
        self._append(resource, obj, "MODIFIED" if old else "ADDED", document)
        return obj

    def remove(self, resource: str, name: str, namespace: str = "") -> Json:
        old = self.objects[resource].pop(f"{namespace}/{name}").value
        self.rv += 1
        obj = {**old, "metadata": {**old["metadata"], "resourceVersion": str(self.rv)}}
        self._append(resource, obj, "DELETED", Document(orjson.dumps(obj), self.rv, obj))
        return obj

    def bookmark(self) -> None:
        """Tell every watcher how far the log is."""
        for watcher in self.watchers:
            watcher.extra.append(_bookmark(self.rv))
            watcher.wake.set()

    def cut_watches(self, error: ApiError | None = None) -> None:
        """End every watch, with an ERROR event if given."""
        for watcher in self.watchers:
            if error is not None:
                status = error.status()
                watcher.extra.append(WatchEvent("ERROR", Document(orjson.dumps(status), 0, status)))
            watcher.ended_at = self.rv
            watcher.wake.set()

    def compact(self) -> None:
        """Forget the past: older resourceVersions get 410."""
        self.horizon = self.rv

    def count(self, what: str) -> int:
        """How many requests had this in their query or path."""
        return sum(what in f"{request.path}?{request.query}" for request in self.requests)

    def _append(self, resource: str, obj: Json, type: WatchType, document: Document) -> None:
        self.log.append((resource, obj["metadata"].get("namespace", ""), WatchEvent(type, document)))
        for watcher in self.watchers:
            watcher.wake.set()

    async def __call__(self, request: Request) -> Response:
        self.requests.append(request)
        parameters = {name: values[-1] for name, values in parse_qs(request.query).items()}
        try:
            if self.faults:
                raise self.faults.popleft()
            return self._serve(request, parameters)
        except Unreachable:
            raise
        except ApiError as error:
            response = self._answer(error.status(), error.code)
            if error.retry_after_s is not None:
                response.headers.append(("retry-after", str(error.retry_after_s)))
            return response

    def _serve(self, request: Request, parameters: dict[str, str]) -> Response:
        if request.path in ("/api", "/apis") or request.path in {row.prefix for row in ROWS}:
            return self._discovery(request.path)
        row, namespace, name, subresource = _parse(request.path)
        if request.method == "GET" and not name:
            if parameters.get("watch") == "true":
                return self._watch(row, namespace, parameters)
            return self._list(row, namespace, parameters)
        if request.method == "GET":
            return self._object(self._current(row, namespace, name))
        del subresource
        return self._change(request, row, namespace, name)

    def _change(self, request: Request, row: Row, namespace: str, name: str) -> Response:
        body = request.document if request.document is not None else orjson.loads(request.body or b"null")
        if request.method == "POST":
            if namespace:
                body = {**body, "metadata": {**body["metadata"], "namespace": namespace}}
            if _key(body) in self.objects.get(row.resource, {}):
                raise AlreadyExists.of(row.group, row.plural, body["metadata"]["name"])
            return self._written(self.put(row.resource, body), 201)
        current = self._current(row, namespace, name).value
        if request.method == "DELETE":
            gone = self.remove(row.resource, name, namespace)
            status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
            answer = self._answer(status, 200)
            answer.headers.append(("x-kcp-revision", gone["metadata"]["resourceVersion"]))
            return answer
        if request.method == "PUT":
            asked = body["metadata"].get("resourceVersion")
            if asked and asked != current["metadata"]["resourceVersion"]:
                raise Conflict.of(row.group, row.plural, name)
            return self._written(self.put(row.resource, body), 200)
        return self._written(self.put(row.resource, _merged(current, body)), 200)

    def _current(self, row: Row, namespace: str, name: str) -> Document:
        document = self.objects.get(row.resource, {}).get(f"{namespace}/{name}")
        if document is None:
            raise NotFound.of(row.group, row.plural, name)
        return document

    def _list(self, row: Row, namespace: str, parameters: dict[str, str]) -> Response:
        version = parameters.get("resourceVersion", "")
        if version.isdecimal() and int(version) > self.rv:
            raise _too_large()
        documents = self._documents(row, namespace)
        start, limit = int(parameters.get("continue", "0")), int(parameters.get("limit", "0"))
        end = start + limit if limit else len(documents)
        page = Page(documents[start:end], self.rv, str(end) if end < len(documents) else "")
        if self.in_process:
            return Response(200, document=page)
        items = [document.value for document in page.documents]
        metadata = {"resourceVersion": str(self.rv), "continue": page.continue_token}
        value = {
            "apiVersion": row.api_version,
            "kind": f"{row.kind}List",
            "metadata": metadata,
            "items": items,
        }
        return self._answer(value, 200)

    def _documents(self, row: Row, namespace: str) -> list[Document]:
        known = self.objects.get(row.resource, {})
        return [known[key] for key in sorted(known) if not namespace or key.startswith(f"{namespace}/")]

    def _watch(self, row: Row, namespace: str, parameters: dict[str, str]) -> Response:
        if self.watch_faults:
            raise self.watch_faults.popleft()
        version = parameters.get("resourceVersion", "")
        initial = parameters.get("sendInitialEvents") == "true"
        if initial and not self.watch_list:
            raise Invalid(
                "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
            )
        watcher = Watcher(row, namespace, self.rv)
        if version not in ("", "0"):
            if int(version) < self.horizon:
                raise Expired("too old resource version")
            if not initial:
                watcher.rv = int(version)
        elif not initial:
            watcher.extra.extend(WatchEvent("ADDED", each) for each in self._documents(row, namespace))
        if initial:
            watcher.extra.extend(WatchEvent("ADDED", each) for each in self._documents(row, namespace))
            watcher.extra.append(_bookmark(self.rv, {INITIAL_EVENTS_END: "true"}))
        self.watchers.append(watcher)
        events = self._follow(watcher)
        return Response(200, events=events) if self.in_process else Response(200, stream=_framed(events))

    async def _follow(self, watcher: Watcher) -> AsyncIterator[Sequence[WatchEvent]]:
        try:
            while True:
                watcher.wake = anyio.Event()
                batch = self._pending(watcher)
                if batch:
                    yield batch
                elif watcher.ended_at is not None:
                    return
                else:
                    await watcher.wake.wait()
        finally:
            self.watchers.remove(watcher)

    def _pending(self, watcher: Watcher) -> list[WatchEvent]:
        until = self.rv if watcher.ended_at is None else watcher.ended_at
        events = [
            event
            for resource, namespace, event in self.log
            if resource == watcher.row.resource
            and watcher.rv < event.document.rv <= until
            and (not watcher.namespace or namespace == watcher.namespace)
        ]
        watcher.rv = self.rv
        extra, watcher.extra = list(watcher.extra), deque()
        first = [event for event in extra if event.type == "ADDED" or _ends_initial(event)]
        return [*first, *events, *(event for event in extra if event not in first)]

    def _written(self, obj: Json, status: int) -> Response:
        response = self._answer(obj, status)
        response.headers.append(("x-kcp-revision", obj["metadata"]["resourceVersion"]))
        return response

    def _object(self, document: Document) -> Response:
        if self.in_process:
            return Response(200, document=document)
        return self._answer(document.value, 200)

    def _answer(self, value: Json, status: int) -> Response:
        if self.in_process:
            return Response(status, document=value)
        return Response(status, [("content-type", "application/json")], orjson.dumps(value))

    def _discovery(self, path: str) -> Response:
        if self.aggregated and path in ("/api", "/apis"):
            return self._answer(_aggregated(path), 200)
        if path == "/api":
            return self._answer({"kind": "APIVersions", "versions": ["v1"]}, 200)
        if path == "/apis":
            groups = dict.fromkeys((row.group, row.version) for row in ROWS if row.group)
            rows = [
                {"name": g, "versions": [{"version": v}], "preferredVersion": {"version": v}}
                for g, v in groups
            ]
            return self._answer({"kind": "APIGroupList", "groups": rows}, 200)
        resources = [
            {"name": row.plural, "kind": row.kind, "namespaced": row.namespaced, "verbs": ["get", "list"]}
            for row in ROWS
            if row.prefix == path
        ]
        return self._answer({"kind": "APIResourceList", "resources": resources}, 200)


def _aggregated(path: str) -> Json:
    groups: dict[str, Json] = {}
    for row in ROWS:
        if (path == "/api") == bool(row.group):
            continue
        group = groups.setdefault(
            row.group,
            {"metadata": {"name": row.group}, "versions": [{"version": row.version, "resources": []}]},
        )
        group["versions"][0]["resources"].append(
            {
                "resource": row.plural,
                "responseKind": {"kind": row.kind},
                "scope": "Namespaced" if row.namespaced else "Cluster",
                "verbs": ["get", "list"],
            }
        )
    return {"kind": "APIGroupDiscoveryList", "items": list(groups.values())}


def _too_large() -> ApiError:
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return Timeout("Too large resource version", details={"causes": [cause]})


def _row(resource: str) -> Row:
    return next(row for row in ROWS if row.resource == resource)


def _key(obj: Json) -> str:
    return f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"


def _parse(path: str) -> tuple[Row, str, str, str]:
    for row in ROWS:
        if path.startswith(f"{row.prefix}/"):
            rest = path[len(row.prefix) + 1 :].split("/")
            namespace = ""
            if rest[0] == "namespaces" and len(rest) > 2:
                namespace, rest = rest[1], rest[2:]
            if rest[0] == row.plural:
                return row, namespace, rest[1] if len(rest) > 1 else "", rest[2] if len(rest) > 2 else ""
    raise NotFound.path()


def _merged(value: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(value) if isinstance(value, dict) else {}
    for key, change in patch.items():
        if change is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), change)
    return merged


def _bookmark(rv: int, annotations: dict[str, str] | None = None) -> WatchEvent:
    metadata: Json = {"resourceVersion": str(rv), **({"annotations": annotations} if annotations else {})}
    value = {"kind": "Bookmark", "apiVersion": "v1", "metadata": metadata}
    return WatchEvent("BOOKMARK", Document(orjson.dumps(value), rv, value))


def _ends_initial(event: WatchEvent) -> bool:
    return event.type == "BOOKMARK" and "annotations" in event.object["metadata"]


async def _framed(events: AsyncIterator[Sequence[WatchEvent]]) -> AsyncIterator[bytes]:
    async for batch in events:
        for event in batch:
            yield b'{"type":"%b","object":%b}\n' % (event.type.encode(), event.document.encoded)
