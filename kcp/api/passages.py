"""Gets by a client that has just passed: the same request for another object of the same collection, without the walk.

    GET …/pods/a   walks the chain; who asked, what kind it is, how to answer are remembered for a second
    GET …/pods/b   the same headers on the same connection: only what depends on the object is asked

Asked anew each time is whether the user may, what the store has, and nothing else differs between the two. Remembered is
only what came with a client certificate, was answered with the object as it is stored, and left no notes. Anything else
than an object to hand out, refusals first of all, is left to the chain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from kcp.api.auth.protocol import Attributes, UserInfo
from kcp.api.context import Call, Server
from kcp.api.filters.telemetry import Telemetry
from kcp.api.negotiation import REVISION_HEADER
from kcp.apis.kind import Kind
from kcp.base.clock import Clock
from kcp.base.entropy import Entropy
from kcp.base.values import frozen
from kcp.store.protocol import Key, Record, Store
from kcp.wire.http import Request, Response

LIFE_S = 1.0
"""A certificate that runs out and a new FlowSchema are noticed so much later, at most."""
KEPT = 4096
_OWN = ("audit-id", REVISION_HEADER)
"""Headers that are another answer's own."""


@frozen
class Passage:
    """What one get has settled for those that differ in the object's name alone."""

    sent: Mapping[str, str]
    certificate: bytes
    until_s: float
    user: UserInfo
    kind: Kind
    namespace: str
    headers: tuple[tuple[str, str], ...]
    answered: Any
    took_s: Any

    def question(self, name: str) -> Attributes:
        kind = self.kind
        return Attributes(
            self.user, "get", kind.group, kind.version, kind.plural, namespace=self.namespace, name=name
        )


@attrs.define(eq=False)
class Passages:
    """By the headers' own identity, which is that of a connection that sends the same ones again, and the collection."""

    _server: Server
    _store: Store
    _clock: Clock
    _entropy: Entropy
    _telemetry: Telemetry
    _known: dict[tuple[int, str], Passage] = attrs.field(factory=dict)

    @classmethod
    def of(cls, server: Server) -> Passages:
        return cls(
            server,
            server.store,
            server.clock,
            server.entropy.stream("audit-id"),
            Telemetry.of(server),
        )

    def answer(self, request: Request) -> Response | None:
        """The object asked for, at the published revision; None when the chain has to be walked."""
        path = request.path
        at = path.rfind("/")
        passage = self._known.get((id(request.headers), path[:at]))
        if passage is None or request.query or passage.certificate is not request.peer_certificate:
            return None
        started_s = self._clock.monotonic()
        if started_s > passage.until_s:
            return None
        record = self._permitted(passage, path[at + 1 :])
        if record is None:
            return None
        headers = [
            *passage.headers,
            (REVISION_HEADER, str(record.rv)),
            ("audit-id", self._entropy.uid()),
        ]
        passage.answered.inc()
        passage.took_s.observe(self._clock.monotonic() - started_s)
        return Response(200, headers, record.document.encoded)

    def _permitted(self, passage: Passage, name: str) -> Record | None:
        if not name:
            return None
        record = self._store.get(Key(passage.kind.resource, passage.namespace, name))
        if record is None or self._server.authorizer.authorize(passage.question(name))[0] != "allow":
            return None
        return record

    def remember(self, call: Call, response: Response) -> None:
        """Note how this get was answered, if others can be answered the same way. The store must be up to date by itself."""
        request, kind, info = call.request, call.kind, call.info
        if response.status != 200 or kind is None or not self._is_plain(call):
            return
        namespace = info.namespace if kind.namespaced else ""
        record = self._store.get(Key(kind.resource, namespace, info.name))
        if record is None or response.body is not record.document.encoded:
            return
        if len(self._known) >= KEPT:
            self._known.clear()
        answered, took_s = self._telemetry.children(call, 200)
        self._known[id(request.headers), request.path[: request.path.rfind("/")]] = Passage(
            request.headers,
            request.peer_certificate,
            self._clock.monotonic() + LIFE_S,
            call.user,
            kind,
            namespace,
            tuple(header for header in response.headers if header[0] not in _OWN),
            answered,
            took_s,
        )

    def _is_plain(self, call: Call) -> bool:
        """Whether nothing but the path's last part tells this request from others with the same headers."""
        request, kind, info = call.request, call.kind, call.info
        assert kind is not None
        return (
            request.identity is None
            and bool(request.peer_certificate)
            and not request.query
            and request.path.endswith(f"/{info.name}")
            and kind.from_storage is None
            and kind.namespaced == bool(info.namespace)
            and not call.warnings
            and not call.annotations
            and "audit-id" not in request.headers
        )
