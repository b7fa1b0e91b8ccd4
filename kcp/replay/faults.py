"""Faults with stable names: what goes wrong in a simulated cluster, where and when.

A fault's key is `kind/component/resource/bucket`; the bucket is a stretch of virtual time. It happens when
hash(seed, key) lies below the rate of its kind, so whether it happens does not depend on what happened before, and a
run can be repeated with a chosen list of keys and no others (which is how a failing run is made short).

    watch-cut/replicaset-controller/pods/17     that component's watch of pods ends in stretch 17

Requests and watches fail in `FaultyTransport`, between a component and the API; restarts and silent nodes are acted
out by whoever runs the simulation.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import anyio
import attrs
import orjson

from kcp.base.clock import Clock
from kcp.client.answers import error_of
from kcp.client.transport import InProcessTransport, Unreachable
from kcp.machinery.document import Document
from kcp.machinery.errors import ApiError, Conflict, Expired, InternalError, Timeout
from kcp.machinery.watch import WatchEvent
from kcp.wire.http import Request, Response


@attrs.frozen
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
)
RATES: Mapping[str, float] = {kind.name: kind.rate for kind in KINDS}
BUCKET_S: Mapping[str, float] = {kind.name: kind.bucket_s for kind in KINDS}
SIMULATED = "simulated:"
"""How the message of every error begins that is made here."""
HANG_S = 60.0
SLOW_S = 3.0
LATE_S = 8.0
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
        bucket = int((self.clock.monotonic() - self.started_s) / BUCKET_S[kind])
        key = f"{kind}/{component}/{resource}/{bucket}"
        if self.only is not None and key not in self.only:
            return None
        value = share(self.seed, key)
        if value >= rate:
            return None
        self.fired[key] = self.fired.get(key, 0) + 1
        return value / rate


def resource_of(path: str) -> str:
    """The resource that a request path is about; namespaces for a namespace and its subresources."""
    parts = path.strip("/").split("/")
    rest, group = (parts[2:], "") if parts[0] == "api" else (parts[3:], parts[1] if len(parts) > 1 else "")
    if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in ("finalize", "status"):
        rest = rest[2:]
    plural = rest[0] if rest else "?"
    return f"{plural}.{group}" if group else plural


@attrs.define
class FaultyTransport:
    """A transport that fails as `faults` say; the component is the client's user agent."""

    inner: InProcessTransport
    faults: Faults
    panicked: Callable[[str], None]
    """Told of every answer with status 500 that is none of ours: the server's code failed."""
    in_process: bool = True

    async def request(self, request: Request, timeout_s: float) -> Response:
        component, resource = self.inner.user_agent, resource_of(request.path)
        if request.method == "GET" and "watch=true" in request.query:
            return await self._watch(request, timeout_s, component, resource)
        if request.method in WRITES and self.faults.started_s is not None:
            await anyio.sleep(LATENCY_S)
        await self._before(request, component, resource)
        response = await self.inner.request(request, timeout_s)
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

    async def _watch(self, request: Request, timeout_s: float, component: str, resource: str) -> Response:
        if self.faults.draw("unreachable", component, resource) is not None:
            raise Unreachable(f"{SIMULATED} connection refused")
        if self.faults.draw("watch-expired", component, resource) is not None:
            raise Expired(f"{SIMULATED} too old resource version")
        response = await self.inner.request(request, timeout_s)
        if response.events is not None:
            response.events = _disturbed(response.events, self.faults, component, resource)
        return response

    async def close(self) -> None:
        await self.inner.close()


async def _disturbed(
    batches: AsyncIterator[Sequence[WatchEvent]], faults: Faults, component: str, resource: str
) -> AsyncIterator[Sequence[WatchEvent]]:
    """A watch that is cut, late or expires between two batches; what it did not deliver is not lost in the log."""
    try:
        async for batch in batches:
            late = faults.draw("watch-delay", component, resource)
            if late is not None:
                await anyio.sleep(late * LATE_S)
            if faults.draw("watch-cut", component, resource) is not None:
                return
            if faults.draw("watch-expired", component, resource) is not None:
                yield [_error(Expired(f"{SIMULATED} too old resource version"))]
                return
            yield batch
    finally:
        close = getattr(batches, "aclose", None)
        if close is not None:
            with anyio.CancelScope(shield=True):
                await close()


def _error(error: ApiError) -> WatchEvent:
    status = error.status()
    return WatchEvent("ERROR", Document(orjson.dumps(status), 0, status))
