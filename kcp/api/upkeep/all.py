"""Looks after what changed, one object after another; woken by the log, and by the clock for what is not due yet.

Several servers on one log all do it: whoever comes second finds it done.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import structlog

from kcp.api.allocation import SERVICES
from kcp.api.cluster_ips import ADDRESSES, DEFAULT_RANGE, RANGES, addresses, keys_of
from kcp.api.context import Server
from kcp.api.upkeep import cluster_ips, flow_control, flow_objects, service_ranges
from kcp.machinery.errors import ApiError
from kcp.store.protocol import Event, Key, StoreError
from kcp.wire.deadline import Bell

log = structlog.get_logger(__name__)

WATCHED = (
    SERVICES,
    ADDRESSES,
    RANGES,
    flow_control.SCHEMAS,
    flow_control.LEVELS,
)
RETRY_S = 1.0
"""After a failure; doubled each time up to `LONGEST_RETRY_S`."""
LONGEST_RETRY_S = 64.0
SLEEP_S = 3600.0


@attrs.define(eq=False)
class Upkeep:
    """Owned by the task that runs `run`."""

    server: Server
    _due: dict[Key, None] = attrs.field(factory=dict)
    _later: dict[Key, float] = attrs.field(factory=dict)
    """When to look at a key again, on the monotonic clock."""
    _failures: dict[Key, int] = attrs.field(factory=dict)
    _maintain_at: float | None = None
    """When to look whether the flow control objects are as they should be; None: nobody touched them."""
    _told: dict[str, str] = attrs.field(factory=dict)
    _bell: Bell = attrs.field(factory=Bell)

    @classmethod
    def of(cls, server: Server) -> Upkeep:
        """The one of this server."""
        found = server.extras.setdefault("upkeep", cls(server))
        assert isinstance(found, cls)
        return found

    async def run(self) -> None:
        """Until cancelled."""
        unlisten = self.server.store.listen(self._feed)
        try:
            self.find_all()
            while True:
                await self.round()
                await self._bell.wait(self._wait_s())
        finally:
            unlisten()

    def _feed(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.key.resource in WATCHED:
                self._changed(event)

    def _changed(self, event: Event) -> None:
        key = event.key
        self._due[key] = None
        if key.resource in (flow_control.SCHEMAS, flow_control.LEVELS):
            self.noticed()
        if key.resource == flow_control.LEVELS:
            self._due.update(dict.fromkeys(flow_control.schemas_of(self.server, key.name)))
        elif key.resource in (SERVICES, ADDRESSES):
            self._due.update(dict.fromkeys(_partners(event)))
        self._bell.ring()

    def noticed(self) -> None:
        """Somebody changed a flow control object."""
        if self._maintain_at is None:
            self._maintain_at = self.server.clock.monotonic() + flow_objects.PERIOD_S

    def find_all(self) -> None:
        """Everything is due, as at a start."""
        for resource in WATCHED:
            self._due.update(dict.fromkeys(record.key for record in self.server.store.list(resource)))
        self._due[Key(RANGES, "", DEFAULT_RANGE)] = None

    async def round(self) -> None:
        """Look after everything that is due."""
        now_s = self.server.clock.monotonic()
        if self._maintain_at is not None and self._maintain_at <= now_s:
            await self._maintain()
        for key in [key for key, at_s in self._later.items() if at_s <= now_s]:
            del self._later[key]
            self._due[key] = None
        due, self._due = self._due, {}
        for key in due:
            await self._look_after(key)

    async def _maintain(self) -> None:
        self._maintain_at = None
        try:
            await flow_objects.maintain(self.server)
        except (ApiError, StoreError) as error:
            self._maintain_at = self.server.clock.monotonic() + flow_objects.PERIOD_S
            log.warning("flow control objects not maintained", error=str(error))

    async def _look_after(self, key: Key) -> None:
        try:
            again_s = await self._settle(key)
        except (ApiError, StoreError) as error:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            again_s = min(RETRY_S * 2 ** (failures - 1), LONGEST_RETRY_S)
            log.warning("upkeep failed", key=str(key), error=str(error), again_s=again_s)
        else:
            self._failures.pop(key, None)
        if again_s is not None:
            self._later[key] = self.server.clock.monotonic() + again_s

    async def _settle(self, key: Key) -> float | None:
        if key.resource == ADDRESSES:
            return await cluster_ips.look_after_address(self.server, key)
        if key.resource == SERVICES:
            await cluster_ips.look_after_service(self.server, key)
        elif key.resource == RANGES:
            await service_ranges.look_after(self.server, key.name, self._told)
        elif key.resource == flow_control.SCHEMAS:
            await flow_control.look_after(self.server, key.name)
        return None

    def _wait_s(self) -> float:
        if self._due:
            return 0.0
        now_s = self.server.clock.monotonic()
        later_s = [*self._later.values(), now_s + SLEEP_S if self._maintain_at is None else self._maintain_at]
        return max(0.0, min(later_s) - now_s)


def _partners(event: Event) -> list[Key]:
    """The other side of what belongs together: a Service's addresses, an address's Service."""
    found = [record.value for record in (event.previous, event.record) if record is not None]
    if event.key.resource == SERVICES:
        return [key for obj in found for key in keys_of(addresses(obj.get("spec") or {}))]
    parents = [(obj.get("spec") or {}).get("parentRef") or {} for obj in found]
    return [
        Key(SERVICES, parent.get("namespace") or "", parent.get("name") or "")
        for parent in parents
        if parent.get("resource") == "services"
    ]
