"""Requests that went together, as the audit log tells them: each as if it had come alone.

Each has an id of its own, made of the whole request's, which stands in an annotation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

from kcp.api.auth.protocol import UserInfo
from kcp.api.context import Call, Part, RequestInfo, Server
from kcp.api.filters.authorization import AUDIT
from kcp.api.verbs.delete import removal_status
from kcp.apis.kind import Json
from kcp.machinery.document import Document
from kcp.wire.http import Request, Response

TOGETHER = "audit.kcp.io/request"
"""The annotation with the id of the request that carried them all."""
_LEASES = {"group": "coordination.k8s.io", "version": "v1", "plural": "leases"}
_PODS = {"group": "", "version": "v1", "plural": "pods"}
_BOUND: Json = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}

Telling = Callable[[Call, Json, Json], Part]
"""(the whole request, what one item asked for, what it was answered) -> that request and its answer."""


def tell_each(
    server: Server, call: Call, given: Iterable[Json], results: Sequence[Json], telling: Telling
) -> None:
    """Leave the items for the audit log, when there is one."""
    if AUDIT not in server.extras:
        return
    call.parts = []
    for number, (item, result) in enumerate(zip(given, results, strict=True)):
        its, response = telling(call, item, result)
        its.audit_id = _id_of(call.audit_id, number)
        its.annotations[TOGETHER] = call.audit_id
        if response.status != 403:
            its.annotations |= {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""}
        call.parts.append((its, response))


def _id_of(whole: str, number: int) -> str:
    return str(UUID(bytes=hashlib.sha256(f"{whole}/{number}".encode()).digest()[:16], version=4))


def _alone(
    call: Call,
    method: str,
    verb: str,
    where: Json,
    *,
    namespace: str = "",
    name: str = "",
    subresource: str = "",
    sent: Json | None = None,
    user: UserInfo | None = None,
) -> Call:
    group, version, plural = where["group"], where["version"], where["plural"]
    root = f"/apis/{group}/{version}" if group else f"/api/{version}"
    steps = [f"/namespaces/{namespace}" if namespace else "", f"/{plural}"]
    steps += [f"/{step}" for step in (name, subresource) if step]
    path = root + "".join(steps)
    who = user or call.user
    whole = call.request
    request = Request(method, path, whole.query, whole.headers, document=sent, identity=who)
    info = RequestInfo(True, path, verb, group, version, namespace, plural, subresource, name)
    return Call(request, info, who, params=call.params, repeated=call.repeated)


def _answer(result: Json, code: int) -> Response:
    status = result.get("status")
    if status is not None:
        return Response(status.get("code", 500), document=status)
    document: Document = result["document"]
    return Response(code, document=document)


def creation(call: Call, item: Json, result: Json) -> Part:
    its = _alone(call, "POST", "create", item, namespace=item["namespace"], sent=item["object"])
    return its, _answer(result, 201)


def deletion(call: Call, item: Json, result: Json) -> Part:
    """`removed` of the item is the kind of an object that is gone for good: most are answered by a Status then."""
    sent = item["options"] or None
    its = _alone(call, "DELETE", "delete", item, namespace=item["namespace"], name=item["name"], sent=sent)
    response = _answer(result, 200)
    if item["removed"] is not None:
        status = removal_status(item["removed"], result["document"].value)
        response.document = response.document if status is None else status
    return its, response


def renewal(call: Call, item: Json, result: Json) -> Part:
    """The Lease is told as its node would have sent it whole, as far as is known."""
    metadata = {
        "name": item["name"],
        "namespace": item["namespace"],
        "resourceVersion": str(item["revision"]),
    }
    spec = {"holderIdentity": item["holder"], "renewTime": item["renewTime"]}
    sent: Json = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
    if "document" in result:
        value = result["document"].value
        sent = {**value, "metadata": {**value["metadata"], "resourceVersion": str(item["revision"])}}
    its = _alone(
        call, "PUT", "update", _LEASES, namespace=item["namespace"], name=item["name"], sent=sent, user=item["user"]
    )  # fmt: skip
    return its, _answer(result, 200)


def binding(call: Call, item: Json, result: Json) -> Part:
    metadata = {"name": item["name"], "namespace": item["namespace"]}
    metadata |= {field: item[field] for field in ("uid", "annotations", "resourceVersion") if item.get(field)}
    target = {"kind": "Node", "name": item["node"]}
    sent = {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}
    its = _alone(
        call,
        "POST",
        "create",
        _PODS,
        namespace=item["namespace"],
        name=item["name"],
        subresource="binding",
        sent=sent,
    )
    refused = "status" in result
    return its, _answer(result, 201) if refused else Response(201, document=_BOUND)
