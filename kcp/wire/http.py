"""Requests and responses: the types that the server, the API and the client share.

The in-process transport passes the same objects without bytes in between: `document` stands for a body that
nobody needs to encode, `events` for a stream that nobody needs to frame.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import attrs


@attrs.define(slots=True)
class Request:
    """One request. The task that handles it owns it.

    `path` is percent-decoded, `query` is the raw query string, header names are lower-case; the values of a header
    that was sent several times are joined by newlines (`values` splits them).
    `identity` is set by trusted in-process callers only (a UserInfo); requests from sockets are authenticated.
    `cause` is the decision that made an in-process request, so that its events say why they happened.
    `peer_certificate` is the client certificate in DER, `b""` without one.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""
    document: Any = None
    identity: Any = None
    cause: Any = None
    fence: Any = None
    peer_certificate: bytes = b""
    peer_address: str = ""
    upgrade: Any = None
    """The connection, for verbs that take it over (exec, attach, port-forward); None otherwise."""

    def header(self, name: str, default: str = "") -> str:
        """The value of a header; the first one when it was sent several times."""
        value = self.headers.get(name, default)
        return value if "\n" not in value else value.partition("\n")[0]

    def values(self, name: str) -> list[str]:
        """All values of a header, in the order sent."""
        value = self.headers.get(name)
        return value.split("\n") if value is not None else []


@attrs.define(slots=True)
class Response:
    """One answer: exactly one of `body`, `parts`, `stream` or `events` is what it carries.

    `parts` are a large body that nobody has to put together: they are written one after the other.

    `document` is the decoded answer for in-process callers (a Document, a list page, a Status), which spares
    both sides the codec; `body` may then be empty. `events` yields batches of watch events in order.
    """

    status: int = 200
    headers: list[tuple[str, str]] = attrs.field(factory=list)
    body: bytes = b""
    parts: Sequence[bytes] = ()
    document: Any = None
    stream: AsyncIterator[bytes] | None = None
    events: AsyncIterator[Sequence[Any]] | None = None

    @property
    def whole(self) -> bytes:
        """Body or parts, as one."""
        return b"".join(self.parts) if self.parts else self.body

    def header(self, name: str, default: str = "") -> str:
        name = name.lower()
        return next((value for key, value in self.headers if key.lower() == name), default)


Handler = Callable[[Request], Awaitable[Response]]
"""What serves requests: the API's `app`, for the socket server and the in-process transport alike.

One that has a method `at_once(request) -> Response | None` is asked there first for every GET without a body. It runs
outside of any task and answers only what it can without waiting; None has no effects and leads to an ordinary call.
"""
