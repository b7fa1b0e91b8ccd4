"""A control plane on the deterministic loop, asked as a client asks it: bytes in, bytes out, a client certificate."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import anyio
import anyio.abc
import attrs

from kcp.controlplane.cluster import Cluster
from kcp.wire.http import Request, Response

Json = dict[str, Any]
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
JSON_PATCH, APPLY = "application/json-patch+json", "application/apply-patch+yaml"
WATCH_DEADLINE_S = 30.0
DEADLINE_S = 300.0
_PAUSE_S = 0.5


@attrs.frozen
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return str(self.value["message"])


@attrs.define
class Watch:
    """An open watch. `next` waits in virtual time; a watch that stays silent fails the test."""

    lines: AsyncIterator[bytes]
    _events: list[Json] = attrs.field(factory=list)
    _came: anyio.Event = attrs.field(factory=anyio.Event)

    async def pump(self) -> None:
        """Reads until the watch ends."""
        rest = b""
        async for chunk in self.lines:
            *whole, rest = (rest + chunk).split(b"\n")
            self._events += [json.loads(line) for line in whole if line]
            self._came.set()

    async def next(self) -> Json:
        with anyio.fail_after(WATCH_DEADLINE_S):
            while not self._events:
                self._came = anyio.Event()
                await self._came.wait()
        return self._events.pop(0)

    async def until(self, kind: str, name: str = "") -> Json:
        """The next event of that type (and name)."""
        while True:
            event = await self.next()
            if event["type"] == kind and name in ("", event["object"]["metadata"]["name"]):
                return dict(event["object"])

    async def seen(self, count: int) -> list[tuple[str, str]]:
        events = [await self.next() for _ in range(count)]
        return [(event["type"], event["object"]["metadata"]["name"]) for event in events]

    @property
    def pending(self) -> list[Json]:
        """What came and was not taken."""
        return list(self._events)

    def take(self) -> list[Json]:
        """What has come by now, oldest first."""
        taken, self._events = self._events, []
        return taken

    async def silent(self, seconds: float = 1.0) -> bool:
        """Whether nothing comes for so long."""
        await anyio.sleep(seconds)
        return not self._events


@attrs.frozen
class Door:
    cluster: Cluster
    certificate: bytes
    group: anyio.abc.TaskGroup
    namespaces: list[str] = attrs.field(factory=list)
    """Made by the scenario; deleted after it where others come after it."""

    async def send(
        self, method: str, target: str, body: Any = None, content_type: str = "", **headers: str
    ) -> Response:
        path, _, query = target.partition("?")
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent.setdefault("accept", "application/json")
        if body is not None:
            sent["content-type"] = content_type or "application/json"
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        certificate = b"" if "authorization" in sent else self.certificate
        return await self.cluster.handler(
            Request(method, path, query, sent, raw, peer_certificate=certificate)
        )

    async def ask(
        self, method: str, target: str, body: Any = None, content_type: str = "", **headers: str
    ) -> Answer:
        response = await self.send(method, target, body, content_type, **headers)
        return Answer(response.status, {k.lower(): v for k, v in response.headers}, response.body)

    async def _well(self, code: int, method: str, target: str, *rest: Any) -> Any:
        answer = await self.ask(method, target, *rest)
        assert answer.status == code, (method, target, answer.status, answer.body)
        return answer.value

    async def create(self, path: str, obj: Json) -> Json:
        made: Json = await self._well(201, "POST", path, obj)
        return made

    async def get(self, path: str) -> Any:
        return await self._well(200, "GET", path)

    async def update(self, path: str, obj: Json) -> Json:
        made: Json = await self._well(200, "PUT", path, obj)
        return made

    async def patch(self, path: str, patch: Any, kind: str = MERGE) -> Json:
        made: Json = await self._well(200, "PATCH", path, patch, kind)
        return made

    async def delete(self, path: str, options: Json | None = None) -> Json:
        made: Json = await self._well(200, "DELETE", path, options)
        return made

    async def refused(self, code: int, method: str, path: str, *rest: Any) -> str:
        """The message of a request that must be refused with that code."""
        return str((await self._well(code, method, path, *rest))["message"])

    async def items(self, path: str) -> list[Json]:
        return list((await self.get(path))["items"])

    async def names(self, path: str) -> list[str]:
        return [item["metadata"]["name"] for item in await self.items(path)]

    async def revision(self, path: str) -> str:
        return str((await self.get(path))["metadata"]["resourceVersion"])

    async def watch(self, path: str, rv: str, selector: str = "") -> Watch:
        query = f"?watch=true&resourceVersion={rv}" + (f"&labelSelector={selector}" if selector else "")
        response = await self.send("GET", path + query)
        assert response.status == 200 and response.stream is not None, response.body
        watch = Watch(response.stream)
        self.group.start_soon(watch.pump)
        return watch

    async def namespace(self, name: str) -> str:
        """A namespace with its default service account. Gives the path of what is in it."""
        await self.create("/api/v1/namespaces", {"metadata": {"name": name}})
        self.namespaces.append(name)
        account = f"/api/v1/namespaces/{name}/serviceaccounts"
        if (await self.ask("GET", f"{account}/default")).status == 404:
            await self.ask("POST", account, {"metadata": {"name": "default"}})
        return f"/api/v1/namespaces/{name}"

    async def eventually(self, path: str, holds: Callable[[Any], object], seconds: float = DEADLINE_S) -> Any:
        """What the path gives once it is as wanted; a path that is not there yet counts as not yet."""
        body = b""
        for _ in range(int(seconds / _PAUSE_S)):
            answer = await self.ask("GET", path)
            body = answer.body
            if answer.status == 200 and holds(answer.value):
                return answer.value
            await anyio.sleep(_PAUSE_S)
        raise AssertionError(f"not within {seconds:g} s: {path} is {body.decode()}")

    async def gone(self, path: str, seconds: float = DEADLINE_S) -> None:
        """Once the path answers 404."""
        for _ in range(int(seconds / _PAUSE_S)):
            if (await self.ask("GET", path)).status == 404:
                return
            await anyio.sleep(_PAUSE_S)
        raise AssertionError(f"still there after {seconds:g} s: {path}")

    async def always(self, path: str, holds: Callable[[Any], object], seconds: float) -> None:
        """For so long, whenever one looks, the path gives what is wanted."""
        for _ in range(int(seconds / _PAUSE_S)):
            found = await self.get(path)
            assert holds(found), found
            await anyio.sleep(_PAUSE_S)
