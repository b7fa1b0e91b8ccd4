"""Leader election on a coordination.k8s.io Lease, with client-go's rules and timing, and a fence for what it writes.

    elector = LeaderElector(client, "kube-system", "kube-scheduler", identity, clock=clock, entropy=entropy)
    client.fence = elector.fence
    await elector.run(lead)          # returns when leadership is lost; `lead` is then cancelled already

Clocks of other machines do not matter: a lease counts as expired when its record did not change for its duration, as
this process saw it. That keeps two leaders apart most of the time; the fence does it always, since every write of a
leader is refused once the Lease has another holder or is another Lease.
Source: k8s v1.36 client-go/tools/leaderelection/leaderelection.go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import structlog

from kcp.base.clock import Clock
from kcp.base.entropy import Entropy
from kcp.base.values import frozen
from kcp.client.client import Client
from kcp.machinery.errors import ApiError, Conflict, NotFound
from kcp.machinery.fence import LeaseFence
from kcp.machinery.times import format_micro_time

log = structlog.get_logger()

Json = dict[str, Any]

LEASES = "leases.coordination.k8s.io"
JITTER_FACTOR = 1.2
LEASE_DURATION_S, RENEW_DEADLINE_S, RETRY_PERIOD_S = 15.0, 10.0, 2.0


@frozen
class Timing:
    """Seconds. Raises ValueError when a leader could not renew in time."""

    lease_duration_s: float = LEASE_DURATION_S
    renew_deadline_s: float = RENEW_DEADLINE_S
    retry_period_s: float = RETRY_PERIOD_S

    def __attrs_post_init__(self) -> None:
        if self.lease_duration_s < 1:
            raise ValueError("leaseDuration must be greater than zero")
        if self.lease_duration_s <= self.renew_deadline_s:
            raise ValueError("leaseDuration must be greater than renewDeadline")
        if self.renew_deadline_s <= JITTER_FACTOR * self.retry_period_s:
            raise ValueError("renewDeadline must be greater than retryPeriod*JitterFactor")


class LeaderElector:
    """One candidate for one Lease. Owned by the task that runs `run`."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        identity: str,
        *,
        clock: Clock,
        entropy: Entropy,
        timing: Timing | None = None,
        on_new_leader: Callable[[str], None] | None = None,
    ) -> None:
        self.namespace, self.name, self.identity = namespace, name, identity
        self._client = client
        self._clock = clock
        self._entropy = entropy
        self._timing = timing or Timing()
        self._on_new_leader = on_new_leader
        self._reported = ""
        self._leading = False
        self._lease: Json | None = None
        self._spec_seen: Json | None = None
        self._seen_at_s = 0.0

    @property
    def leading(self) -> bool:
        return self._leading

    @property
    def leader(self) -> str:
        """The holder as last seen; "" for none."""
        return self._spec().get("holderIdentity") or ""

    def fence(self) -> LeaseFence | None:
        """The claim to put on writes; None while not leading."""
        if not self._leading or self._lease is None:
            return None
        uid = self._lease["metadata"]["uid"]
        epoch = self._spec().get("leaseTransitions") or 0
        return LeaseFence(self.namespace, self.name, uid, self.identity, epoch)

    def expires_in_s(self) -> float:
        """Seconds until the record, as seen here, expires; not positive when it has."""
        duration_s = self._spec().get("leaseDurationSeconds") or 0
        return self._seen_at_s + duration_s - self._clock.monotonic()

    async def run(self, lead: Callable[[], Awaitable[Any]]) -> None:
        """Acquire, then run `lead` while renewing. Returns when leadership is lost or `lead` returned.

        On the way out, cancellation included, a lease that is still ours is released.
        """
        await self._acquire()
        self._leading = True
        log.info(
            "became leader",
            lease=self.name,
            identity=self.identity,
            epoch=self._spec().get("leaseTransitions"),
        )
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._renew_until_lost, group.cancel_scope)
                await lead()
                group.cancel_scope.cancel()
        finally:
            self._leading = False
            await self._release()

    async def _acquire(self) -> None:
        while not await self.try_acquire_or_renew():
            self._report_leader()
            await anyio.sleep(self._entropy.jitter(self._timing.retry_period_s, JITTER_FACTOR))
        self._report_leader()

    async def _renew_until_lost(self, scope: anyio.CancelScope) -> None:
        while True:
            await anyio.sleep(self._timing.retry_period_s)
            if not await self._renew_in_time():
                break
        log.warning("lost leadership", lease=self.name, identity=self.identity)
        self._leading = False
        scope.cancel()

    async def _renew_in_time(self) -> bool:
        """Try until it works, within the renew deadline."""
        with anyio.move_on_after(self._timing.renew_deadline_s):
            while not await self.try_acquire_or_renew():
                if self.leader != self.identity:
                    return False
                await anyio.sleep(self._timing.retry_period_s)
            return True
        return False

    async def try_acquire_or_renew(self) -> bool:
        """One attempt; whether the lease is ours now. Never raises ApiError."""
        try:
            if self.leader == self.identity and self.expires_in_s() > 0 and await self._update_cached():
                return True
            return await self._acquire_or_renew()
        except ApiError as error:
            log.info("lease attempt failed", lease=self.name, identity=self.identity, error=str(error))
            return False

    async def _update_cached(self) -> bool:
        """The fast path of a renewal: no read first; False when someone wrote in between."""
        try:
            await self._update(self._renewed_spec())
        except ApiError:
            return False
        return True

    async def _acquire_or_renew(self) -> bool:
        try:
            lease = await self._client.get(LEASES, self.name, self.namespace)
        except NotFound:
            return await self._create()
        self._observe(lease)
        if self.leader and self.leader != self.identity and self.expires_in_s() > 0:
            return False
        spec = self._renewed_spec() if self.leader == self.identity else self._acquired_spec()
        await self._update(spec)
        return True

    async def _create(self) -> bool:
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {**self._mine(), "acquireTime": self._now(), "leaseTransitions": 0},
        }
        self._observe((await self._client.create(LEASES, lease)).object)
        return True

    async def _update(self, spec: Json) -> None:
        assert self._lease is not None
        written = await self._client.update(LEASES, {**self._lease, "spec": {**self._spec(), **spec}})
        self._observe(written.object)

    def _mine(self) -> Json:
        seconds = int(self._timing.lease_duration_s)
        return {"holderIdentity": self.identity, "leaseDurationSeconds": seconds, "renewTime": self._now()}

    def _renewed_spec(self) -> Json:
        return self._mine()

    def _acquired_spec(self) -> Json:
        transitions = (self._spec().get("leaseTransitions") or 0) + 1
        return {**self._mine(), "acquireTime": self._now(), "leaseTransitions": transitions}

    def _observe(self, lease: Json) -> None:
        """Remember the record; its time of validity counts from when it was seen to change."""
        self._lease = lease
        if lease.get("spec") != self._spec_seen:
            self._spec_seen = lease.get("spec")
            self._seen_at_s = self._clock.monotonic()

    def _spec(self) -> Json:
        return (self._lease or {}).get("spec") or {}

    def _now(self) -> str:
        return format_micro_time(self._clock.now())

    def _report_leader(self) -> None:
        if self.leader and self.leader != self._reported:
            self._reported = self.leader
            log.info("new leader", lease=self.name, leader=self.leader)
            if self._on_new_leader is not None:
                self._on_new_leader(self.leader)

    async def _release(self) -> None:
        """Give the lease away, so that the next leader need not wait for it to expire."""
        if self.leader != self.identity:
            return
        with anyio.move_on_after(self._timing.renew_deadline_s, shield=True):
            try:
                await self._give_away()
            except ApiError as error:
                log.info("lease not released", lease=self.name, error=str(error))

    async def _give_away(self) -> None:
        """A renewal that was under way when its task ended may have been written: then the version known here is an old one."""
        now = self._now()
        spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": now, "acquireTime": now}
        try:
            await self._update(spec)
        except Conflict:
            self._observe(await self._client.get(LEASES, self.name, self.namespace))
            if self.leader == self.identity:
                await self._update(spec)
