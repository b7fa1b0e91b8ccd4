"""The client: verbs on group resources, the same in-process and over HTTPS.

    client = Client(transport)
    pod = await client.get("pods", "web", "default")
    done = await client.patch("deployments.apps", "web", {"spec": {"replicas": 3}}, "merge", "default")
    done.revision      # informers that passed it have seen the write

In-process answers are the server's own decoded objects: shared and read-only. Failures are raised as the classes of
kcp.machinery.errors. A write may carry a `cause` (the decision that made it) and a `fence` (the leader's claim); both
mean something only to a server in this process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol
from urllib.parse import urlencode

import anyio
import orjson

from kcp.apis.kind import Catalog
from kcp.client import answers
from kcp.client.answers import ListPage, WriteResult
from kcp.client.mapper import CatalogMapper, DiscoveryMapper, Mapper
from kcp.client.transport import Transport
from kcp.machinery.errors import ApiError, from_status
from kcp.machinery.watch import WatchEvent
from kcp.wire.http import Request, Response

Json = dict[str, Any]
PatchType = Literal["merge", "json", "strategic", "apply"]

TIMEOUT_S = 60.0
PAGE_SIZE = 500
CREATES_PATH, DELETES_PATH = "/kcp/v1/creates", "/kcp/v1/deletes"
MAX_RETRIES = 10
"""How often a request is sent again when the server asks for it with Retry-After. Source: client-go/rest/request.go."""

_JSON = "application/json"
_METADATA_ONLY = {
    "object": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
    "list": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
}
_PATCH_TYPES: Mapping[str, str] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


class Deletion(Protocol):
    """One of many deletes; empty `uid`, `rv` and `propagation` ask for nothing, as with `Client.delete`."""

    @property
    def resource(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def uid(self) -> str: ...
    @property
    def rv(self) -> str: ...
    @property
    def propagation(self) -> str: ...
    @property
    def grace_s(self) -> int | None: ...


class Client:
    """Requests under one identity. Safe for any number of tasks.

    `fence` is asked for the claim of every write that does not bring its own.
    """

    def __init__(
        self,
        transport: Transport,
        mapper: Mapper | Catalog | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        fence: Callable[[], Any] | None = None,
    ) -> None:
        self.transport = transport
        self.mapper: Mapper = (
            CatalogMapper(mapper) if isinstance(mapper, Catalog) else mapper or DiscoveryMapper(transport)
        )
        self.timeout_s = timeout_s
        self.fence = fence

    async def get(
        self,
        resource: str,
        name: str,
        namespace: str = "",
        *,
        subresource: str = "",
        resource_version: str = "",
    ) -> Json:
        mapping = await self.mapper.resolve(resource)
        query = _query(resourceVersion=resource_version)
        response = await self._read(mapping.path(namespace, name, subresource), query)
        return answers.value_of(response)  # type: ignore[no-any-return]

    async def list(
        self,
        resource: str,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_: str = "",
        resource_version: str = "",
        resource_version_match: str = "",
        metadata_only: bool = False,
    ) -> ListPage:
        """One page (everything, without `limit`). Empty `namespace` means all namespaces."""
        mapping = await self.mapper.resolve(resource)
        query = _query(
            labelSelector=label_selector,
            fieldSelector=field_selector,
            limit=str(limit) if limit else "",
            resourceVersion=resource_version,
            resourceVersionMatch=resource_version_match,
            **{"continue": continue_},
        )
        accept = f"{_METADATA_ONLY['list']},{_JSON}" if metadata_only else _JSON
        return answers.page_of(await self._read(mapping.path(namespace), query, accept))

    async def list_all(self, resource: str, namespace: str = "", **options: Any) -> ListPage:
        """The whole list, in pages of `PAGE_SIZE`, at the revision of the first page. Options as `list`."""
        page = await self.list(resource, namespace, limit=PAGE_SIZE, **options)
        items = list(page.items)
        while page.continue_:
            page = await self.list(resource, namespace, limit=PAGE_SIZE, continue_=page.continue_, **options)
            items.extend(page.items)
        return ListPage(items, page.rv)

    async def open_watch(
        self,
        resource: str,
        namespace: str = "",
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        timeout_s: float = 0,
        bookmarks: bool = True,
        send_initial_events: bool = False,
        metadata_only: bool = False,
    ) -> AsyncIterator[Sequence[WatchEvent]]:
        """Start a watch; returns once the server accepted it. Close the iterator when done with it.

        `send_initial_events` asks for the present objects first, then a bookmark with the annotation
        `k8s.io/initial-events-end`. `timeout_s` is how long the server keeps the watch open (0: it decides).
        """
        mapping = await self.mapper.resolve(resource)
        query = _query(
            watch="true",
            labelSelector=label_selector,
            fieldSelector=field_selector,
            resourceVersion=resource_version,
            allowWatchBookmarks="true" if bookmarks else "",
            timeoutSeconds=str(int(timeout_s)) if timeout_s else "",
            sendInitialEvents="true" if send_initial_events else "",
            resourceVersionMatch="NotOlderThan" if send_initial_events else "",
        )
        accept = f"{_METADATA_ONLY['object']},{_JSON}" if metadata_only else _JSON
        response = await self._read(mapping.path(namespace), query, accept)
        return response.events if response.events is not None else answers.watch_events(response)

    async def watch(
        self, resource: str, namespace: str = "", **options: Any
    ) -> AsyncIterator[Sequence[WatchEvent]]:
        """Batches of events in order, until the watch ends. Options as `open_watch`. ERROR events are raised."""
        batches = await self.open_watch(resource, namespace, **options)
        try:
            async for batch in batches:
                for event in batch:
                    if event.type == "ERROR":
                        raise from_status(event.object)
                yield batch
        finally:
            close = getattr(batches, "aclose", None)
            if close is not None:
                await close()

    async def create(
        self,
        resource: str,
        obj: Json,
        namespace: str = "",
        *,
        name: str = "",
        subresource: str = "",
        field_manager: str = "",
        field_validation: str = "",
        dry_run: bool = False,
        cause: Any = None,
        fence: Any = None,
    ) -> WriteResult:
        """`name` and `subresource` are for creates below an object: bindings, evictions, tokens."""
        mapping = await self.mapper.resolve(resource)
        path = mapping.path(namespace or _namespace(obj), name, subresource)
        query = _write_query(field_manager, dry_run, field_validation)
        return await self._write("POST", path, query, obj, _JSON, cause, fence)

    async def create_all(
        self, creates: Sequence[tuple[str, Json, str]], *, cause: Any = None, fence: Any = None
    ) -> Sequence[WriteResult | ApiError]:
        """Many creates, (resource, object, namespace) each, with an outcome each, in order.

        One request to a server in this process; elsewhere one after the other.
        """
        if not self.transport.in_process:
            return [await self._create_one(each, cause, fence) for each in creates]
        wanted = [
            (resource, {"namespace": namespace or _namespace(obj), "object": obj})
            for resource, obj, namespace in creates
        ]
        return await self._together(CREATES_PATH, wanted, 201, cause, fence)

    async def _together(
        self, path: str, wanted: Sequence[tuple[str, Json]], status: int, cause: Any, fence: Any
    ) -> Sequence[WriteResult | ApiError]:
        """One request for all items whose resource is served; the others have their outcome without it."""
        items: list[Json] = []
        outcomes: list[WriteResult | ApiError | None] = []
        for resource, item in wanted:
            try:
                mapping = await self.mapper.resolve(resource)
            except ApiError as error:
                outcomes.append(error)
                continue
            place = {"group": mapping.group, "version": mapping.version, "plural": mapping.plural}
            items.append({**place, **item})
            outcomes.append(None)
        results: Iterator[Json] = iter(())
        if items:
            written = await self.request("POST", path, body={"items": items}, cause=cause, fence=fence)
            results = iter(written.object["results"])
        return [answers.bulk_outcome(next(results), status) if each is None else each for each in outcomes]

    async def _create_one(
        self, create: tuple[str, Json, str], cause: Any, fence: Any
    ) -> WriteResult | ApiError:
        resource, obj, namespace = create
        try:
            return await self.create(resource, obj, namespace, cause=cause, fence=fence)
        except ApiError as error:
            return error

    async def update(
        self,
        resource: str,
        obj: Json,
        *,
        subresource: str = "",
        field_manager: str = "",
        field_validation: str = "",
        dry_run: bool = False,
        cause: Any = None,
        fence: Any = None,
    ) -> WriteResult:
        """Replace the object; its resourceVersion, where it has one, is the precondition."""
        mapping = await self.mapper.resolve(resource)
        path = mapping.path(_namespace(obj), obj["metadata"]["name"], subresource)
        query = _write_query(field_manager, dry_run, field_validation)
        return await self._write("PUT", path, query, obj, _JSON, cause, fence)

    async def update_status(self, resource: str, obj: Json, **options: Any) -> WriteResult:
        return await self.update(resource, obj, subresource="status", **options)

    async def patch(
        self,
        resource: str,
        name: str,
        patch: Any,
        type: PatchType = "merge",
        namespace: str = "",
        *,
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
        field_validation: str = "",
        dry_run: bool = False,
        cause: Any = None,
        fence: Any = None,
    ) -> WriteResult:
        mapping = await self.mapper.resolve(resource)
        query = _write_query(field_manager, dry_run, field_validation, force=force)
        path = mapping.path(namespace, name, subresource)
        return await self._write("PATCH", path, query, patch, _PATCH_TYPES[type], cause, fence)

    async def apply(
        self, resource: str, obj: Json, field_manager: str, *, force: bool = False, **options: Any
    ) -> WriteResult:
        """Server-side apply of the fields in `obj`. Raises Conflict with a FieldManagerConflict cause per field."""
        name, namespace = obj["metadata"]["name"], _namespace(obj)
        return await self.patch(
            resource, name, obj, "apply", namespace, field_manager=field_manager, force=force, **options
        )

    async def delete(
        self,
        resource: str,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        rv: str = "",
        propagation: str = "",
        grace_s: int | None = None,
        dry_run: bool = False,
        cause: Any = None,
        fence: Any = None,
    ) -> WriteResult:
        """`uid` and `rv` are preconditions. The result's object is what the server answered: the object or a Status."""
        mapping = await self.mapper.resolve(resource)
        body = _delete_options(uid, rv, propagation, grace_s, dry_run)
        return await self._write("DELETE", mapping.path(namespace, name), "", body, _JSON, cause, fence)

    async def delete_all(
        self, deletes: Sequence[Deletion], *, cause: Any = None, fence: Any = None
    ) -> Sequence[WriteResult | ApiError]:
        """Many deletes with an outcome each, in order; the results' objects are what they were or became.

        One request to a server in this process; elsewhere one after the other.
        """
        if not self.transport.in_process:
            return [await self._delete_one(each, cause, fence) for each in deletes]
        wanted = [
            (
                each.resource,
                {
                    "namespace": each.namespace,
                    "name": each.name,
                    "options": _delete_options(each.uid, each.rv, each.propagation, each.grace_s, False),
                },
            )
            for each in deletes
        ]
        return await self._together(DELETES_PATH, wanted, 200, cause, fence)

    async def _delete_one(self, each: Deletion, cause: Any, fence: Any) -> WriteResult | ApiError:
        try:
            return await self.delete(
                each.resource,
                each.name,
                each.namespace,
                uid=each.uid,
                rv=each.rv,
                propagation=each.propagation,
                grace_s=each.grace_s,
                cause=cause,
                fence=fence,
            )
        except ApiError as error:
            return error

    async def delete_collection(
        self,
        resource: str,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        propagation: str = "",
        grace_s: int | None = None,
        cause: Any = None,
        fence: Any = None,
    ) -> WriteResult:
        mapping = await self.mapper.resolve(resource)
        query = _query(labelSelector=label_selector, fieldSelector=field_selector)
        body = _delete_options("", "", propagation, grace_s, False)
        return await self._write("DELETE", mapping.path(namespace), query, body, _JSON, cause, fence)

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: str = "",
        content_type: str = _JSON,
        cause: Any = None,
        fence: Any = None,
    ) -> WriteResult:
        """A raw call, for what has no verb here (finalize, approval, reviews, version). `path` is percent-decoded."""
        return await self._write(method, path, query, body, content_type, cause, fence)

    async def close(self) -> None:
        await self.transport.close()

    async def _read(self, path: str, query: str, accept: str = _JSON) -> Response:
        response = await self._send(Request("GET", path, query, {"accept": accept}))
        answers.raise_for_status(response)
        return response

    async def _write(
        self, method: str, path: str, query: str, body: Any, content_type: str, cause: Any, fence: Any
    ) -> WriteResult:
        headers = {"accept": _JSON}
        request = Request(method, path, query, headers, cause=cause)
        if body is not None:
            headers["content-type"] = content_type
            if self.transport.in_process:
                request.document = body
            else:
                request.body = orjson.dumps(body)
        if fence is not None:
            request.fence = fence
        elif self.fence is not None and method != "GET":
            request.fence = self.fence()
        return answers.written(await self._send(request))

    async def _send(self, request: Request) -> Response:
        for _ in range(MAX_RETRIES):
            response = await self.transport.request(request, self.timeout_s)
            if response.status != 429 and response.status < 500:
                return response
            wait = response.header("retry-after")
            if not wait.isdecimal():
                return response
            await anyio.sleep(int(wait))
        return await self.transport.request(request, self.timeout_s)


def _namespace(obj: Json) -> str:
    namespace = obj["metadata"].get("namespace", "") if "metadata" in obj else ""
    return namespace if isinstance(namespace, str) else ""


def _query(**parameters: str) -> str:
    """A query string of the parameters that have a value."""
    given = {name: value for name, value in parameters.items() if value}
    return urlencode(given) if given else ""


def _write_query(field_manager: str, dry_run: bool, field_validation: str, *, force: bool = False) -> str:
    if not (field_manager or dry_run or field_validation or force):
        return ""
    return _query(
        fieldManager=field_manager,
        dryRun="All" if dry_run else "",
        fieldValidation=field_validation,
        force="true" if force else "",
    )


def _delete_options(uid: str, rv: str, propagation: str, grace_s: int | None, dry_run: bool) -> Json | None:
    """DeleteOptions, or None when all is default."""
    options: Json = {}
    if grace_s is not None:
        options["gracePeriodSeconds"] = grace_s
    preconditions = {key: value for key, value in (("uid", uid), ("resourceVersion", rv)) if value}
    if preconditions:
        options["preconditions"] = preconditions
    if propagation:
        options["propagationPolicy"] = propagation
    if dry_run:
        options["dryRun"] = ["All"]
    return {"kind": "DeleteOptions", "apiVersion": "v1", **options} if options else None
