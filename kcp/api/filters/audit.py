"""Tells requests to the audit log, as its policy wants: who asked for what, what came of it, and with what in it.

Stands where Kubernetes has it: behind authentication, before everything that can refuse. Without an audit log it is not
there at all.
Source: k8s v1.36 apiserver/pkg/endpoints/filters/{audit,authn_audit}.go, apiserver/pkg/audit/{request,context}.go.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any
from urllib.parse import quote

import attrs
import orjson
from prometheus_client import Counter

from kcp.api.audit.log import AuditLog
from kcp.api.audit.policy import Policy, Stage, Telling
from kcp.api.auth.protocol import UserInfo
from kcp.api.context import Call, Server
from kcp.api.filters.authentication import NOBODY
from kcp.api.filters.authorization import AUDIT, attributes_of
from kcp.api.filters.telemetry import metrics_of
from kcp.api.request_info import is_long_running
from kcp.api.results import ListResult
from kcp.base.clock import Clock
from kcp.base.metrics import Family
from kcp.base.values import frozen
from kcp.machinery.codec.protobuf import decode_protobuf
from kcp.machinery.codec.yaml import YamlError, decode_yaml
from kcp.machinery.document import Document
from kcp.machinery.gvk import GroupVersionKind
from kcp.machinery.times import format_micro_time
from kcp.wire.http import Request, Response

Json = dict[str, Any]

USER_AGENT_CHARACTERS = 1024
CLOSED_EARLY: Json = {"metadata": {}, "status": "Success", "message": "Connection closed early", "code": 200}
_STATUS_FIELDS = ("status", "message", "reason", "details")
_ORDER = (
    "kind", "apiVersion", "level", "auditID", "stage", "requestURI", "verb", "user", "impersonatedUser", "sourceIPs",
    "userAgent", "objectRef", "responseStatus", "requestObject", "responseObject", "requestReceivedTimestamp",
    "stageTimestamp", "annotations",
)  # fmt: skip
"""In which Kubernetes writes an event's fields."""
_TOGETHER = "/kcp/v1/"
"""Below this path are requests that carry many others, from inside the process."""
_DESCRIBED = frozenset({"create", "update"})
"""Verbs whose body is the object itself, and tells what the path does not."""


@frozen
class Trail:
    """The policy of a server's audit log, and the log."""

    policy: Policy
    log: AuditLog


@attrs.define(eq=False)
class _Open:
    """A request that is being answered, and its event so far."""

    telling: Telling
    event: Json
    received: datetime
    long_running: bool
    done: bool = False


class Silent:
    """No audit log: nothing on any request's way."""


@attrs.define(eq=False)
class Audit:
    trail: Trail
    clock: Clock
    _events: Family[Counter]
    _errors: Family[Counter]
    _levels: Family[Counter]
    _open: dict[int, _Open] = attrs.field(factory=dict)
    _together: dict[int, datetime] = attrs.field(factory=dict)
    """When requests that carry many others came: only their answer tells what each is."""

    @classmethod
    def of(cls, server: Server) -> Audit | Silent:
        trail = server.extras.get(AUDIT)
        if trail is None:
            return Silent()
        metrics = metrics_of(server)
        return cls(
            trail,
            server.clock,
            metrics.counter(
                "apiserver_audit_event_total",
                "Counter of audit events generated and sent to the audit backend.",
            ),
            metrics.counter(
                "apiserver_audit_error_total",
                "Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by "
                "the error.",
                ("plugin",),
            ),
            metrics.counter(
                "apiserver_audit_level_total",
                "Counter of policy levels for audit events (1 per request).",
                ("level",),
            ),
        )

    def enter(self, call: Call) -> None:
        if call.request.identity is not None and call.info.path.startswith(_TOGETHER):
            self._together[id(call)] = self.clock.now()
        else:
            self._receive(call, self.clock.now())

    def _receive(self, call: Call, received: datetime) -> _Open | None:
        opened = self._begin(call, call.user, received)
        if opened is not None:
            self._open[id(call)] = opened
            self._tell(opened, "RequestReceived", opened.received)
        return opened

    def _begin(self, call: Call, user: UserInfo, received: datetime) -> _Open | None:
        telling = self.trail.policy.telling(attributes_of(user, call.info))
        self._levels.of(telling.level).inc()
        if telling.level == "None":
            return None
        return _Open(telling, _event(call, user, telling), received, is_long_running(call.info))

    def leave(self, call: Call, response: Response) -> None:
        received = self._together.pop(id(call), None)
        if received is not None:
            self._leave_together(call, response, received)
            return
        opened = self._open.get(id(call))
        if opened is None:
            if response.status == 401 and call.user is NOBODY:
                self._refused(call, response)
            return
        _answered(opened, call, response)
        if opened.long_running or response.stream is not None or response.events is not None:
            self._tell(opened, "ResponseStarted")
        if response.stream is not None:
            del self._open[id(call)]
            response.stream = _ended(response.stream, lambda: self._complete(opened))
        elif response.events is None:
            self._complete(opened)
        else:
            opened.done = True  # a component's watch: it ends with the process, which tells nobody

    def _leave_together(self, call: Call, response: Response, received: datetime) -> None:
        """Each as if it had come alone; what was refused as a whole is one."""
        for its, answer in [(call, response)] if call.parts is None else call.parts:
            opened = self._receive(its, received)
            if opened is not None:
                _answered(opened, its, answer)
                self._complete(opened)
                del self._open[id(its)]

    def release(self, call: Call) -> None:
        """However it ended: a request whose peer went away is told too."""
        received = self._together.pop(id(call), None)
        if received is not None:
            self._receive(call, received)
        opened = self._open.pop(id(call), None)
        if opened is not None and not opened.done:
            opened.event["responseStatus"] = CLOSED_EARLY
            self._complete(opened)

    def _complete(self, opened: _Open) -> None:
        opened.done = True
        self._tell(opened, "ResponseComplete")

    def _refused(self, call: Call, response: Response) -> None:
        """Wrong credentials have no user; what was tried is in the status."""
        opened = self._begin(call, UserInfo(""), self.clock.now())
        if opened is not None:
            opened.event["responseStatus"] = {"metadata": {}, "message": _attempted(call.request), "code": response.status}  # fmt: skip
            self._tell(opened, "ResponseStarted")

    def _tell(self, opened: _Open, stage: Stage, moment: datetime | None = None) -> None:
        if stage in opened.telling.omitted:
            return
        event = {
            **opened.event,
            "stage": stage,
            "requestReceivedTimestamp": format_micro_time(opened.received),
            "stageTimestamp": format_micro_time(self.clock.now() if moment is None else moment),
        }
        event = {field: event[field] for field in _ORDER if field in event}
        self._events.of().inc()
        if not self.trail.log.offer(orjson.dumps(event) + b"\n"):
            self._errors.of("log").inc()


def _event(call: Call, user: UserInfo, telling: Telling) -> Json:
    """What is known before the answer."""
    request, info = call.request, call.info
    event: Json = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": telling.level,
        "auditID": call.audit_id,
        "requestURI": quote(request.path) + (f"?{request.query}" if request.query else ""),
        "verb": info.verb,
        "user": _user(user),
    }
    sources = _sources(request)
    if sources:
        event["sourceIPs"] = sources
    agent = request.header("user-agent")
    if len(agent) > USER_AGENT_CHARACTERS:
        agent = agent[:USER_AGENT_CHARACTERS] + "...TRUNCATED"
    if agent:
        event["userAgent"] = agent
    if info.is_resource:
        event["objectRef"] = _reference(call)
    return event


def _user(user: UserInfo) -> Json:
    told: Json = {"username": user.name, "uid": user.uid, "groups": list(user.groups)}
    told = {key: value for key, value in told.items() if value}
    if user.extra:
        told["extra"] = {key: list(values) for key, values in user.extra}
    return told


def _reference(call: Call, found: Json | None = None) -> Json:
    """Where the request went; what the path does not say comes from the object."""
    info, metadata = call.info, (found or {}).get("metadata") or {}
    told = {
        "resource": info.resource,
        "namespace": info.namespace or metadata.get("namespace"),
        "name": info.name or metadata.get("name"),
        "uid": metadata.get("uid"),
        "apiGroup": info.group,
        "apiVersion": info.version,
        "resourceVersion": metadata.get("resourceVersion"),
        "subresource": info.subresource,
    }
    return {key: value for key, value in told.items() if value}


def _sources(request: Request) -> list[str]:
    """Proxies first, as they were passed; the connection's own end last. Source: apimachinery/pkg/util/net SourceIPs."""
    given = [
        part.strip() for value in request.values("x-forwarded-for") for part in value.split(",")
    ] + request.values("x-real-ip")
    found = list(dict.fromkeys(address for address in given if _is_address(address)))
    if request.peer_address and (not found or found[-1] != request.peer_address):
        found.append(request.peer_address)
    return found


def _is_address(text: str) -> bool:
    return bool(text) and all(char in "0123456789abcdefABCDEF:." for char in text)


def _attempted(request: Request) -> str:
    words = request.header("authorization").strip().split(" ")
    scheme = words[0].lower() if len(words) > 1 else ""
    tried = [scheme] if scheme in ("basic", "bearer") else []
    if "access_token=" in request.query:
        tried.append("access_token")
    if request.peer_certificate:
        tried.append("x509")
    if tried:
        return f"Authentication failed, attempted: {', '.join(tried)}"
    return "Authentication failed, no credentials provided"


def _answered(opened: _Open, call: Call, response: Response) -> None:
    """Complete the event by what was sent and what the answer says."""
    event, telling = opened.event, opened.telling
    if (acting := _user(call.user)) != event["user"]:
        event["impersonatedUser"] = acting
    whole = telling.reaches("RequestResponse")
    value = answered(response) if whole or _may_be_status(response) else None
    status = value if isinstance(value, dict) and value.get("kind") == "Status" else {}
    told = {field: status[field] for field in _STATUS_FIELDS if status.get(field)}
    event["responseStatus"] = {"metadata": {}, **told, "code": response.status}
    _describe_request(event, telling, call)
    if whole and value is not None:
        event["responseObject"] = _bare(telling, value)
    if call.annotations:
        event["annotations"] = dict(sorted(call.annotations.items()))


def _describe_request(event: Json, telling: Telling, call: Call) -> None:
    described = call.info.is_resource and call.info.verb in _DESCRIBED
    sent = requested(call) if described or telling.reaches("Request") else None
    if described and isinstance(sent, dict):
        event["objectRef"] = _reference(call, sent)
    if sent is not None and telling.reaches("Request"):
        event["requestObject"] = _bare(telling, sent)


def _may_be_status(response: Response) -> bool:
    found = response.document
    return b'"kind":"Status"' in response.body[:64] or (isinstance(found, dict) and "status" in found)


def requested(call: Call) -> Any:
    """The request's object as it was sent, decoded; None when there is none or it cannot be read."""
    request = call.request
    if request.document is not None:
        return request.document.value if isinstance(request.document, Document) else request.document
    if not request.body:
        return None
    kind = call.kind.gvk if call.kind is not None else GroupVersionKind("", "v1", "")
    try:
        return _decoder(request.header("content-type"))(request.body, kind)
    except (ValueError, YamlError):
        return None


def _decoder(content_type: str) -> Callable[[bytes, GroupVersionKind], Any]:
    if "protobuf" in content_type:
        return decode_protobuf
    if "yaml" in content_type:
        return lambda body, kind: decode_yaml(body)[0]
    return lambda body, kind: orjson.loads(body)


def answered(response: Response) -> Any:
    """The answer's object, decoded; None for what is none."""
    found = response.document
    if isinstance(found, Document):
        return found.value
    if isinstance(found, ListResult):
        kind = found.kind
        items = [document.value for document in found.documents]
        head = {"kind": f"{kind.kind}List", "apiVersion": kind.api_version}
        return {**head, "metadata": {"resourceVersion": str(found.rv)}, "items": items}
    if found is not None or response.stream is not None:
        return found
    try:
        return orjson.loads(response.whole)
    except ValueError:
        return None


def _bare(telling: Telling, value: Any) -> Any:
    """Without managedFields, where the policy omits them: of the object, of a list's items, of a table's rows."""
    if not telling.without_managed_fields or not isinstance(value, dict):
        return value
    bare = _unmanaged(value)
    if isinstance(value.get("items"), list):
        bare["items"] = [_unmanaged(item) for item in value["items"]]
    if value.get("kind") == "Table":
        bare["rows"] = [
            {**row, "object": _unmanaged(row.get("object") or {})} for row in value.get("rows") or ()
        ]
    return bare


def _unmanaged(value: Json) -> Json:
    metadata = value.get("metadata")
    if not isinstance(metadata, dict) or "managedFields" not in metadata:
        return {**value}
    return {**value, "metadata": {key: part for key, part in metadata.items() if key != "managedFields"}}


async def _ended(stream: AsyncIterator[bytes], then: Callable[[], None]) -> AsyncIterator[bytes]:
    try:
        async for chunk in stream:
            yield chunk
    finally:
        then()
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()
