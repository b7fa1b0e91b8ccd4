"""Many creates in one request, for the components inside the process: Events, the pods of a ReplicaSet.

Each item passes authorization, decoding, defaulting, admission and validation like a request of its own and has an
outcome of its own; what is saved is the way through the chain, and the commits are one.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from kcp.api.auth.protocol import Attributes as Question
from kcp.api.context import Call, RequestInfo, Server
from kcp.api.decoding import decode_object
from kcp.api.options import WriteOptions, write_options
from kcp.api.registry import begin, create, draft, stored_form
from kcp.api.registry import creation as planner_of
from kcp.api.results import Result, StatusResult
from kcp.api.subresources.outcomes import done, newest, refused, settled
from kcp.api.subresources.told import creation, tell_each
from kcp.api.transaction import Write, operation_of, store_failure
from kcp.apis.kind import Json, Kind
from kcp.machinery.errors import AlreadyExists, ApiError, BadRequest, Forbidden, NotFound
from kcp.machinery.names import generate_name
from kcp.store.protocol import Fenced, Operation, TooLarge, Unavailable
from kcp.wire.http import Request

MAX_ITEMS = 1024
GENERATE_ATTEMPTS = 8


@attrs.define(slots=True)
class Item:
    """One create on its way: drafted, then committed or refused."""

    write: Write
    draft: Json
    result: Json = attrs.field(factory=dict)


async def creates(server: Server, call: Call) -> Result:
    """POST /kcp/v1/creates, from inside the process only.

    In: `{"items": [{"group", "version", "plural", "namespace", "object"}]}`. Out, in the order of the items:
    `{"results": [{"document": Document, "revision": N} | {"status": Status}]}`.
    """
    if call.request.identity is None or not isinstance(call.request.document, dict):
        raise NotFound.path()
    given: Sequence[Json] = call.request.document.get("items") or ()
    if len(given) > MAX_ITEMS:
        raise BadRequest(f"at most {MAX_ITEMS} creates at once, got {len(given)}")
    options = write_options(call, "CreateOptions")
    allowed: set[tuple[str, str, str]] = set()
    results: list[Json] = [{} for _ in given]
    items: dict[int, Item] = {}
    for number, each in enumerate(given):
        try:
            items[number] = await _begin(server, call, each, options, allowed)
        except ApiError as error:
            results[number] = refused(error)
    await _commit(server, list(items.values()))
    for number, item in items.items():
        results[number] = item.result
    tell_each(server, call, given, results, creation)
    return StatusResult({"results": results}, 200, newest(results))


async def _begin(
    server: Server, call: Call, given: Json, options: WriteOptions, allowed: set[tuple[str, str, str]]
) -> Item:
    kind = server.catalog.by_resource(given["group"], given["version"], given["plural"])
    if kind is None:
        raise NotFound.path()
    namespace = given["namespace"] if kind.namespaced else ""
    where = (kind.group, kind.plural, namespace)
    if where not in allowed:
        _authorize(server, call, kind, namespace)
        allowed.add(where)
    info = RequestInfo(True, call.info.path, "create", kind.group, kind.version, namespace, kind.plural)
    request = Request(
        "POST", call.info.path, headers=call.request.headers, document=given["object"], identity=call.user
    )
    its = Call(
        request,
        info,
        call.user,
        kind,
        call.params,
        call.repeated,
        call.audit_id,
        cause=call.cause,
        fence=call.fence,
    )
    obj = decode_object(server, its, kind, options.field_validation)
    write = begin(server, its, kind, options)
    return Item(write, draft(write, stored_form(kind, obj)))


def _authorize(server: Server, call: Call, kind: Kind, namespace: str) -> None:
    question = Question(
        user=call.user,
        verb="create",
        group=kind.group,
        version=kind.version,
        resource=kind.plural,
        namespace=namespace,
    )
    verdict, reason = server.authorizer.authorize(question)
    if verdict == "allow":
        return
    place = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    why = (
        f'User "{call.user.name}" cannot create resource "{kind.plural}" in API group "{kind.group}" {place}'
    )
    raise Forbidden.of(kind.group, kind.plural, "", f"{why}: {reason}" if reason else why)


async def _commit(server: Server, items: Sequence[Item]) -> None:
    """Commit what needs nothing else in one go; what changes together with a quota goes one by one."""
    operations: list[tuple[Item, Operation]] = []
    for item in items:
        try:
            operation = _operation(server, item)
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
        if isinstance(outcome, AlreadyExists) and item.draft["metadata"].get("generateName"):
            await _alone(item)  # its generated name was taken: another one
        else:
            item.result = settled(outcome)


def _operation(server: Server, item: Item) -> Operation | None:
    """The create as one operation; None when other objects have to change with it."""
    metadata = item.draft["metadata"]
    obj = item.draft
    name = metadata.get("name") or generate_name(metadata.get("generateName") or "", server.entropy)
    if not metadata.get("name") and metadata.get("generateName"):
        obj = {**item.draft, "metadata": {**metadata, "name": name}}
    return operation_of(item.write, name, planner_of(item.write, obj))


async def _alone(item: Item) -> None:
    try:
        item.result = done(await create(item.write, item.draft))
    except ApiError as error:
        item.result = refused(error)
