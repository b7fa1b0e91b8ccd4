"""What a log came to: what was created and deleted, what waits at the end, how long pods and rollouts took.

before, after = outcome(LogReader("a.kcp")), outcome(LogReader("b.kcp"))
table(("recorded", "changed"), (before, after))        rows for people
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from kcp.apis.semantics import pods as pod_facts
from kcp.base.values import frozen
from kcp.machinery import meta
from kcp.replay.equality import LEFT_OUT, SERVER
from kcp.store.protocol import Event, Key, Op
from kcp.store.reader import LogReader
from kcp.store.redaction import is_purged

Json = dict[str, Any]
ROLLED = ("deployments.apps", "statefulsets.apps", "daemonsets.apps")
UNKNOWN_REASON = "it has not been looked at yet"


@frozen
class Wait:
    """What still waits at the end, and why."""

    key: Key
    why: str


@frozen
class Rollout:
    """A template of a Deployment, StatefulSet or DaemonSet; `took_us` None: not through when the log ended."""

    key: Key
    began_us: int
    took_us: int | None


@frozen
class Outcome:
    """Counts by resource, without what the API server makes by itself. `ready_us` has how long each pod took that became Ready; `never_ready` counts the others that should."""

    created: dict[str, int]
    deleted: dict[str, int]
    pending: tuple[Wait, ...]
    ready_us: tuple[int, ...]
    never_ready: int
    rollouts: tuple[Rollout, ...]

    @property
    def unfinished(self) -> tuple[Rollout, ...]:
        return tuple(rollout for rollout in self.rollouts if rollout.took_us is None)

    def as_json(self) -> Json:
        rolled = [rollout.took_us for rollout in self.rollouts if rollout.took_us is not None]
        return {
            "created": self.created,
            "deleted": self.deleted,
            "pending": [{"key": str(wait.key), "why": wait.why} for wait in self.pending],
            "ready": _spread(self.ready_us),
            "never_ready": self.never_ready,
            "rollouts": _spread(rolled),
            "unfinished_rollouts": [str(rollout.key) for rollout in self.unfinished],
        }


def _spread(times_us: Sequence[int]) -> Json:
    seconds = {name: _seconds(percentile(times_us, share)) for name, share in (("p50_s", 50), ("p99_s", 99))}
    return {"count": len(times_us), **seconds}


def _seconds(time_us: int | None) -> float | None:
    return None if time_us is None else time_us / 1e6


def percentile(values: Iterable[int], share: int) -> int | None:
    """The smallest value that `share` percent do not exceed; None of nothing."""
    ordered = sorted(values)
    return ordered[max(0, -(-share * len(ordered) // 100) - 1)] if ordered else None


@attrs.define
class _Counter:
    created: dict[str, int] = attrs.field(factory=dict)
    deleted: dict[str, int] = attrs.field(factory=dict)
    pods: dict[str, Json] = attrs.field(factory=dict)
    """By uid, the last state."""
    born_us: dict[str, int] = attrs.field(factory=dict)
    ready_us: dict[str, int] = attrs.field(factory=dict)
    ended: set[str] = attrs.field(factory=set)
    rolling: dict[str, tuple[Key, int, Any]] = attrs.field(factory=dict)
    """By uid: which, since when, which template. The template stays when the rollout is through; then since is 0."""
    rollouts: list[Rollout] = attrs.field(factory=list)

    def see(self, event: Event) -> None:
        if event.key.resource in LEFT_OUT or is_purged(event.record.value):
            return
        counts = {Op.ADDED: self.created, Op.DELETED: self.deleted}.get(event.op)
        if counts is not None and event.cause.actor.username != SERVER:
            counts[event.key.resource] = counts.get(event.key.resource, 0) + 1
        if event.key.resource == "pods":
            self._see_pod(event)
        elif event.key.resource in ROLLED:
            self._see_rollout(event)

    def _see_pod(self, event: Event) -> None:
        uid, pod = event.record.uid, event.record.value
        if event.op is Op.ADDED:
            self.born_us[uid] = event.ts_us
        if event.op is Op.DELETED:
            self.pods.pop(uid, None)
            self.ended.add(uid)
            return
        self.pods[uid] = pod
        if uid in self.born_us and uid not in self.ready_us and meta.condition_is(pod, "Ready"):
            self.ready_us[uid] = event.ts_us - self.born_us[uid]

    def _see_rollout(self, event: Event) -> None:
        uid, obj = event.record.uid, event.record.value
        if event.op is Op.DELETED:
            self.rolling.pop(uid, None)
            return
        template = (obj.get("spec") or {}).get("template")
        key, since_us, known = self.rolling.get(uid, (event.key, 0, None))
        if template != known:
            since_us = event.ts_us if known is not None or event.op is Op.ADDED else 0
        if since_us and is_through(event.key.resource, obj):
            self.rollouts.append(Rollout(key, since_us, event.ts_us - since_us))
            since_us = 0
        self.rolling[uid] = key, since_us, template

    def result(self) -> Outcome:
        unfinished = [Rollout(key, since_us, None) for key, since_us, _ in self.rolling.values() if since_us]
        waiting = [pod for pod in self.pods.values() if pod_facts.phase(pod) == "Pending"]
        never = [
            uid for uid, pod in self.pods.items()
            if uid in self.born_us and uid not in self.ready_us and pod_facts.phase(pod) in ("Pending", "Running")
        ]  # fmt: skip
        return Outcome(
            dict(sorted(self.created.items())),
            dict(sorted(self.deleted.items())),
            tuple(sorted((_wait(pod) for pod in waiting), key=lambda wait: str(wait.key))),
            tuple(self.ready_us.values()),
            len(never),
            (*self.rollouts, *unfinished),
        )


def outcome(reader: LogReader, until: int | None = None) -> Outcome:
    """Of the events after the base, up to a revision."""
    counter = _Counter()
    for record in reader.base():
        if record.key.resource == "pods" and not is_purged(record.value):
            counter.pods[record.uid] = record.value
        elif record.key.resource in ROLLED and not is_purged(record.value):
            counter.rolling[record.uid] = record.key, 0, (record.value.get("spec") or {}).get("template")
    for event in reader.events(until=until):
        counter.see(event)
    return counter.result()


def is_through(resource: str, obj: Json) -> bool:
    """Whether the newest template runs everywhere and nothing else does, as `kubectl rollout status` sees it."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    if (status.get("observedGeneration") or 0) < meta.generation(obj):
        return False
    if resource == "daemonsets.apps":
        wanted = status.get("desiredNumberScheduled", 0)
        counters: tuple[str, ...] = ("updatedNumberScheduled", "numberAvailable")
    else:
        wanted = 1 if spec.get("replicas") is None else spec["replicas"]
        counters = ("updatedReplicas", "replicas", "availableReplicas")
    return all(status.get(counter, 0) == wanted for counter in counters)


def _wait(pod: Json) -> Wait:
    key = Key("pods", meta.namespace(pod), meta.name(pod))
    condition = meta.condition(pod, "PodScheduled")
    if condition is None:
        return Wait(key, UNKNOWN_REASON)
    if condition.get("status") != "True":
        return Wait(key, str(condition.get("message") or condition.get("reason") or ""))
    waiting = (
        (entry.get("state") or {}).get("waiting") or {}
        for entry in (pod.get("status") or {}).get("containerStatuses") or ()
    )
    why = next((each for each in waiting if each.get("reason")), {})
    return Wait(key, ": ".join(filter(None, (why.get("reason"), why.get("message")))) or "it is starting")


# --- for people ---


def table(names: Sequence[str], outcomes: Sequence[Outcome]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Columns and rows; what is the same everywhere is told once, in one row each for what was created and deleted."""
    rows = [
        *_counts("created", [o.created for o in outcomes]),
        *_counts("deleted", [o.deleted for o in outcomes]),
    ]
    rows.append(["pods pending at the end", *(str(len(o.pending)) for o in outcomes)])
    rows.append(["pods that became Ready", *(str(len(o.ready_us)) for o in outcomes)])
    rows.append(["  time to Ready, p50", *(shown(percentile(o.ready_us, 50)) for o in outcomes)])
    rows.append(["  time to Ready, p99", *(shown(percentile(o.ready_us, 99)) for o in outcomes)])
    rows.append(["pods that did not", *(str(o.never_ready) for o in outcomes)])
    if any(o.rollouts for o in outcomes):
        rolled = [[r.took_us for r in o.rollouts if r.took_us is not None] for o in outcomes]
        rows.append(["rollouts that were through", *(str(len(times)) for times in rolled)])
        rows.append(["  time it took, p50", *(shown(percentile(times, 50)) for times in rolled)])
        rows.append(["  time it took, p99", *(shown(percentile(times, 99)) for times in rolled)])
        rows.append(["rollouts under way at the end", *(str(len(o.unfinished)) for o in outcomes)])
    return ("", *names), rows


def _counts(what: str, counts: Sequence[dict[str, int]]) -> list[list[str]]:
    rows = [[what, *(str(sum(count.values())) for count in counts)]]
    for resource in sorted({name for count in counts for name in count}):
        found = [count.get(resource, 0) for count in counts]
        if resource == "pods" or len(set(found)) > 1:
            rows.append([f"  {resource}", *map(str, found)])
    return rows


def shown(time_us: int | None) -> str:
    """`0.42 s`, `3m05s`; a dash for nothing."""
    if time_us is None:
        return "-"
    seconds = time_us / 1e6
    if seconds < 100:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s"
