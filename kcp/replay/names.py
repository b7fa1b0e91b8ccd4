"""Between the components of a second run and the API: generated names as they were in the recorded log, writes in its pace.

What is created with a generateName gets the name that the log tells for the next one of its kind, so that the second run
speaks of the same pods as the first, as long as it does the same; afterwards the API server makes names up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio
import attrs

from kcp.base.clock import Clock, microseconds
from kcp.client.client import CREATES_PATH
from kcp.client.transport import InProcessTransport
from kcp.machinery.gvk import group_resource
from kcp.replay.pace import Pace, place_of
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
    """A write is there when it was recorded; `latency_s` is what one takes of which nothing is recorded."""

    inner: InProcessTransport
    names: Names
    pace: Pace
    clock: Clock
    latency_s: float = 0.0
    in_process: bool = True

    async def request(self, request: Request, timeout_s: float) -> Response:
        if request.method == "POST" and isinstance(request.document, dict):
            request.document = self._named(request.path, request.document)
        if request.method != "GET":
            await self._wait(request)
        return await self.inner.request(request, timeout_s)

    async def _wait(self, request: Request) -> None:
        user = request.identity if request.identity is not None else self.inner.identity
        wait_us = self.pace.write_us(user.name, request, microseconds(self.clock.now()))
        wait_s = self.latency_s if wait_us is None else wait_us / 1e6
        if wait_s:
            await anyio.sleep(wait_s)

    def _named(self, path: str, document: Json) -> Json:
        if path == CREATES_PATH:
            items = [{**item, "object": self._item(item)} for item in document.get("items") or ()]
            return {**document, "items": items}
        place = place_of(path)
        return document if place is None or place[2] else self.names.named(place[0], place[1], document)

    def _item(self, item: Json) -> Json:
        return self.names.named(
            group_resource(item["group"], item["plural"]), item["namespace"], item["object"]
        )

    async def close(self) -> None:
        await self.inner.close()
