"""Commits decisions: many bindings in one request, each with its own outcome; one by one over the network.

Source: k8s v1.36 pkg/scheduler/framework/plugins/defaultbinder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio

from kcp.base.values import frozen
from kcp.client.client import Client
from kcp.client.transport import Unreachable
from kcp.machinery import meta
from kcp.machinery.errors import ApiError, from_status
from kcp.scheduler.dra.binding import ClaimBinding
from kcp.scheduler.queue import QueuedPod

Json = dict[str, Any]

PATH = "/kcp/v1/bindings"
CONCURRENCY = 32
"""Bindings under way at once where they cannot be sent together."""


@frozen
class Binding:
    """A decision on its way into the log. `pod` is what was decided on, `decision` the id of its row."""

    queued: QueuedPod
    pod: Json
    node: str
    decision: int
    gang: str = ""
    """Of several bindings of one gang all are committed or none."""
    claims: tuple[ClaimBinding, ...] = ()
    """Device claims that must be bound first."""

    def item(self) -> Json:
        metadata = self.pod["metadata"]
        return {
            "namespace": metadata.get("namespace", ""),
            "name": metadata["name"],
            "uid": metadata.get("uid", ""),
            "node": self.node,
            "decision": self.decision,
        }

    def object(self) -> Json:
        metadata = self.pod["metadata"]
        return {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {
                "name": metadata["name"],
                "namespace": metadata.get("namespace", ""),
                "uid": metadata.get("uid", ""),
            },
            "target": {"kind": "Node", "name": self.node},
        }


async def commit(client: Client, bindings: Sequence[Binding]) -> list[ApiError | Unreachable | None]:
    """None for each binding that is in the log, else why it is not. Those of a gang come alone, and stand or fall together.

    Over the network there is no such request: a gang's bindings go out side by side.
    """
    if not client.transport.in_process:
        return await _one_by_one(client, bindings)
    try:
        body: Json = {"bindings": [b.item() for b in bindings]}
        if bindings[0].gang:
            body["atomic"] = True
        written = await client.request("POST", PATH, body=body)
    except (ApiError, Unreachable) as error:
        return [error] * len(bindings)
    results: list[Json] = (written.object or {}).get("results") or []
    return [from_status(result["status"]) if "status" in result else None for result in results]


async def _one_by_one(client: Client, bindings: Sequence[Binding]) -> list[ApiError | Unreachable | None]:
    outcomes: list[ApiError | Unreachable | None] = [None] * len(bindings)
    limit = anyio.CapacityLimiter(CONCURRENCY)

    async def bind(number: int, binding: Binding) -> None:
        async with limit:
            try:
                await client.create(
                    "pods",
                    binding.object(),
                    meta.namespace(binding.pod),
                    name=meta.name(binding.pod),
                    subresource="binding",
                )
            except (ApiError, Unreachable) as error:
                outcomes[number] = error

    async with anyio.create_task_group() as group:
        for number, binding in enumerate(bindings):
            group.start_soon(bind, number, binding)
    return outcomes
