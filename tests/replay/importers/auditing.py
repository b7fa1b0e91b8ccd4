"""Writes an audit log at the door of a cluster, as kube-apiserver would for the same requests."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs

from kcp.api.request_info import parse_query, request_info
from kcp.base.clock import Clock, LoopClock
from kcp.base.entropy import SeededEntropy
from kcp.client.client import Client
from kcp.client.transport import Transport
from kcp.controlplane.cluster import ADMIN, Cluster, ClusterOptions
from kcp.machinery.times import format_micro_time
from kcp.store.open import open_store
from kcp.testing.readiness import wait_until_usable
from kcp.wire.http import Request, Response

Json = dict[str, Any]
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@attrs.define
class AuditLog:
    """`level` of a resource (plural) is RequestResponse unless `levels` says otherwise."""

    clock: Clock
    levels: dict[str, str] = attrs.field(factory=dict)
    events: list[Json] = attrs.field(factory=list)

    def wrap(self, transport: Transport) -> Transport:
        return Audited(self, transport)

    def lines(self) -> str:
        return "".join(json.dumps(event) + "\n" for event in self.events)

    def note(self, request: Request, response: Response, received: str) -> None:
        if request.path == "/kcp/v1/creates":
            self._note_creates(request, response, received)
            return
        if request.path == "/kcp/v1/deletes":
            self._note_deletes(request, response, received)
            return
        if request.path == "/kcp/v1/bindings":
            self._note_bindings(request, response, received)
            return
        if request.path == "/kcp/v1/renewals":
            self._note_renewals(request, response, received)
            return
        info = request_info(request, parse_query(request.query)[0])
        if not info.is_resource or info.verb not in WRITES:
            return
        ref = {
            "resource": info.resource, "namespace": info.namespace, "name": info.name, "apiGroup": info.group,
            "apiVersion": info.version, "subresource": info.subresource,
        }  # fmt: skip
        uri = request.path + (f"?{request.query}" if request.query else "")
        self._write(
            request, info.verb, ref, uri, response.status, _value(request), _value(response), received
        )

    def _note_creates(self, request: Request, response: Response, received: str) -> None:
        """Many creates in one request are kcp's own; elsewhere they are requests of their own."""
        for item, result in zip(request.document["items"], response.document["results"], strict=True):
            ref = {"resource": item["plural"], "namespace": item["namespace"], "apiGroup": item["group"], "apiVersion": item["version"]}  # fmt: skip
            if "document" in result:
                self._write(request, "create", ref, request.path, 201, item["object"], result["document"].value, received)  # fmt: skip

    def _note_deletes(self, request: Request, response: Response, received: str) -> None:
        for item, result in zip(request.document["items"], response.document["results"], strict=True):
            ref = {"resource": item["plural"], "namespace": item["namespace"], "name": item["name"], "apiGroup": item["group"], "apiVersion": item["version"]}  # fmt: skip
            if "document" in result:
                self._write(request, "delete", ref, request.path, 200, item["options"], result["document"].value, received)  # fmt: skip

    def _note_bindings(self, request: Request, response: Response, received: str) -> None:
        for item, result in zip(request.document["bindings"], response.document["results"], strict=True):
            ref = {"resource": "pods", "subresource": "binding", "namespace": item["namespace"], "name": item["name"], "apiVersion": "v1"}  # fmt: skip
            sent = {"apiVersion": "v1", "kind": "Binding", "target": {"kind": "Node", "name": item["node"]}}
            answer = {"apiVersion": "v1", "kind": "Status", "status": "Success", "code": 201, "metadata": {}}
            if "revision" in result:
                self._write(request, "create", ref, request.path, 201, sent, answer, received)

    def _note_renewals(self, request: Request, response: Response, received: str) -> None:
        for item, result in zip(request.document["items"], response.document["results"], strict=True):
            ref = {"resource": "leases", "namespace": item["namespace"], "name": item["name"], "apiGroup": "coordination.k8s.io", "apiVersion": "v1"}  # fmt: skip
            if "document" in result:
                self._write(
                    request, "update", ref, request.path, 200, None, result["document"].value, received
                )

    def _write(
        self, request: Request, verb: str, ref: Json, uri: str, code: int, sent: Any, answer: Any, received: str
    ) -> None:  # fmt: skip
        level = self.levels.get(ref["resource"], "RequestResponse")
        if not ref.get("name") and isinstance(sent, dict):
            ref["name"] = (sent.get("metadata") or {}).get("name", "")
        user = request.identity
        event = {
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": level, "auditID": f"audit-{len(self.events)}",
            "stage": "ResponseComplete", "requestURI": uri, "verb": verb,
            "user": {"username": user.name, "groups": list(user.groups)}, "userAgent": request.header("user-agent"),
            "sourceIPs": ["10.0.0.7"], "objectRef": {k: v for k, v in ref.items() if v}, "responseStatus": {"code": code},
            "requestReceivedTimestamp": received, "stageTimestamp": format_micro_time(self.clock.now()),
        }  # fmt: skip
        if level != "Metadata" and isinstance(sent, dict):
            event["requestObject"] = sent
        if level == "RequestResponse" and answer is not None:
            event["responseObject"] = answer
        self.events.append(json.loads(json.dumps(event)))


def _value(message: Request | Response) -> Any:
    document = message.document
    if hasattr(document, "documents"):
        items = [each.value for each in document.documents]
        kind = items[0]["kind"] if items else ""
        return {
            "kind": f"{kind}List",
            "apiVersion": items[0]["apiVersion"] if items else "",
            "metadata": {},
            "items": items,
        }
    if document is None and message.body:
        return json.loads(message.body)
    return getattr(document, "value", document)


@attrs.define
class Audited:
    log: AuditLog
    inner: Transport
    in_process: bool = True

    async def request(self, request: Request, timeout_s: float) -> Response:
        received = format_micro_time(self.log.clock.now())
        response = await self.inner.request(request, timeout_s)
        self.log.note(request, response, received)
        return response

    async def close(self) -> None:
        await self.inner.close()


@asynccontextmanager
async def audited_cluster(
    nodes: int = 2, seed: int = 3, levels: dict[str, str] | None = None
) -> AsyncIterator[tuple[Cluster, Client, AuditLog]]:
    """On the deterministic loop: a cluster all of whose requests pass an audit log, everyone's."""
    clock, entropy = LoopClock(), SeededEntropy(seed)
    audit = AuditLog(clock, levels or {})
    store = open_store("memory:", clock=clock, inline=True, entropy=entropy.stream("store"))
    options = ClusterOptions(nodes=nodes, wrap_transport=audit.wrap)
    parts = Cluster.build(store, clock, entropy, options)
    client = parts.client(ADMIN, "kubectl/v1.36.0")
    async with anyio.create_task_group() as group:
        await group.start(parts.run)
        await wait_until_usable(client, nodes)
        yield parts, client, audit
        group.cancel_scope.cancel()
