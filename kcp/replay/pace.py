"""When things happened in a recorded log, for a second run: decisions begin and writes arrive when they did.

Virtual time costs nothing, a processor does: what took a daemon 40 ms takes its second run none, and whatever happened
within those 40 ms would come in another order. So a key that its controller took up at 12:00:00.140 is taken up then, and
not when its event is there; a write that was in the log at 12:00:00.155 arrives then.

    decision of (controller, key)        waits for the next recorded one, if that is near
    write of (user, object)              the same

Only what is near is waited for, so a run in which something else happens goes on at its own pace. A log of a simulation, where
deciding took no time, has no pace to be kept.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any

import attrs

from kcp.base.clock import Clock, microseconds
from kcp.client.client import CREATES_PATH, DELETES_PATH
from kcp.client.workqueue.rate_limiting import RateLimitingQueue
from kcp.machinery.gvk import group_resource
from kcp.replay.breaking import flat
from kcp.scheduler.binding import PATH as BINDINGS_PATH
from kcp.store.protocol import Decision, Event, Key, Op
from kcp.wire.http import Request

Json = dict[str, Any]
NEAR_US = 500_000
"""Nothing waits longer for its recorded moment."""
PATIENT_US = 5_000_000
"""But while a control plane starts: there the order of things takes seconds to come about."""
GAP_US = 5
"""Between a decision and what it did not see, or did."""
SEEN_US = 100_000
"""A new pod is seen this soon."""
LATE_US = 1_000_000
"""What comes later than this is not what was recorded."""


@attrs.define
class Moments:
    """When one thing happened, again and again; each moment is used up once."""

    times_us: list[int] = attrs.field(factory=list)
    _next: int = 0

    def wait_us(self, now_us: int, near_us: int = NEAR_US) -> int:
        """Until the next recorded moment; 0 when it is now, or none is near. One that is now is used up."""
        times = self.times_us
        while self._next < len(times) and times[self._next] < now_us - LATE_US:
            self._next += 1
        if self._next == len(times):
            return 0
        ahead_us = times[self._next] - now_us
        if ahead_us <= 1:  # a clock that counts seconds is never exactly there
            self._next += 1
            return 0
        return ahead_us if ahead_us <= near_us else 0

    def take_us(self, now_us: int, near_us: int = NEAR_US) -> int | None:
        """As `wait_us`, but the moment that is waited for is used up at once; None when no moment is near."""
        left = self._next
        wait_us = self.wait_us(now_us, near_us)
        if wait_us:
            self._next += 1
        elif left == self._next or self.times_us[self._next - 1] < now_us - LATE_US:
            return None
        return wait_us


@attrs.define
class Sights:
    """Since when changes could be seen: what decisions had in their caches tells it.

    The time of an event is that of its batch, which began before it and was on the disk after it. Decisions that began
    meanwhile did not see it yet.
    """

    _seen: dict[str, list[tuple[int, int]]] = attrs.field(factory=dict)
    """By resource: (when, up to which revision)."""
    _sorted: dict[str, tuple[list[int], list[int]]] = attrs.field(factory=dict)

    def see(self, began_us: int, frontier: Mapping[str, int]) -> None:
        for resource, rv in frontier.items():
            self._seen.setdefault(resource, []).append((began_us, rv))

    def since_us(self, event: Event) -> int:
        """After the last decision that had not seen it; a new pod just before the first that had: it is scheduled at once."""
        began_us, revisions = self._of(event.key.resource)
        at = bisect_left(revisions, event.rv)
        since_us, first_us = event.ts_us, began_us[at] if at < len(began_us) else None
        if at and 0 <= began_us[at - 1] - since_us <= NEAR_US:
            since_us = began_us[at - 1] + GAP_US
            if first_us is not None:
                since_us = min(since_us, first_us)
        if event.key.resource == "pods" and event.op is Op.ADDED and first_us is not None:
            since_us = max(since_us, min(first_us - GAP_US, event.ts_us + SEEN_US))
        return since_us

    def _of(self, resource: str) -> tuple[list[int], list[int]]:
        """When, and up to which revision at least, in the order of both."""
        found = self._sorted.get(resource)
        if found is None:
            rows = sorted(self._seen.get(resource, ()))
            newest = list(accumulate((rv for _, rv in rows), max))
            found = self._sorted[resource] = [began_us for began_us, _ in rows], newest
        return found


@attrs.define
class Pace:
    """Of a log: `see` every event of a component that is run again, `decided` every decision of a controller."""

    starts: dict[tuple[str, str], Moments] = attrs.field(factory=dict)
    """By controller and key."""
    writes: dict[tuple[str, Key], Moments] = attrs.field(factory=dict)
    """By user name and object."""
    patient_until_us: int = 0

    def see(self, event: Event, since_us: int) -> None:
        """`since_us` is when it could be seen."""
        if event.op is not Op.RENEWED:
            found = self.writes.setdefault((event.cause.actor.username, event.key), Moments())
            found.times_us.append(since_us)

    def decided(self, decision: Decision, username: str) -> None:
        """What was refused left no event: it lies among the writes of its decision, which took about as long each."""
        found = self.starts.setdefault((decision.controller, decision.key), Moments())
        found.times_us.append(decision.now_us)
        asked = [effect for effect in flat(decision.effects) if effect.get("rv") or "error" in effect]
        for number, effect in enumerate(asked, 1):
            if "error" in effect and effect.get("name"):
                key = Key(effect.get("resource", ""), effect.get("namespace", ""), effect["name"])
                at_us = decision.now_us + decision.duration_us * number // len(asked)
                self.writes.setdefault((username, key), Moments()).times_us.append(at_us)

    def in_order(self) -> None:
        """To be called when everything was told."""
        for moments in (*self.starts.values(), *self.writes.values()):
            moments.times_us.sort()

    def _near_us(self, now_us: int) -> int:
        return PATIENT_US if now_us < self.patient_until_us else NEAR_US

    def start_us(self, controller: str, key: str, now_us: int) -> int:
        """How long a decision waits that could begin now."""
        found = self.starts.get((controller, key))
        return 0 if found is None else found.wait_us(now_us, self._near_us(now_us))

    def write_us(self, username: str, request: Request, now_us: int) -> int | None:
        """How long a write waits that was sent now; None: nothing near is known of any of its objects."""
        waits = []
        for key in keys_of(request):
            found = self.writes.get((username, key))
            wait_us = None if found is None else found.take_us(now_us, self._near_us(now_us))
            if wait_us is not None:
                waits.append(wait_us)
        return min(waits, default=None)


def keys_of(request: Request) -> Iterator[Key]:
    """What a write of a component is about; nothing for one without a name."""
    document: Mapping[str, Any] = request.document if isinstance(request.document, dict) else {}
    if request.path in (CREATES_PATH, DELETES_PATH, BINDINGS_PATH):
        for item in document.get("items") or document.get("bindings") or ():
            resource = group_resource(item["group"], item["plural"]) if "plural" in item else "pods"
            yield Key(resource, item["namespace"], item.get("name") or _name(item.get("object") or {}))
        return
    place = place_of(request.path)
    if place is not None:
        resource, namespace, name = place
        name = name or _name(document)
        if name:
            yield Key(resource, namespace, name)


def place_of(path: str) -> tuple[str, str, str] | None:
    """(resource, namespace, name) of /api/v1/… or /apis/GROUP/VERSION/…; the name is empty for a collection."""
    _, root, *rest = path.split("/")
    if root not in ("api", "apis") or len(rest) < (2 if root == "api" else 3):
        return None
    group = rest.pop(0) if root == "apis" else ""
    namespace = ""
    words = rest[1:]
    if words[0] == "namespaces" and len(words) > 2 and words[2] not in ("status", "finalize"):
        namespace, words = words[1], words[2:]
    return group_resource(group, words[0]), namespace, words[1] if len(words) > 1 else ""


def _name(document: Mapping[str, Any]) -> str:
    return str((document.get("metadata") or {}).get("name") or "")


def paced(controller: str, queue: RateLimitingQueue, pace: Pace, clock: Clock) -> RateLimitingQueue:
    """The queue, handing out each key of `controller` when its decision was begun."""
    get: Callable[[], Any] = queue.get

    async def get_in_time() -> str:
        while True:
            key: str = await get()
            wait_us = pace.start_us(controller, key, microseconds(clock.now()))
            if not wait_us:
                return key
            queue.done(key)
            queue.add_spaced(key, wait_us / 1e6)

    queue.get = get_in_time
    return queue
