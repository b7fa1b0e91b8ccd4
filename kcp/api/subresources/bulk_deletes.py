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
from kcp.api.subresources.outcomes import done, newest, refused, settled
from kcp.api.subresources.told import deletion, tell_each
from kcp.api.transaction import Planner, Write, operation_of, store_failure, transact
from kcp.api.verbs.delete import begin_delete
from kcp.apis.kind import Json
from kcp.machinery.errors import ApiError, BadRequest, NotFound
from kcp.store.protocol import Committed, Fenced, Op, Operation, TooLarge, Unavailable


@attrs.define(slots=True)
class Item:
    """One delete on its way: decided, then committed or refused."""

    write: Write
    name: str
    planner: Planner
    result: Json = attrs.field(factory=dict)
    removed: bool = False


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
    results: list[Json] = [{} for _ in given]
    items: dict[int, Item] = {}
    for number, each in enumerate(given):
        try:
            items[number] = _begin(server, call, each, places)
        except ApiError as error:
            results[number] = refused(error)
    await _commit(server, list(items.values()))
    for number, item in items.items():
        results[number] = item.result
    tell_each(
        server, call, (_with_end(each, items.get(n)) for n, each in enumerate(given)), results, deletion
    )
    return StatusResult({"results": results}, 200, newest(results))


def _with_end(given: Json, item: Item | None) -> Json:
    """What was asked for, with the kind of what is gone for good."""
    return {**given, "removed": item.write.kind if item is not None and item.removed else None}


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
            item.result = refused(error)
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
        item.result = settled(outcome)
        item.removed = isinstance(outcome, Committed) and outcome.op is Op.DELETED


async def _alone(item: Item) -> None:
    try:
        written = await transact(item.write, item.name, item.planner)
        item.result, item.removed = done(written), written.removed
    except ApiError as error:
        item.result = refused(error)
