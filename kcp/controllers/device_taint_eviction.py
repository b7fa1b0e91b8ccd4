"""Device taint eviction: pods that use a device with a NoExecute taint which their claim does not tolerate are deleted.

A pod's time counts from the taint's `timeAdded`, and when that says nothing from when the taint was seen.
Source: k8s v1.36 pkg/controller/devicetainteviction/device_taint_eviction.go. DeviceTaintRules are not served, so not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kcp.apis.semantics import resource_claims as facts
from kcp.base.clock import microseconds
from kcp.controllers import effects as fx
from kcp.controllers.resource_claim import CLAIMS
from kcp.controllers.sources import Controller, Fan
from kcp.controllers.taint_eviction import Words, evict
from kcp.machinery import meta
from kcp.machinery.times import parse_time

Json = dict[str, Any]
SLICES = "resourceslices.resource.k8s.io"
_WORDS = Words(
    event="DeviceTaintManagerEviction",
    text="Marking for deletion",
    reason="DeletionByDeviceTaintManager",
    message="Device Taint manager: deleting due to NoExecute taint",
)


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    """The memo holds since when the pod is known to have to go."""
    pod = view.pods.get(key)
    now_us = microseconds(env.now)
    since_us = min((env.memo or {}).get("since_us", now_us), now_us)  # the clock may have been set back
    due_us = None if pod is None or meta.is_deleting(pod) else _due_us(pod, view, since_us)
    if pod is None or due_us is None:
        if env.memo is not None:
            yield fx.Memo(None)
            if pod is not None and not meta.is_deleting(pod):
                yield fx.Event(pod, "Normal", _WORDS.event, "Cancelling deletion")
    elif due_us > now_us:
        if env.memo != {"since_us": since_us}:
            yield fx.Memo({"since_us": since_us})
        yield fx.RequeueAfter((due_us - now_us) / 1e6)
    else:
        yield from evict(pod, env.now, _WORDS)


def _due_us(pod: Json, view: fx.View, since_us: int) -> int | None:
    """When the pod must go, the earliest of its claims' times; None when nothing sends it away."""
    if not pod["spec"].get("nodeName"):
        return None
    times = [time for claim in _used(pod, view.claims) for time in _times_us(claim, view.slices, since_us)]
    return min(times, default=None)


def _used(pod: Json, claims: fx.Reader) -> Iterator[Json]:
    """The claims that are there for this very pod."""
    for entry in facts.claim_entries(pod):
        name = facts.claim_name(pod, entry)
        claim = claims.get(f"{meta.namespace(pod)}/{name}") if name else None
        if claim is None or not facts.is_reserved_for(claim, pod):
            continue
        if entry.get("resourceClaimName") or facts.is_for_pod(claim, pod):
            yield claim


def _times_us(claim: Json, slices: fx.Reader, since_us: int) -> Iterator[int]:
    """For each taint of a device of the claim that is not tolerated for ever: when its time is up."""
    for result in facts.results_of(claim):
        pool = slices.index("pool", f"{result['driver']}/{result['pool']}")
        for taint in _taints(pool, result["device"]):
            wait_s = _toleration_s(result.get("tolerations") or (), taint)
            if wait_s is not None:
                added = taint.get("timeAdded")
                yield (microseconds(parse_time(added)) if added else since_us) + wait_s * 1_000_000


def _toleration_s(tolerations: Iterable[Json], taint: Json) -> int | None:
    """The shortest time that the taint is tolerated for; None is for ever."""
    waits = []
    for toleration in tolerations:
        if toleration.get("effect") == "NoExecute" and facts.tolerates_taint(toleration, taint):
            if toleration.get("tolerationSeconds") is None:
                return None
            waits.append(max(0, int(toleration["tolerationSeconds"])))
    return min(waits, default=0)


def _taints(pool: Iterable[Json], device: str) -> list[Json]:
    for entry in _devices(pool):
        if entry.get("name") == device:
            return _no_execute(entry)
    return []


def _devices(pool: Iterable[Json]) -> Iterator[Json]:
    """Those of the pool's newest generation."""
    slices = list(pool)
    newest = max((_generation(each) for each in slices), default=0)
    for each in slices:
        if _generation(each) == newest:
            yield from each["spec"].get("devices") or ()


def _generation(resource_slice: Json) -> int:
    return int((resource_slice["spec"].get("pool") or {}).get("generation") or 0)


def _no_execute(device: Json) -> list[Json]:
    return [taint for taint in device.get("taints") or () if taint.get("effect") == "NoExecute"]


# --- what wakes whom ---


def touched_pod(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """A pod matters when it comes to its node or gets its claims, and when it leaves."""
    pod = new if new is not None else old
    assert pod is not None
    if not facts.claim_entries(pod):
        return []
    if old is not None and new is not None and _place(old) == _place(new):
        return []
    affected = new is None or any(_is_affected(claim, readers) for claim in _used(new, readers["claims"]))
    return [meta.key_of(pod)] if affected else []


def _place(pod: Json) -> tuple[Any, ...]:
    return pod["spec"].get("nodeName"), facts.claim_statuses(pod)


def _is_affected(claim: Json, readers: Mapping[str, Any]) -> bool:
    return next(_times_us(claim, readers["slices"], 0), None) is not None


def touched_claim(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    affected = [claim for claim in (old, new) if claim is not None and _is_affected(claim, readers)]
    return list(dict.fromkeys(key for claim in affected for key in _consumers(claim)))


def _consumers(claim: Json) -> list[str]:
    reserved = (claim.get("status") or {}).get("reservedFor") or ()
    return [
        f"{meta.namespace(claim)}/{consumer['name']}"
        for consumer in reserved
        if consumer.get("resource") == "pods" and not consumer.get("apiGroup")
    ]


def touched_slice(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """The pods with devices of a pool that has, or had, taints of this kind."""
    present = [each for each in (old, new) if each is not None]
    if len(present) == 2 and _marks(present[0]) == _marks(present[1]):
        return []
    found: dict[str, None] = {}
    for pool in dict.fromkeys(pools_of_slice(each)[0] for each in present):
        slices = [*readers["slices"].index("pool", pool), *present]
        if any(_no_execute(device) for each in slices for device in each["spec"].get("devices") or ()):
            for claim in readers["claims"].index("pool", pool):
                found.update(dict.fromkeys(_consumers(claim)))
    return list(found)


def _marks(resource_slice: Json) -> tuple[Any, ...]:
    devices = resource_slice["spec"].get("devices") or ()
    marked = {device.get("name"): _no_execute(device) for device in devices}
    return _generation(resource_slice), {name: taints for name, taints in marked.items() if taints}


def pools_of_slice(resource_slice: Json) -> list[str]:
    spec = resource_slice["spec"]
    return [f"{spec.get('driver')}/{(spec.get('pool') or {}).get('name')}"]


def pools_of_claim(claim: Json) -> list[str]:
    return list(dict.fromkeys(f"{result['driver']}/{result['pool']}" for result in facts.results_of(claim)))


CONTROLLER = Controller(
    name="device-taint-eviction-controller",
    identity="device-taint-eviction-controller",
    plan=plan,
    watches={
        "pods": Fan("pods", keys=touched_pod),
        "claims": Fan(CLAIMS, keys=touched_claim, indexes={"pool": pools_of_claim}),
        "slices": Fan(SLICES, keys=touched_slice, indexes={"pool": pools_of_slice}),
    },
    workers=8,
)
