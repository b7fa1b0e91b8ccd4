"""Binding pods to nodes: pods/binding, POST bindings, and many at once for the scheduler inside the process.

Source: k8s v1.36 pkg/registry/core/pod/storage/storage.go (BindingREST).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from kcp.api.auth.protocol import Attributes as Question
from kcp.api.context import Call, Server
from kcp.api.decoding import decode
from kcp.api.options import write_options
from kcp.api.registry import attributes_of, begin
from kcp.api.results import Result, StatusResult
from kcp.api.subresources.outcomes import newest, settled
from kcp.api.subresources.told import binding as told_binding
from kcp.api.subresources.told import tell_each
from kcp.api.transaction import Plan, Planner, store_failure, transact
from kcp.apis.kind import Json
from kcp.base.values import frozen
from kcp.machinery.document import normal
from kcp.machinery.errors import (
    ApiError,
    BadRequest,
    Conflict,
    FieldError,
    Forbidden,
    NotFound,
    aggregate,
    go_quote,
    required,
    unsupported,
)
from kcp.machinery.gvk import GroupVersionKind
from kcp.machinery.meta import set_condition
from kcp.store.protocol import (
    Decision,
    Fenced,
    Head,
    Key,
    Operation,
    Put,
    Record,
    TooLarge,
    Unavailable,
)

BINDING = GroupVersionKind("", "v1", "Binding")
MAX_BATCH = 2000
_SCHEDULED = {"type": "PodScheduled", "status": "True"}
_SUCCESS: Mapping[str, Any] = {
    "kind": "Status",
    "apiVersion": "v1",
    "metadata": {},
    "status": "Success",
    "code": 201,
}


@frozen
class Target:
    """One binding: which pod, to which node, under which preconditions ("": none)."""

    namespace: str
    name: str
    node: str
    uid: str = ""
    resource_version: str = ""
    annotations: Mapping[str, str] = {}


def _conflict(name: str, why: str) -> Conflict:
    return Conflict.of("", "pods/binding", name, why)


def _check(target: Target, current: Record) -> None:
    """Raises Conflict when the pod cannot be bound (any more)."""
    pod, name = current.value, target.name
    if target.uid and target.uid != current.uid:
        why = f"Precondition failed: UID in precondition: {target.uid}, UID in object meta: {current.uid}"
        raise _conflict(name, why)
    if target.resource_version and target.resource_version != str(current.rv):
        why = (
            f"Precondition failed: ResourceVersion in precondition: {target.resource_version},"
            f" ResourceVersion in object meta: {current.rv}"
        )
        raise _conflict(name, why)
    if pod["metadata"].get("deletionTimestamp"):
        raise _conflict(name, f"pod {name} is being deleted, cannot be assigned to a host")
    spec = pod.get("spec") or {}
    if spec.get("nodeName"):
        raise _conflict(name, f"pod {name} is already assigned to node {go_quote(spec['nodeName'])}")
    if spec.get("schedulingGates"):
        raise _conflict(name, f"pod {name} has non-empty .spec.schedulingGates")


def bound(target: Target, current: Record | None, server: Server) -> Put:
    """The pod on its node, with condition PodScheduled. Raises NotFound or Conflict."""
    if current is None:
        raise NotFound.of("", "pods", target.name)
    _check(target, current)
    pod = current.value
    metadata, status = pod["metadata"], pod.get("status") or {}
    if target.annotations:
        metadata = {**metadata, "annotations": {**(metadata.get("annotations") or {}), **target.annotations}}
    conditions = set_condition(status.get("conditions"), _SCHEDULED, server.clock.now())
    value = {
        **pod,
        "metadata": metadata,
        "spec": {**pod["spec"], "nodeName": target.node},
        "status": {**status, "conditions": conditions},
    }
    return Put(normal(value), value)


def _binding_errors(binding: Json) -> list[FieldError]:
    target = binding.get("target") or {}
    errors = []
    if target.get("kind") not in (None, "", "Node"):
        errors.append(unsupported("target.kind", target["kind"], ["Node", "<empty>"]))
    if not target.get("name"):
        errors.append(required("target.name"))
    return errors


async def create(server: Server, call: Call) -> Result:
    """201 with a Status. The pod is named by the path, or by the body of POST bindings."""
    kind = server.catalog.by_resource("", "v1", "pods")
    assert kind is not None
    options = write_options(call, "CreateOptions")
    binding = decode(server, call, BINDING, options.field_validation)
    metadata = binding["metadata"]
    name = call.info.name or metadata.get("name") or ""
    if metadata.get("name") and metadata["name"] != name:
        raise BadRequest("name in URL does not match name in Binding object")
    errors = _binding_errors(binding)
    if errors:
        raise ApiError(aggregate(errors))
    write = begin(server, call, kind, options, subresource="binding")
    attributes = attributes_of(write, "CREATE", name, binding, None)
    server.admission.mutate(attributes)
    server.admission.validate(attributes)
    target = Target(
        write.namespace, name, binding["target"]["name"], metadata.get("uid") or "",
        metadata.get("resourceVersion") or "", metadata.get("annotations") or {},
    )  # fmt: skip
    written = await transact(write, name, _planner(target, server))
    return StatusResult(dict(_SUCCESS), 201, written.revision)


def _planner(target: Target, server: Server) -> Planner:
    return lambda current, head: Plan(bound(target, current, server))


def _may_bind(server: Server, call: Call) -> None:
    """Raises Forbidden unless the caller may bind every pod."""
    question = Question(user=call.user, verb="create", version="v1", resource="pods", subresource="binding")
    verdict, reason = server.authorizer.authorize(question)
    if verdict != "allow":
        why = f'User "{call.user.name}" cannot create resource "pods/binding" in API group "" at the cluster scope'
        raise Forbidden.of("", "pods", "", f"{why}: {reason}" if reason else why)


def _decision(document: Json, decision_id: int) -> Decision:
    try:
        return Decision(**{**document, "id": decision_id})
    except TypeError as error:
        raise BadRequest(f"malformed decision: {error}") from None


def _operation(server: Server, call: Call, document: Json, decisions: Mapping[int, int]) -> Operation:
    """`decision` of a binding is an index into the batch's decisions, or the id of one recorded before."""
    try:
        target = Target(
            document["namespace"], document["name"], document["node"], document.get("uid", ""),
            document.get("resourceVersion", ""), document.get("annotations") or {},
        )  # fmt: skip
    except KeyError as error:
        raise BadRequest(f"malformed binding: {error} is missing") from None
    given = document.get("decision")
    cause = call.cause if given is None else attrs.evolve(call.cause, decision_id=decisions.get(given, given))

    node = Key("nodes", "", target.node)

    def change(current: Record | None, head: Head) -> Put:
        if head.get(node) is None:
            raise _conflict(target.name, f"node {go_quote(target.node)} is gone")
        return bound(target, current, server)

    return Operation(Key("pods", target.namespace, target.name), change, cause, call.fence)


async def batch(server: Server, call: Call) -> Result:
    """POST /kcp/v1/bindings, from inside the process only: many bindings in one transaction, each with its own outcome.

    In: `{"bindings": [{"namespace", "name", "node", "uid"?, "annotations"?, "decision"?}], "decisions": [Decision…],
    "atomic": false}`. Out: `{"results": [{"revision": N} | {"status": Status}]}` in the order of the bindings. Decisions
    are recorded with ids that the server gives; `decision` of a binding is the index of its own. `atomic`: all or none;
    what one failed of is then the outcome of every one. A node that is gone by then gets no pod.
    """
    if call.request.identity is None or not isinstance(call.request.document, dict):
        raise NotFound.path()
    _may_bind(server, call)
    document = call.request.document
    bindings: Sequence[Json] = document.get("bindings") or ()
    if len(bindings) > MAX_BATCH:
        raise BadRequest(f"at most {MAX_BATCH} bindings at once, got {len(bindings)}")
    ids: dict[int, int] = {}
    for index, decision in enumerate(document.get("decisions") or ()):
        ids[index] = server.store.next_decision_id()
        server.store.record(_decision(decision, ids[index]))
    operations = [_operation(server, call, binding, ids) for binding in bindings]
    try:
        outcomes = await server.store.append_all(operations, atomic=bool(document.get("atomic")))
    except (Fenced, TooLarge, Unavailable) as error:
        raise store_failure(error) from error
    results = [_without_document(settled(outcome)) for outcome in outcomes]
    tell_each(server, call, bindings, results, told_binding)
    return StatusResult({"results": results}, 200, newest(results))


def _without_document(result: Json) -> Json:
    """A binding answers no pod."""
    result.pop("document", None)
    return result
