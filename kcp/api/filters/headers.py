"""Headers that every answer over a socket carries: Audit-Id, Cache-Control, Warning.

Source: k8s v1.36 apiserver/pkg/endpoints/filters/{audit_init,cachecontrol,warning}.go.
"""

from __future__ import annotations

import attrs

from kcp.api.context import Call, Server
from kcp.base.entropy import Entropy
from kcp.wire.http import Response

MAX_AUDIT_ID = 64
MAX_WARNINGS_BYTES = 4 * 1024
"""All warnings of one answer together; beyond it texts are cut to MAX_WARNING_RUNES, then dropped."""
MAX_WARNING_RUNES = 256


@attrs.define
class Headers:
    _entropy: Entropy

    @classmethod
    def of(cls, server: Server) -> Headers:
        return cls(server.entropy.stream("audit-id"))

    def enter(self, call: Call) -> None:
        """The client's own Audit-ID if it sent one, else a fresh one."""
        given = call.request.header("audit-id")
        call.audit_id = given[:MAX_AUDIT_ID] if given else self._entropy.uid()

    def leave(self, call: Call, response: Response) -> None:
        if call.request.identity is None:
            response.headers.append(("audit-id", call.audit_id))
            if not any(name == "cache-control" for name, _ in response.headers):
                response.headers.append(("cache-control", "no-cache, private"))
        for text in _bounded(call.warnings):
            response.headers.append(("warning", f"299 - {quoted(text)}"))


def _bounded(texts: list[str]) -> list[str]:
    if not texts or sum(len(text.encode()) for text in texts) <= MAX_WARNINGS_BYTES:
        return texts
    kept: list[str] = []
    size = 0
    for text in texts:
        short = text[:MAX_WARNING_RUNES]
        size += len(short.encode())
        if size > MAX_WARNINGS_BYTES:
            break
        kept.append(short)
    return kept


def quoted(text: str) -> str:
    """A quoted-string of a Warning header; control characters become blanks."""
    clean = "".join(char if char.isprintable() else " " for char in text)
    return '"' + clean.replace("\\", "\\\\").replace('"', '\\"') + '"'
