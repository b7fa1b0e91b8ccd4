"""Daemons on one log take turns: a component runs where its Lease is held, and what it writes is fenced by that Lease.

    election = Election(identity)
    await election.take_turns(client, "kube-scheduler", run, clock=clock, entropy=entropy)

A daemon alone on its log needs no election: its components just run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs

from kcp.base.clock import Clock
from kcp.base.entropy import Entropy
from kcp.base.settings import host_name, process_id
from kcp.base.values import frozen
from kcp.client.client import Client
from kcp.client.leader_election import LeaderElector, Timing
from kcp.machinery.fence import LeaseFence

NAMESPACE = "kube-system"


def nobody() -> LeaseFence | None:
    """The claim of a component that needs none."""
    return None


@frozen
class Turn:
    """The right to run, while it lasts. Without an elector it lasts for ever."""

    fence: Callable[[], LeaseFence | None] = nobody
    elected: bool = False

    def epoch(self) -> int:
        """How often the Lease changed hands; 0 without election."""
        claim = self.fence()
        return 0 if claim is None else claim.epoch


def identity(entropy: Entropy) -> str:
    """Who a candidate is: unique for each start of a daemon anywhere."""
    return f"{host_name()}_{process_id()}_{entropy.uid()}"


@attrs.define
class LastClaim:
    """The claim of one turn, and after its end still that one: a write on its way out is refused, not let through."""

    elector: LeaderElector
    claim: LeaseFence | None

    def __call__(self) -> LeaseFence | None:
        self.claim = self.elector.fence() or self.claim
        return self.claim


@frozen
class Election:
    """One daemon as a candidate for every component."""

    identity: str
    timing: Timing = attrs.field(factory=Timing)

    async def take_turns(
        self,
        client: Client,
        component: str,
        run: Callable[[Turn], Awaitable[Any]],
        *,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        """Run the component whenever its Lease is held here; until cancelled. Whatever `run` raises ends it."""
        elector = LeaderElector(
            client,
            NAMESPACE,
            component,
            self.identity,
            clock=clock,
            entropy=entropy,
            timing=self.timing,
        )

        async def lead() -> None:
            await run(Turn(LastClaim(elector, elector.fence()), elected=True))

        while True:
            await elector.run(lead)
