"""The Leases of many nodes renewed in one request: what each node would ask for, under its own name.

A renewal that is due waits a moment for others; the answers go back to those who waited. Only a server in this process
takes them together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from kcp.client import answers
from kcp.client.client import Client
from kcp.machinery.errors import ApiError
from kcp.machinery.times import format_micro_time

if TYPE_CHECKING:
    from kcp.node.heartbeat import LeaseKeeper

PATH = "/kcp/v1/renewals"
MANAGER = "fieldManager=kubelet"
GATHER_S = 0.1
MAX_TOGETHER = 64


@attrs.define(slots=True, eq=False)
class Renewals:
    """A state machine on the fleet's lease loop. `identity_for` gives what a node is to the server, by its name."""

    client: Client
    identity_for: Callable[[str], Any]
    waiting: dict[LeaseKeeper, None] = attrs.field(factory=dict)
    queued: bool = False
    busy: bool = False
    again: bool = False
    _gathering: bool = False

    def add(self, keeper: LeaseKeeper) -> None:
        """Renew soon; the keeper hears how it went."""
        self.waiting[keeper] = None
        if not self._gathering:
            self._gathering = True
            services = keeper.agent.services
            services.timers.after(GATHER_S, lambda: services.lease_loop.add(self))

    async def step(self) -> None:
        self._gathering = False
        waiting, self.waiting = list(self.waiting), {}
        for first in range(0, len(waiting), MAX_TOGETHER):
            some = waiting[first : first + MAX_TOGETHER]
            try:
                await self._renew([keeper for keeper in some if not keeper.agent.silent])
            except Exception:
                for keeper in waiting[first:]:
                    keeper.try_later()
                raise

    async def _renew(self, keepers: list[LeaseKeeper]) -> None:
        if not keepers:
            return
        try:
            done = await self.client.request(
                "POST", PATH, query=MANAGER, body={"items": [self._item(keeper) for keeper in keepers]}
            )
            outcomes = [answers.bulk_outcome(result, 200) for result in done.object["results"]]
        except ApiError as error:
            for keeper in keepers:
                keeper.not_renewed(error)
            return
        for keeper, outcome in zip(keepers, outcomes, strict=True):
            if isinstance(outcome, ApiError):
                keeper.not_renewed(outcome)
            else:
                keeper.renewed(outcome.object)

    def _item(self, keeper: LeaseKeeper) -> dict[str, Any]:
        lease, name = keeper.lease, keeper.agent.spec.name
        assert lease is not None
        metadata = lease["metadata"]
        return {
            "user": self.identity_for(name),
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "holder": name,
            "revision": int(metadata["resourceVersion"]),
            "renewTime": format_micro_time(keeper.agent.services.clock.now()),
        }
