"""delete and deletecollection."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from kcp.api.context import Call, Server
from kcp.api.decoding import cannot_be_handled, checked, decode, read_body
from kcp.api.deletion import deleting
from kcp.api.documents import served
from kcp.api.options import (
    DeleteOptions,
    WriteOptions,
    delete_options,
    delete_parameters,
    list_options,
    manager_of_agent,
)
from kcp.api.registry import attributes_of, begin, leaving_with, result_of
from kcp.api.results import ListResult, Result, StatusResult
from kcp.api.selection import select
from kcp.api.transaction import Write, store_failure, transact
from kcp.api.verbs.list import matching
from kcp.apis.kind import Json, Kind
from kcp.machinery.document import Document
from kcp.machinery.errors import NotFound
from kcp.machinery.gvk import GroupVersionKind
from kcp.store.protocol import (
    Committed,
    Fenced,
    Head,
    Keep,
    Operation,
    Put,
    Record,
    Remove,
    TooLarge,
    Unavailable,
)

_OPTIONS = GroupVersionKind("", "v1", "DeleteOptions")
_RETURNS_OBJECT = frozenset({
    "namespaces", "persistentvolumeclaims", "persistentvolumes", "pods", "podtemplates", "resourcequotas",
    "serviceaccounts", "services", "csidrivers.storage.k8s.io", "csinodes.storage.k8s.io",
    "csistoragecapacities.storage.k8s.io", "storageclasses.storage.k8s.io", "volumeattachments.storage.k8s.io",
    "volumeattributesclasses.storage.k8s.io", "deviceclasses.resource.k8s.io", "resourceclaims.resource.k8s.io",
    "resourceclaimtemplates.resource.k8s.io", "resourceslices.resource.k8s.io",
    "customresourcedefinitions.apiextensions.k8s.io",
})  # fmt: skip
"""Resources that answer a final delete with the object instead of a Status (ReturnDeletedObject)."""


def read_options(server: Server, call: Call) -> DeleteOptions:
    """From the body, or from the query when there is none. Raises Invalid or BadRequest."""
    document, body = call.request.document, call.request.body
    if document is None and not body:
        return delete_options(delete_parameters(call.params))
    if document is not None:
        return delete_options(read_body(server, call, _OPTIONS)[0])
    return delete_options(_decoded(server, call))


def _decoded(server: Server, call: Call) -> dict[str, Any]:
    """DeleteOptions belong to every group version; clients send the one of the path or v1."""
    options, _ = read_body(server, call, _OPTIONS)
    if options.get("kind") not in (None, "", "DeleteOptions"):
        decode(server, call, _OPTIONS)
    return checked(
        call, _OPTIONS, options, [], "Ignore", lambda why: cannot_be_handled(_OPTIONS, _OPTIONS.kind, why)
    )


def begin_delete(server: Server, call: Call, options: DeleteOptions) -> Write:
    assert call.kind is not None
    manager = manager_of_agent(call.request.header("user-agent"))
    return begin(server, call, call.kind, WriteOptions(manager, dry_run=options.dry_run))


async def handle(server: Server, call: Call) -> Result:
    """200 with the object or a Status; 202 when it stays for now and cascading was asked for the old way."""
    options = read_options(server, call)
    write = begin_delete(server, call, options)
    name = call.info.name
    written = await transact(write, name, deleting(write, name, options))
    if not written.removed:
        return result_of(write, written, 202 if options.orphan_dependents is False else 200)
    status = removal_status(write.kind, written.document.value)
    if status is None:
        return result_of(write, written)
    return StatusResult(status, 200, written.revision)


def removal_status(kind: Kind, obj: Json) -> Json | None:
    """What tells that this object is gone; None where the object itself does."""
    if kind.resource in _RETURNS_OBJECT:
        return None
    metadata = obj["metadata"]
    details = {"name": metadata["name"], "group": kind.group, "kind": kind.plural, "uid": metadata["uid"]}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {key: value for key, value in details.items() if value},
    }


async def handle_collection(server: Server, call: Call) -> Result:
    """Delete every object that the selectors mean, each by the rules of a single delete, in one transaction."""
    kind = call.kind
    assert kind is not None
    options, wanted = read_options(server, call), list_options(call, watch=False)
    write = begin_delete(server, call, options)
    selection = select(kind, wanted.label_selector, wanted.field_selector)
    records = matching(server, kind, call.info.namespace if kind.namespaced else None, selection)
    if wanted.limit:
        records = records[: wanted.limit]
    rehearsed = options.dry_run
    deleted = _rehearse(write, records, options) if rehearsed else await _delete_all(write, records, options)
    return ListResult(kind, [served(kind, document) for document in deleted], server.store.rv)


def _rehearse(write: Write, records: list[Record], options: DeleteOptions) -> list[Document]:
    for record in records:
        deleting(write, record.key.name, options)(record, write.server.store)
    return [record.document for record in records]


def _is_counted(write: Write, record: Record) -> bool:
    """Whether something else must change together with the removal: a quota's usage, a Service's addresses."""
    attributes = attributes_of(write, "DELETE", record.key.name, None, record.value)
    return bool(
        leaving_with(write, record.value) or write.server.admission.settle(attributes, write.server.store)
    )


async def _delete_all(write: Write, records: list[Record], options: DeleteOptions) -> list[Document]:
    """The objects as they were or became. Objects that are gone meanwhile do not count; the first refusal is raised."""
    if any(_is_counted(write, record) for record in records):
        return await _delete_each(write, records, options)
    operations = [_operation(write, record, options) for record in records]
    try:
        outcomes = await write.server.store.append_all(operations)
    except (Fenced, TooLarge, Unavailable) as error:
        raise store_failure(error) from error
    deleted = []
    for outcome in outcomes:
        if isinstance(outcome, Committed):
            if outcome.record is not None:
                deleted.append(outcome.record.document)
        elif not isinstance(outcome, NotFound):
            raise store_failure(outcome)
    return deleted


async def _delete_each(write: Write, records: list[Record], options: DeleteOptions) -> list[Document]:
    deleted = []
    for record in records:
        name = record.key.name
        with suppress(NotFound):
            deleted.append((await transact(write, name, deleting(write, name, options))).document)
    return deleted


def _operation(write: Write, record: Record, options: DeleteOptions) -> Operation:
    planner = deleting(write, record.key.name, options)

    def change(current: Record | None, head: Head) -> Put | Remove | Keep:
        return planner(current, head).verdict

    return Operation(record.key, change, write.call.cause, write.call.fence)
