"""Faults with stable names: what goes wrong in a simulated cluster, where and when.

A fault's key is `kind/component/resource/bucket`; the bucket is a stretch of virtual time. It happens when
hash(seed, key) lies below the rate of its kind, so whether it happens does not depend on what happened before, and a
run can be repeated with a chosen list of keys and no others (which is how a failing run is made short).

    watch-cut/replicaset-controller/pods/17     that component's watch of pods ends in stretch 17

Requests and watches fail in `FaultyTransport`, between a component and the API, the log in `store_faults.py`; restarts,
silent nodes and the like are acted out by `disturbances.py`. Of several daemons the first has the plain component
names, those of the others end in @2, @3, ….
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial

import anyio
import attrs
import orjson

from kcp.base.clock import Clock
from kcp.base.values import frozen
from kcp.client.answers import error_of
from kcp.client.transport import InProcessTransport, Unreachable
from kcp.machinery.document import Document
from kcp.machinery.errors import ApiError, Conflict, Expired, InternalError, Timeout
from kcp.machinery.watch import WatchEvent
from kcp.wire.http import Request, Response


@frozen
class FaultKind:
    """`rate` is the share of stretches of `bucket_s` seconds in which it happens, per component and resource."""

    name: str
    bucket_s: float
    rate: float
    what: str


KINDS: tuple[FaultKind, ...] = (
    FaultKind("unreachable", 1.0, 0.01, "no connection: the request never arrives"),
    FaultKind("error", 1.0, 0.01, "500 before anything was done"),
    FaultKind("conflict", 1.0, 0.02, "409 for an update or a patch that nobody raced with"),
    FaultKind("hang", 1.0, 0.003, "no answer, nothing done"),
    FaultKind("lost-answer", 1.0, 0.01, "the write is done, its answer is lost"),
    FaultKind("slow", 1.0, 0.03, "the request takes up to three seconds longer"),
    FaultKind("watch-cut", 2.0, 0.01, "the watch ends"),
    FaultKind("watch-delay", 2.0, 0.02, "events arrive up to eight seconds late"),
    FaultKind("watch-expired", 2.0, 0.01, "the watch ends with 410, and so does the next one"),
    FaultKind("restart", 30.0, 0.05, "the component starts anew, with empty caches"),
    FaultKind("node-silent", 60.0, 0.05, "the node says nothing for up to three minutes"),
    FaultKind("crash-before", 5.0, 0.001, "the component dies right before a write, and starts anew"),
    FaultKind("crash-after", 5.0, 0.001, "the component dies right after a write, and starts anew"),
    FaultKind("watch-gap", 5.0, 0.01, "the watch stands still for up to twenty seconds, then ends with 410"),
    FaultKind("duplicate", 5.0, 0.02, "what the watch delivers comes twice"),
    FaultKind("kubelet-restart", 60.0, 0.05, "the kubelet of the node starts anew, its containers go on"),
    FaultKind("compaction", 30.0, 0.1, "the horizon moves up to the newest revision, under every watcher"),
    FaultKind("clock-jump", 60.0, 0.03, "the clock of the daemon is wrong for a minute, by up to an hour"),
    FaultKind("store-slow", 5.0, 0.02, "commits take up to two seconds"),
    FaultKind("store-fail", 5.0, 0.005, "batches fail as a whole"),
    FaultKind("store-unknown", 5.0, 0.01, "several daemons: batches are stored, but reported as failed"),
    FaultKind("stale", 10.0, 0.03, "several daemons: the daemon learns up to 15 s late what others wrote"),
    FaultKind(
        "leader-pause", 60.0, 0.06, "several daemons: the leader stands still, its Lease is taken over"
    ),
)
RATES: Mapping[str, float] = {kind.name: kind.rate for kind in KINDS}
BUCKET_S: Mapping[str, float] = {kind.name: kind.bucket_s for kind in KINDS}
SIMULATED = "simulated:"
"""How the message of every error begins that is made here."""
HANG_S = 60.0
SLOW_S = 3.0
LATE_S = 8.0
GAP_S = 20.0
PAUSE_S = (18.0, 50.0)
"""Longer than a Lease lasts."""
LATENCY_S = 0.02
"""What every write takes; else whatever chases itself would do so for ever within one instant of virtual time."""
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


def rates(text: str) -> dict[str, float]:
    """`all`, `none`, or `name=rate,name,…` (a name alone has its usual rate). Raises ValueError."""
    if text in ("", "none"):
        return {}
    if text == "all":
        return dict(RATES)
    chosen: dict[str, float] = {}
    for part in text.split(","):
        name, _, rate = part.partition("=")
        if name not in RATES:
            raise ValueError(f"unknown fault {name!r}; there are {', '.join(RATES)}")
        chosen[name] = float(rate) if rate else RATES[name]
    return chosen


def share(seed: int, key: str) -> float:
    """Uniform in [0, 1), the same for the same seed and key everywhere."""
    digest = hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


@attrs.define
class Faults:
    """The faults of one run; owned by the simulation. `fired` lists the keys that mattered, in order.

    `only` names the keys that may happen (None: all that their rates allow). After `heal` nothing fails any more.
    """

    seed: int
    rates: Mapping[str, float]
    clock: Clock
    only: frozenset[str] | None = None
    fired: dict[str, int] = attrs.field(factory=dict)
    healed: bool = False
    started_s: float | None = None
    _shares: dict[tuple[str, str, str], tuple[int, float]] = attrs.field(factory=dict)
    """What was drawn last: the stretch, and the number; whoever is about asks many times in one stretch."""

    def start(self) -> None:
        """From now on things fail: the cluster came up undisturbed."""
        self.started_s = self.clock.monotonic()

    def heal(self) -> None:
        self.healed = True

    def draw(self, kind: str, component: str, resource: str) -> float | None:
        """None, or, when the fault happens now, a number in [0, 1) that says how badly."""
        rate = self.rates.get(kind)
        if not rate or self.healed or self.started_s is None:
            return None
        value = self._share(kind, component, resource)
        if value >= rate:
            return None
        key = self._key(kind, component, resource)
        if self.only is not None and key not in self.only:
            return None
        self.fired[key] = self.fired.get(key, 0) + 1
        return value / rate

    def draw_once(self, kind: str, component: str, resource: str) -> float | None:
        """As `draw`, but once in its stretch, or what starts anew would fall at once again."""
        key = self._key(kind, component, resource)
        return None if key in self.fired else self.draw(kind, component, resource)

    def _share(self, kind: str, component: str, resource: str) -> float:
        stretch, which = self._stretch(kind), (kind, component, resource)
        drawn = self._shares.get(which)
        if drawn is None or drawn[0] != stretch:
            drawn = stretch, share(self.seed, f"{kind}/{component}/{resource}/{stretch}")
            self._shares[which] = drawn
        return drawn[1]

    def _key(self, kind: str, component: str, resource: str) -> str:
        return f"{kind}/{component}/{resource}/{self._stretch(kind)}"

    def _stretch(self, kind: str) -> int:
        return int((self.clock.monotonic() - (self.started_s or 0.0)) / BUCKET_S[kind])


def resource_of(path: str) -> str:
    """The resource that a request path is about; namespaces for a namespace and its subresources."""
    parts = path.strip("/").split("/")
    rest, group = (parts[2:], "") if parts[0] == "api" else (parts[3:], parts[1] if len(parts) > 1 else "")
    if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in ("finalize", "status"):
        rest = rest[2:]
    plural = rest[0] if rest else "?"
    return f"{plural}.{group}" if group else plural


LEADERS = {
    "kube-scheduler": "kube-scheduler",
    "default-scheduler": "kube-scheduler",
    "kubelet": "simulated-nodes",
    "kcp-simulated-nodes": "simulated-nodes",
}
CONTROLLERS = "kube-controller-manager"
OUTSIDERS = frozenset({"simulated-user", "kcp-apiserver", "kcp"})


def group_of(user_agent: str) -> str:
    """The component that whoever calls itself so lives and dies with; empty for those who belong to none."""
    return "" if user_agent in OUTSIDERS else LEADERS.get(user_agent, CONTROLLERS)


def nothing(component: str) -> None:
    """Nobody to crash."""


@attrs.define
class Pauses:
    """Until when each component of one daemon stands still, like a process that was stopped."""

    faults: Faults
    daemon: str
    until_s: dict[str, float] = attrs.field(factory=dict)

    async def hold(self, user_agent: str, *, claims: bool = False) -> bool:
        """Nothing wakes a stopped process, least of all a deadline of its own.

        It is stopped when it has just decided to write as the leader (`claims`): that is what a fence is for. True:
        whoever asked was held up.
        """
        group = group_of(user_agent)
        if not group:
            return False
        now_s = self.faults.clock.monotonic()
        if claims and self.until_s.get(group, 0.0) <= now_s:
            share = self.faults.draw_once("leader-pause", group + self.daemon, "")
            if share is not None:
                self.until_s[group] = now_s + PAUSE_S[0] + share * (PAUSE_S[1] - PAUSE_S[0])
        if self.until_s.get(group, 0.0) > now_s and not self.faults.healed:
            with anyio.CancelScope(shield=True):
                await anyio.sleep_until(self.until_s[group])
            return True
        return False


@attrs.define
class FaultyTransport:
    """A transport that fails as `faults` say; the component is the client's user agent, with the daemon's ending."""

    inner: InProcessTransport
    faults: Faults
    panicked: Callable[[str], None]
    """Told of every answer with status 500 that is none of ours: the server's code failed."""
    daemon: str = ""
    crash: Callable[[str], None] = nothing
    pauses: Pauses | None = None
    in_process: bool = True

    async def request(self, request: Request, timeout_s: float) -> Response:
        component, resource = self.inner.user_agent + self.daemon, resource_of(request.path)
        if self.pauses is not None:
            claims = request.fence is not None
            if await self.pauses.hold(self.inner.user_agent, claims=claims) and claims:
                with anyio.CancelScope(shield=True):  # it was on the wire already
                    return await self.inner.request(request, timeout_s)
        if request.method == "GET" and "watch=true" in request.query:
            return await self._watch(request, timeout_s, component, resource)
        if request.method in WRITES and self.faults.started_s is not None:
            await anyio.sleep(LATENCY_S)
        await self._before(request, component, resource)
        await self._crash("crash-before", request, component, resource)
        response = await self.inner.request(request, timeout_s)
        await self._crash("crash-after", request, component, resource)
        if response.status == 500:
            self.panicked(f"{component}: {request.method} {request.path}: {error_of(response).message}")
        if request.method in WRITES and self.faults.draw("lost-answer", component, resource) is not None:
            raise Timeout(f"{SIMULATED} the answer was lost")
        return response

    async def _before(self, request: Request, component: str, resource: str) -> None:
        draw = self.faults.draw
        if draw("unreachable", component, resource) is not None:
            raise Unreachable(f"{SIMULATED} connection refused")
        if draw("error", component, resource) is not None:
            raise InternalError(f"{SIMULATED} internal error")
        if request.method in ("PUT", "PATCH") and draw("conflict", component, resource) is not None:
            raise Conflict(f"{SIMULATED} the object has been modified")
        if draw("hang", component, resource) is not None:
            await anyio.sleep(HANG_S)
            raise Timeout(f"{SIMULATED} no answer")
        slow = draw("slow", component, resource)
        if slow is not None:
            await anyio.sleep(slow * SLOW_S)

    async def _crash(self, kind: str, request: Request, component: str, resource: str) -> None:
        group = group_of(self.inner.user_agent)
        if (
            request.method in WRITES
            and group
            and self.faults.draw_once(kind, component, resource) is not None
        ):
            self.crash(group)
            await anyio.sleep(HANG_S)
            raise Unreachable(f"{SIMULATED} the component is dead")

    async def _watch(self, request: Request, timeout_s: float, component: str, resource: str) -> Response:
        if self.faults.draw("unreachable", component, resource) is not None:
            raise Unreachable(f"{SIMULATED} connection refused")
        if self.faults.draw("watch-expired", component, resource) is not None:
            raise Expired(f"{SIMULATED} too old resource version")
        response = await self.inner.request(request, timeout_s)
        if response.events is not None:
            hold = partial(self.pauses.hold, self.inner.user_agent) if self.pauses is not None else None
            response.events = _disturbed(response.events, self.faults, component, resource, hold)
        return response

    async def close(self) -> None:
        await self.inner.close()


async def _disturbed(
    batches: AsyncIterator[Sequence[WatchEvent]],
    faults: Faults,
    component: str,
    resource: str,
    hold: Callable[[], Awaitable[bool]] | None,
) -> AsyncIterator[Sequence[WatchEvent]]:
    """A watch that is cut, late or expires between two batches; what it did not deliver is not lost in the log."""
    try:
        async for batch in batches:
            if hold is not None:
                await hold()
            late = faults.draw("watch-delay", component, resource)
            if late is not None:
                await anyio.sleep(late * LATE_S)
            if faults.draw("watch-cut", component, resource) is not None:
                return
            gap = faults.draw("watch-gap", component, resource)
            if gap is not None:
                await anyio.sleep(gap * GAP_S)
            if gap is not None or faults.draw("watch-expired", component, resource) is not None:
                yield [_error(Expired(f"{SIMULATED} too old resource version"))]
                return
            yield batch
            if faults.draw("duplicate", component, resource) is not None:
                yield batch
    finally:
        close = getattr(batches, "aclose", None)
        if close is not None:
            with anyio.CancelScope(shield=True):
                await close()


def _error(error: ApiError) -> WatchEvent:
    status = error.status()
    return WatchEvent("ERROR", Document(orjson.dumps(status), 0, status))
