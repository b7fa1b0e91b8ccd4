"""Many renewals of Leases in one request, for thousands of nodes inside the process.

A renewal moves one time; who owns the fields stays as it is. So it needs no decoding, defaults or validation. What else
a write passes, it passes: the right to update that Lease under the node's own name, the version that it was read at,
admission. A Lease that somebody else has touched goes the ordinary way, with the same outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from kcp.api.context import Call, RequestInfo, Server
from kcp.api.documents import private_copy
from kcp.api.filters.authorization import attributes_of as question_of
from kcp.api.filters.authorization import forbidden
from kcp.api.options import WriteOptions, write_options
from kcp.api.registry import attributes_of, begin, change_of, not_found
from kcp.api.results import Result, StatusResult
from kcp.api.subresources.bulk import MAX_ITEMS
from kcp.api.subresources.outcomes import done, newest, refused, settled
from kcp.api.subresources.told import renewal, tell_each
from kcp.api.transaction import Plan, Planner, Write, operation_of, store_failure, transact
from kcp.apis.kind import Json, Kind
from kcp.machinery.document import normal
from kcp.machinery.errors import ApiError, BadRequest, Conflict, NotFound
from kcp.store.protocol import Fenced, Head, Operation, Put, Record, TooLarge, Unavailable


async def renewals(server: Server, call: Call) -> Result:
    """POST /kcp/v1/renewals, from inside the process only.

    In: `{"items": [{"user": UserInfo, "namespace", "name", "holder", "revision": N, "renewTime"}]}`. Out, in the order
    of the items: `{"results": [{"document": Document, "revision": N} | {"status": Status}]}`.
    """
    if call.request.identity is None or not isinstance(call.request.document, dict):
        raise NotFound.path()
    given: Sequence[Json] = call.request.document.get("items") or ()
    if len(given) > MAX_ITEMS:
        raise BadRequest(f"at most {MAX_ITEMS} renewals at once, got {len(given)}")
    kind = server.catalog.by_resource("coordination.k8s.io", "v1", "leases")
    assert kind is not None
    options = write_options(call, "UpdateOptions")
    results: list[Json] = [{} for _ in given]
    together: list[tuple[int, Operation]] = []
    for number, item in enumerate(given):
        try:
            write = _begin(server, call, kind, options, item)
            planner = _renewing(write, item)
            operation = operation_of(write, item["name"], planner)
            if operation is None:
                results[number] = done(await transact(write, item["name"], planner))
            else:
                together.append((number, operation))
        except ApiError as error:
            results[number] = refused(error)
    await _commit(server, together, results)
    tell_each(server, call, given, results, renewal)
    return StatusResult({"results": results}, 200, newest(results))


def _begin(server: Server, call: Call, kind: Kind, options: WriteOptions, item: Json) -> Write:
    """Raises Forbidden unless the item's own user may update the Lease."""
    user, name = item["user"], item["name"]
    info = RequestInfo(
        True, call.info.path, "update", kind.group, kind.version, item["namespace"], kind.plural, name=name
    )
    question = question_of(user, info)
    verdict, reason = server.authorizer.authorize(question)
    if verdict != "allow":
        raise forbidden(question, reason)
    actor = attrs.evolve(call.cause.actor, username=user.name, groups=user.groups)
    cause = attrs.evolve(call.cause, actor=actor)
    its = attrs.evolve(call, info=info, kind=kind, user=user, cause=cause, annotations={})
    return begin(server, its, kind, options)


def _renewing(write: Write, item: Json) -> Planner:
    kind, name = write.kind, item["name"]

    def planner(current: Record | None, head: Head) -> Plan:
        del head
        if current is None:
            raise not_found(kind, name)
        if current.rv != item["revision"]:
            raise Conflict.of(kind.group, kind.plural, name)
        value = _renewed(current.value, item, write)
        if value is None:
            return change_of(write, _as_updated(current.value, item), current)
        admission = write.server.admission
        attributes = attributes_of(write, "UPDATE", name, value, current.value)
        if admission.mutate(attributes):
            return change_of(write, _as_updated(current.value, item), current)
        admission.validate(attributes)
        return Plan(Put(normal(value), value, renewal=True), attributes)

    return planner


def _renewed(old: Json, item: Json, write: Write) -> Json | None:
    """The Lease with its new time; None when more would change than that and the time of its one entry of fields."""
    metadata, spec = old["metadata"], old.get("spec") or {}
    entries: Sequence[Json] = metadata.get("managedFields") or ()
    if len(entries) != 1 or not _owns_time(entries[0], write):
        return None
    if spec.get("holderIdentity") != item["holder"] or spec.get("renewTime") == item["renewTime"]:
        return None
    entry = {**entries[0], "time": write.now}
    return {
        **old,
        "metadata": {**metadata, "managedFields": [entry]},
        "spec": {**spec, "renewTime": item["renewTime"]},
    }


def _owns_time(entry: Json, write: Write) -> bool:
    if entry["manager"] != write.options.manager or entry["operation"] != "Update":
        return False
    if entry.get("subresource") or entry["apiVersion"] != write.kind.api_version:
        return False
    return "f:renewTime" in entry["fieldsV1"].get("f:spec", ())


def _as_updated(old: Json, item: Json) -> Json:
    """What an update of the whole Lease would bring: a private copy."""
    copy: Any = private_copy(old)
    spec = copy.setdefault("spec", {})
    spec["holderIdentity"], spec["renewTime"] = item["holder"], item["renewTime"]
    return copy  # type: ignore[no-any-return]


async def _commit(server: Server, together: Sequence[tuple[int, Operation]], results: list[Json]) -> None:
    if not together:
        return
    try:
        outcomes = await server.store.append_all([operation for _, operation in together])
    except (Fenced, TooLarge, Unavailable) as error:
        raise store_failure(error) from error
    for (number, _), outcome in zip(together, outcomes, strict=True):
        results[number] = settled(outcome)
