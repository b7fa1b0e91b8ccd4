"""Between the components of a second run and the API: generated names as they were in the recorded log, writes as slow.

What is created with a generateName gets the name that the log tells for the next one of its kind, so that the second run
speaks of the same pods as the first, as long as it does the same; afterwards the API server makes names up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio
import attrs

from kcp.client.client import CREATES_PATH
from kcp.client.transport import InProcessTransport
from kcp.machinery.gvk import group_resource
from kcp.store.protocol import Key
from kcp.wire.http import Request, Response

Json = dict[str, Any]
Place = tuple[str, str, str]
"""(resource, namespace, generateName)."""


@attrs.define
class Names:
    """`left` is what is still to be given out; `taken` says whether an object has the name already."""

    left: dict[Place, deque[str]]
    taken: Callable[[Key], bool]

    @classmethod
    def of(cls, names: Mapping[Place, Sequence[str]], taken: Callable[[Key], bool]) -> Names:
        return cls({place: deque(given) for place, given in names.items()}, taken)

    def named(self, resource: str, namespace: str, obj: Json) -> Json:
        """The object, under a recorded name where it asks for a generated one."""
        metadata = obj.get("metadata") or {}
        base = metadata.get("generateName")
        if not base or metadata.get("name"):
            return obj
        left = self.left.get((resource, namespace, base))
        while left:
            name = left.popleft()
            if not self.taken(Key(resource, namespace, name)):
                return {**obj, "metadata": {**metadata, "name": name}}
        return obj


@attrs.define
class NamingTransport:
    """`latency_s` is what a write takes."""

    inner: InProcessTransport
    names: Names
    latency_s: float = 0.0
    in_process: bool = True

    async def request(self, request: Request, timeout_s: float) -> Response:
        if request.method != "GET" and self.latency_s:
            await anyio.sleep(self.latency_s)
        if request.method == "POST" and isinstance(request.document, dict):
            request.document = self._named(request.path, request.document)
        return await self.inner.request(request, timeout_s)

    def _named(self, path: str, document: Json) -> Json:
        if path == CREATES_PATH:
            items = [{**item, "object": self._item(item)} for item in document.get("items") or ()]
            return {**document, "items": items}
        _, root, *rest = path.split("/")
        group = rest.pop(0) if root == "apis" and rest else ""
        namespace = rest[2] if rest[1:2] == ["namespaces"] and len(rest) > 3 else ""
        return self.names.named(group_resource(group, rest[-1] if rest else ""), namespace, document)

    def _item(self, item: Json) -> Json:
        return self.names.named(
            group_resource(item["group"], item["plural"]), item["namespace"], item["object"]
        )

    async def close(self) -> None:
        await self.inner.close()
