"""Nodes played by hand: a test says what becomes of pods, through the API, in virtual time.

    hand = Hand(client)
    await hand.until(lambda: ..., run=succeed)

Every pod gets an address and a status once; what leaves is let go at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import attrs

from kcp.client.client import Client
from kcp.client.transport import InProcessTransport
from kcp.machinery import meta
from kcp.machinery.errors import ApiError
from kcp.machinery.times import format_time
from kcp.wire.http import Request, Response

Json = dict[str, Any]
Play = Callable[[Json], Json | None]
"""The status of a pod that has none yet, or None to leave it pending."""

STEP_S = 0.25


def ready(pod: Json) -> Json:
    return {"phase": "Running", "conditions": [_ready("True")]}


def unready(pod: Json) -> Json:
    return {"phase": "Running", "conditions": [_ready("False")]}


def ended(code: int) -> Play:
    """Every pod ends at once with that exit code."""

    def status(pod: Json) -> Json:
        state = {"terminated": {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}}
        names = [container["name"] for container in pod["spec"]["containers"]]
        containers = [
            {"name": n, "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": state}
            for n in names
        ]
        phase = "Succeeded" if code == 0 else "Failed"
        return {"phase": phase, "conditions": [_ready("False")], "containerStatuses": containers}

    return status


def pending(pod: Json) -> Json | None:
    return None


def _ready(value: str) -> Json:
    return {"type": "Ready", "status": value}


@attrs.define
class Hand:
    """Owned by one test. `play` decides about new pods; the clock is the loop's."""

    client: Client
    now: Callable[[], Any]
    play: Play = ready
    namespace: str = "default"
    _seen: dict[str, int] = attrs.field(factory=dict)

    async def pods(self) -> list[Json]:
        return list((await self.client.list("pods", self.namespace)).items)

    async def names(self) -> list[str]:
        return [meta.name(pod) for pod in await self.pods()]

    async def step(self) -> None:
        """Once over all pods."""
        for pod in await self.pods():
            if meta.is_deleting(pod):
                await self._let_go(pod)
            elif meta.uid(pod) not in self._seen:
                status = self.play(pod)
                if status is not None:
                    self._seen[meta.uid(pod)] = len(self._seen) + 1
                    await self.set_status(pod, status)

    async def _let_go(self, pod: Json) -> None:
        try:
            await self.client.delete("pods", meta.name(pod), self.namespace, grace_s=0)
        except ApiError as error:
            assert error.code == 404

    async def set_status(self, pod: Json, status: Json) -> None:
        stamp = format_time(self.now())
        conditions = [{"lastTransitionTime": stamp, **c} for c in status.get("conditions", ())]
        statuses = [_stamped(entry, stamp) for entry in status.get("containerStatuses", ())]
        number = self._seen.setdefault(meta.uid(pod), len(self._seen) + 1)
        ip = f"10.0.{number // 250}.{number % 250 + 1}"
        given = {**status, "conditions": conditions, "podIP": ip, "podIPs": [{"ip": ip}]}
        if statuses:
            given["containerStatuses"] = statuses
        await self.client.patch(
            "pods", meta.name(pod), {"status": given}, "merge", self.namespace, subresource="status"
        )

    async def settle(self, seconds: float) -> None:
        """Play for that long."""
        for _ in range(int(seconds / STEP_S)):
            await self.step()
            await anyio.sleep(STEP_S)

    async def until(self, holds: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
        """Play until the condition holds; fails when it does not in time."""
        for _ in range(int(seconds / STEP_S)):
            await self.step()
            await anyio.sleep(STEP_S)
            if await holds():
                return
        raise AssertionError(f"not within {seconds:g} s; pods: {await self.names()}")


def _stamped(entry: Json, stamp: str) -> Json:
    ended_ = entry["state"]["terminated"]
    return {**entry, "state": {"terminated": {"startedAt": stamp, "finishedAt": stamp, **ended_}}}


@attrs.define
class Refusals:
    """Wraps transports and keeps what was answered with 403: nothing, if every identity may do its work."""

    seen: list[str] = attrs.field(factory=list)

    def wrap(self, transport: InProcessTransport) -> _Watched:
        return _Watched(transport, self.seen)


@attrs.define
class _Watched:
    inner: InProcessTransport
    seen: list[str]
    in_process: bool = True

    async def request(self, request: Request, timeout_s: float) -> Response:
        response = await self.inner.request(request, timeout_s)
        if response.status == 403:
            self.seen.append(f"{self.inner.identity.name}: {request.method} {request.path}")
        return response

    async def close(self) -> None:
        await self.inner.close()
