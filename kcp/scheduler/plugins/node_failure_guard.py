"""NodeFailureGuard: a broken empty node does not attract every new pod, and a workload that kills nodes is held.

Both are seen as failures of pods on nodes; what differs is what they have in common.

    amplification      one node, many workloads: their pods do not start there. The node's score is halved, then taken
                       away; it stays feasible, and never more than a share of all nodes is meant.
    application bomb   one workload, node after node: it started there, then the node was not ready any more. Its pods
                       are kept out of the queue for a while.

A pod that starts clears its node. Failures of a workload that fails on many nodes say nothing about these. Nodes that
went together, as a rack does, count once for a workload: the next death counts only if its pod started there after the
one before. A workload that also runs for long on a node that is well is not to blame; who cannot be told apart from too
many others is not held.

What it knows of nodes is a fold of what the scheduler has seen since it started; pods that do not start are seen again by the
next one. Whom it suspects outlives the scheduler (`guard_memory`). The scores that follow (`ClusterState.guard`) are
recorded with each decision. Source of the two accidents: Kubernetes issues 19722 and 70201.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import attrs
import numpy as np
import structlog

from kcp.base.clock import microseconds
from kcp.machinery import meta
from kcp.machinery.times import parse_time
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.framework.plugin import MAX_SCORE
from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.plugins.guard_memory import Record
from kcp.scheduler.pod_class import PodClass
from kcp.scheduler.terms import Ints

Json = dict[str, Any]
log = structlog.get_logger()

NAME = "NodeFailureGuard"
SECOND_US = 1_000_000
NO_START = frozenset(
    {"CreateContainerError", "RunContainerError", "ContainerCannotRun", "CreatePodSandboxError", "ErrImagePull",
     "ImagePullBackOff", "ErrImageNeverPull", "RegistryUnavailable", "PostStartHookError"}
)  # fmt: skip
"""Reasons of waiting containers that have to do with the node, or may have."""
NOT_TAKEN = frozenset({"UnexpectedAdmissionError", "OutOfcpu", "OutOfmemory", "OutOfpods", "NodeLost"})
"""Reasons of failed pods that never started."""
MANY_NODES = 3
"""A workload that fails to start on so many nodes has itself to blame."""
SUSPECT, QUARANTINED = 1, 2
_SCORES = {SUSPECT: MAX_SCORE // 2, QUARANTINED: 0}


@attrs.frozen
class GuardArgs:
    window_us: int
    start_us: int
    suspect_workloads: int
    quarantine_workloads: int
    max_share: int
    slow_start_us: int
    slow_start_pods: int
    kill_window_us: int
    killed_nodes: int
    max_suspects: int
    hold_us: int


DEFAULTS: Mapping[str, int] = {
    "failureWindowSeconds": 600,
    "startTimeoutSeconds": 120,
    "suspectWorkloads": 2,
    "quarantineWorkloads": 3,
    "maxPenalizedPercent": 20,
    "slowStartSeconds": 60,
    "slowStartPods": 10,
    "killWindowSeconds": 300,
    "killedNodes": 2,
    "maxSuspects": 3,
    "holdSeconds": 1800,
}
"""The arguments with their defaults, in the order of `GuardArgs`."""


def parse_guard(args: Mapping[str, Any]) -> GuardArgs:
    values = [
        int(default if args.get(name) is None else args[name])
        * (SECOND_US if name.endswith("Seconds") else 1)
        for name, default in DEFAULTS.items()
    ]
    return GuardArgs(*values)


def workload_of(pod: Json) -> str:
    """The uid of the pod's controller; its own when it has none."""
    for reference in pod["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return str(reference.get("uid", ""))
    return meta.uid(pod)


def _is_ready(node: Json | None) -> bool:
    found = meta.condition(node, "Ready") if node is not None else None
    return found is not None and found.get("status") == "True"


def has_started(pod: Json) -> bool:
    status = pod.get("status") or {}
    if status.get("phase") in ("Running", "Succeeded"):
        return True
    return any(
        "running" in (s.get("state") or {}) or "terminated" in (s.get("state") or {})
        for s in status.get("containerStatuses") or ()
    )


def did_not_start(pod: Json) -> bool:
    """Whether the node, or somebody for it, says that the pod does not start there."""
    status = pod.get("status") or {}
    if status.get("phase") == "Failed":
        return status.get("reason") in NOT_TAKEN
    statuses = (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ()))
    return any(((s.get("state") or {}).get("waiting") or {}).get("reason") in NO_START for s in statuses)


class NodeFailureScore:
    """The part that decides: a pure function of what `ClusterState.guard` says about nodes."""

    name = NAME

    def static_score(self, framework: Framework, cls: PodClass) -> Ints | int | None:
        state = framework.state
        if not state.guard:
            return MAX_SCORE
        scores = np.full(len(state), MAX_SCORE, np.int64)
        for name, level in state.guard.items():
            node = state.nodes.get(name)
            if node is not None and node.index >= 0:
                scores[node.index] = _SCORES[level]
        return scores


@attrs.define(eq=False)
class _OnNode:
    """A pod on its node: since when, and whether it was seen to start, or not to."""

    node: str
    workload: str
    since_us: int
    settled: bool = False


class NodeFailureGuard:
    """The part that watches. Owned by the scheduler's task."""

    name = NAME
    patience_us = 0
    """A held pod is told at once."""

    def __init__(self, state: ClusterState, args: GuardArgs, now_us: Callable[[], int]) -> None:
        self._state = state
        self._args = args
        self._now_us = now_us
        self._pods: dict[str, _OnNode] = {}
        self._of_workload: dict[str, dict[str, None]] = {}
        self._unsettled: list[tuple[int, str]] = []
        self._failures: dict[str, dict[str, int]] = {}
        self._failed_on: dict[str, set[str]] = {}
        self._ready: set[str] = set()
        self._slow: dict[str, tuple[int, int]] = {}
        self._kills: dict[str, list[tuple[int, str]]] = {}
        self.held: dict[str, tuple[int, tuple[str, ...]]] = {}
        """Workload -> (until, the nodes it killed)."""
        self.untold = False
        """Whether what must outlive the scheduler has changed."""
        self._stale = False

    # --- what happens ---

    def follow(self, resource: str, old: Json | None, new: Json | None) -> Iterable[str]:
        """The state took a change. Returns nothing: holds end by time."""
        if resource == "pods":
            self._pod(old, new)
        elif resource == "nodes":
            self._node(old, new)
        return ()

    def _pod(self, old: Json | None, new: Json | None) -> None:
        if new is None:
            assert old is not None
            self._forget_pod(meta.uid(old))
            return
        node = new["spec"].get("nodeName")
        if not node:
            return
        uid = meta.uid(new)
        there = self._pods.get(uid)
        if there is None:
            since = self._since(new) if old is None else self._now_us()
            there = self._pods[uid] = _OnNode(node, workload_of(new), since)
            self._of_workload.setdefault(there.workload, {})[uid] = None
            heapq.heappush(self._unsettled, (since + self._args.start_us, uid))
        if not there.settled:
            self._settle(there, new)

    def _forget_pod(self, uid: str) -> None:
        there = self._pods.pop(uid, None)
        if there is None:
            return
        uids = self._of_workload[there.workload]
        del uids[uid]
        if not uids:
            del self._of_workload[there.workload]

    def _since(self, pod: Json) -> int:
        """When a pod that was there before the scheduler came started."""
        started = (pod.get("status") or {}).get("startTime")
        return microseconds(parse_time(started)) if started else self._now_us()

    def _settle(self, there: _OnNode, pod: Json) -> None:
        if has_started(pod):
            there.settled = True
            self._failed_on.pop(there.workload, None)
            if self._failures.pop(there.node, None):
                self._stale = True
        elif did_not_start(pod):
            there.settled = True
            self._failed(there)

    def _failed(self, there: _OnNode) -> None:
        self._failures.setdefault(there.node, {})[there.workload] = self._now_us()
        self._failed_on.setdefault(there.workload, set()).add(there.node)
        self._stale = True

    def _node(self, old: Json | None, new: Json | None) -> None:
        name = meta.name(new if new is not None else old or {})
        was, now = _is_ready(old), _is_ready(new)
        if new is None:
            self._forget_node(name)
        elif was and not now:
            self._died(name)
        elif now and not was:
            if name in self._ready:
                there = self._state.nodes.get(name)
                self._slow[name] = self._now_us() + self._args.slow_start_us, len(there.pods) if there else 0
                self._stale = True
            self._ready.add(name)

    def _forget_node(self, name: str) -> None:
        self._ready.discard(name)
        if self._failures.pop(name, None) or self._slow.pop(name, None):
            self._stale = True

    def _died(self, name: str, at_us: int | None = None) -> None:
        """Whose pods started there shortly before?"""
        now = self._now_us() if at_us is None else at_us
        suspects: dict[str, int] = {}
        for there in self._on(name):
            if now - self._args.kill_window_us <= there.since_us <= now:
                suspects[there.workload] = max(there.since_us, suspects.get(there.workload, 0))
        for workload, since in suspects.items():
            kills = self._kills.setdefault(workload, [])
            kills[:] = [kill for kill in kills if kill[0] >= now - self._args.hold_us]
            if not kills or (since >= kills[-1][0] and name not in [node for _, node in kills]):
                kills.append((now, name))
                self.untold = True
        self._hold(suspects, now)
        self._forgive(now)

    def _on(self, name: str) -> Iterator[_OnNode]:
        node = self._state.nodes.get(name)
        for uid in node.pods if node is not None else ():
            there = self._pods.get(uid)
            if there is not None and there.node == name:
                yield there

    def _forgive(self, now: int) -> None:
        """A death that is long past counts for nothing."""
        past = now - self._args.hold_us
        for workload in [w for w, kills in self._kills.items() if kills[-1][0] < past and w not in self.held]:
            del self._kills[workload]

    def _hold(self, suspects: Iterable[str], now: int) -> None:
        known = [w for w in suspects if len(self._kills[w]) >= self._args.killed_nodes]
        guilty = [w for w in known if not self._is_harmless(w, now)]
        most = max((len(self._kills[w]) for w in guilty), default=0)
        worst = [w for w in guilty if len(self._kills[w]) == most]
        if len(worst) > self._args.max_suspects:
            return
        for workload in worst:
            nodes = tuple(node for _, node in self._kills[workload])
            self.held[workload] = now + self._args.hold_us, nodes
            self.untold = True
            log.warning("workload held", workload=workload, nodes=nodes)

    def _is_harmless(self, workload: str, now: int) -> bool:
        """Whether one of its pods runs for long on a node that is well."""
        nodes = self._state.nodes
        return any(
            there.since_us <= now - self._args.kill_window_us
            and there.node in nodes
            and _is_ready(nodes[there.node].node)
            for there in (self._pods[uid] for uid in self._of_workload.get(workload, ()))
        )

    # --- what outlives the scheduler ---

    def records(self) -> dict[str, Record]:
        self.untold = False
        self._forgive(self._now_us())
        found = {workload: Record(list(kills)) for workload, kills in self._kills.items()}
        for workload, (until, _) in self.held.items():
            found.setdefault(workload, Record()).held_until_us = until
        return found

    def recall(self, records: Mapping[str, Record]) -> None:
        """What an earlier scheduler knew. The caches stand: nodes that died since then are looked at as well."""
        now = self._now_us()
        for workload, record in records.items():
            if record.killed:
                self._kills[workload] = list(record.killed)
            if record.held_until_us > now:
                self.held[workload] = record.held_until_us, tuple(node for _, node in record.killed)
        for at_us, name in sorted(self._deaths()):
            if at_us > now - self._args.hold_us:
                self._died(name, at_us)
        self._forgive(now)

    def _deaths(self) -> Iterator[tuple[int, str]]:
        for name, info in self._state.nodes.items():
            ready = meta.condition(info.node, "Ready") if info.node is not None else None
            if ready is not None and ready.get("status") != "True" and ready.get("lastTransitionTime"):
                yield microseconds(parse_time(ready["lastTransitionTime"])), name

    # --- what comes of it ---

    def gate(self, pod: Json) -> str:
        found = self.held.get(workload_of(pod)) if self.held else None
        return f"workload killed nodes {', '.join(found[1])}: rescheduling held" if found is not None else ""

    def due_us(self) -> int | None:
        """When something ends or runs out next."""
        window = self._args.window_us
        due = [until for until, _ in self.held.values()]
        due += [until for until, _ in self._slow.values()]
        due += [at + window for there in self._failures.values() for at in there.values()]
        if self._unsettled:
            due.append(self._unsettled[0][0])
        return min(due) if due else None

    def tick(self, now_us: int) -> list[str]:
        """Let time pass, and bring the scores up to date. Returns the workloads that are not held any more."""
        while self._unsettled and self._unsettled[0][0] <= now_us:
            _, uid = heapq.heappop(self._unsettled)
            there = self._pods.get(uid)
            if there is not None and not there.settled:
                there.settled = True
                if there.node in self._ready:
                    self._failed(there)
        self._expire(now_us)
        self.refresh()
        freed = [workload for workload, (until, _) in self.held.items() if until <= now_us]
        for workload in freed:
            del self.held[workload]
            self._kills.pop(workload, None)
            self.untold = True
        return freed

    def _expire(self, now_us: int) -> None:
        for name in [name for name, (until, _) in self._slow.items() if until <= now_us]:
            del self._slow[name]
            self._stale = True
        for name, there in list(self._failures.items()):
            for workload in [w for w, at in there.items() if at + self._args.window_us <= now_us]:
                del there[workload]
                self._failed_on.pop(workload, None)
                self._stale = True
            if not there:
                del self._failures[name]

    @property
    def counts_placements(self) -> bool:
        """Whether each decision may be one too many for a node that starts slowly."""
        return bool(self._slow)

    def refresh(self) -> None:
        """Called before a decision where a node starts slowly; else after something happened."""
        if self._stale or self._slow:
            self._stale = False
            self._state.set_guard(self._levels())

    def _levels(self) -> dict[str, int]:
        counts = {
            name: sum(1 for workload in there if len(self._failed_on.get(workload, ())) < MANY_NODES)
            for name, there in self._failures.items()
        }
        worst = sorted(
            (-count, name) for name, count in counts.items() if count >= self._args.suspect_workloads
        )
        most = max(1, len(self._state.nodes) * self._args.max_share // 100)
        levels = {
            name: QUARANTINED if -count >= self._args.quarantine_workloads else SUSPECT
            for count, name in worst[:most]
        }
        for name, (_, before) in self._slow.items():
            there = self._state.nodes.get(name)
            if there is not None and len(there.pods) - before >= self._args.slow_start_pods:
                levels[name] = QUARANTINED
        return levels

    def held_pods(self, workloads: Iterable[str]) -> list[str]:
        """Pods without a node of these workloads."""
        wanted = frozenset(workloads)
        if not wanted:
            return []
        return [uid for uid, i in self._state.pods.items() if not i.node and workload_of(i.pod) in wanted]
