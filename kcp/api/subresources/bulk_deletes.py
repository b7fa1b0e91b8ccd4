"""Many deletes in one request, for the components inside the process: what the garbage collector finds, surplus pods.

As with bulk.py each item is authorized, admitted and decided like a request of its own and has an outcome of its own;
what is saved is the way through the chain, and the commits are one.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from kcp.api.context import Call, RequestInfo, Server
from kcp.api.deletion import deleting
from kcp.api.filters.authorization import attributes_of, forbidden
from kcp.api.options import DeleteOptions, delete_options
from kcp.api.results import Result, StatusResult
from kcp.api.subresources.bulk import MAX_ITEMS
from kcp.api.transaction import Planner, Write, operation_of, store_failure, transact
from kcp.api.verbs.delete import begin_delete
from kcp.apis.kind import Json
from kcp.machinery.document import Document
from kcp.machinery.errors import ApiError, BadRequest, InternalError, NotFound
from kcp.store.protocol import Committed, Fenced, Operation, TooLarge, Unavailable


@attrs.define(slots=True)
class Item:
    """One delete on its way: decided, then committed or refused."""

    write: Write
    name: str
    planner: Planner
    document: Document | None = None
    revision: int = 0
    error: ApiError | None = None


async def deletes(server: Server, call: Call) -> Result:
    """POST /kcp/v1/deletes, from inside the process only.

    In: `{"items": [{"group", "version", "plural", "namespace", "name", "options"}]}`, options being DeleteOptions or
    null. Out, in the order of the items: `{"results": [{"document": Document, "revision": N} | {"status": Status}]}`,
    the document as it was or became.
    """
    if call.request.identity is None or not isinstance(call.request.document, dict):
        raise NotFound.path()
    given: Sequence[Json] = call.request.document.get("items") or ()
    if len(given) > MAX_ITEMS:
        raise BadRequest(f"at most {MAX_ITEMS} deletes at once, got {len(given)}")
    places: dict[tuple[str, ...], Call] = {}
    items: list[Item | ApiError] = []
    for each in given:
        try:
            items.append(_begin(server, call, each, places))
        except ApiError as error:
            items.append(error)
    await _commit(server, [item for item in items if isinstance(item, Item)])
    revision = max((item.revision for item in items if isinstance(item, Item)), default=0)
    return StatusResult({"results": [_result(item) for item in items]}, 200, revision)


def _begin(server: Server, call: Call, given: Json, places: dict[tuple[str, ...], Call]) -> Item:
    its = _place(server, call, given, places)
    options = delete_options(given["options"]) if given["options"] else DeleteOptions()
    write = begin_delete(server, its, options)
    name = given["name"]
    return Item(write, name, deleting(write, name, options))


def _place(server: Server, call: Call, given: Json, places: dict[tuple[str, ...], Call]) -> Call:
    """The item's call, for all that one may delete whatever the name. Raises NotFound or Forbidden."""
    group, version, plural, namespace = (given[part] for part in ("group", "version", "plural", "namespace"))
    place = (group, version, plural, namespace)
    if place in places:
        return places[place]
    kind = server.catalog.by_resource(group, version, plural)
    if kind is None:
        raise NotFound.path()
    info = RequestInfo(True, call.info.path, "delete", group, version, namespace, plural)
    if server.authorizer.authorize(attributes_of(call.user, info))[0] == "allow":
        places[place] = found = attrs.evolve(call, info=info, kind=kind, annotations={})
        return found
    info = attrs.evolve(info, name=given["name"])
    question = attributes_of(call.user, info)
    verdict, reason = server.authorizer.authorize(question)
    if verdict != "allow":
        raise forbidden(question, reason)
    return attrs.evolve(call, info=info, kind=kind, annotations={})


async def _commit(server: Server, items: Sequence[Item]) -> None:
    """Commit what needs nothing else in one go; what changes together with a quota goes one by one."""
    operations: list[tuple[Item, Operation]] = []
    for item in items:
        try:
            operation = operation_of(item.write, item.name, item.planner)
        except ApiError as error:
            item.error = error
            continue
        if operation is None:
            await _alone(item)
        else:
            operations.append((item, operation))
    if not operations:
        return
    try:
        outcomes = await server.store.append_all([operation for _, operation in operations])
    except (Fenced, TooLarge, Unavailable) as error:
        raise store_failure(error) from error
    for (item, _), outcome in zip(operations, outcomes, strict=True):
        if isinstance(outcome, Committed):
            assert outcome.record is not None, "a delete of an object that exists leaves a record"
            item.document, item.revision = outcome.record.document, outcome.rv
        else:
            failure = store_failure(outcome)
            item.error = failure if isinstance(failure, ApiError) else InternalError(str(failure))


async def _alone(item: Item) -> None:
    try:
        written = await transact(item.write, item.name, item.planner)
    except ApiError as error:
        item.error = error
    else:
        item.document, item.revision = written.document, written.revision


def _result(item: Item | ApiError) -> Json:
    if isinstance(item, ApiError):
        return {"status": item.status()}
    if item.error is not None:
        return {"status": item.error.status()}
    return {"document": item.document, "revision": item.revision}
