"""The machines of a recorded log: what each was, when it talked, and how long what ran on it ran.

A second run has simulated machines of the same names and sizes. On recorded machines that were simulated themselves a
container does again what its command says; on others it runs as long as the log tells that it ran.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Literal

import attrs

from kcp.base.values import frozen
from kcp.machinery import meta
from kcp.machinery.times import parse_time
from kcp.node.fleet import NodeSpec
from kcp.node.runtime.program import Program
from kcp.node.runtime.protocol import ContainerConfig
from kcp.node.runtime.sim import SCHEME, default_program
from kcp.store.protocol import Event, Op

Json = dict[str, Any]
KUBELET = "system:node:"
What = Literal["new", "silent", "off", "back", "gone"]
_NUMBERED = re.compile(r"(.*?)(\d+)")
_STATUSES = ("initContainerStatuses", "containerStatuses")


def is_kubelet(username: str) -> bool:
    return username.startswith(KUBELET)


def natural(name: str) -> tuple[str, int, str]:
    """Orders node-2 before node-10."""
    found = _NUMBERED.fullmatch(name)
    return (found[1], int(found[2]), name) if found else (name, -1, name)


def ready_status(node: Json) -> str:
    condition = meta.condition(node, "Ready")
    return "" if condition is None else str(condition.get("status"))


def boot_id(node: Json) -> str:
    return str(((node.get("status") or {}).get("nodeInfo") or {}).get("bootID") or "")


@frozen
class Step:
    """Something that happened to a machine; `spec` for a new one."""

    ts_us: int
    rv: int
    what: What
    name: str
    spec: NodeSpec | None = None


def node_spec(node: Json) -> NodeSpec:
    """What this Node object tells of its machine. What the system keeps for itself is no part of it."""
    status, spec = node.get("status") or {}, node.get("spec") or {}
    room = status.get("allocatable") or status.get("capacity") or {}
    extended = {name: str(value) for name, value in room.items() if "." in name}
    addresses = {each["type"]: each["address"] for each in status.get("addresses") or ()}
    return NodeSpec(
        name=meta.name(node),
        cpu=str(room.get("cpu", "4")),
        memory=str(room.get("memory", "16Gi")),
        pods=int(room.get("pods", 110)),
        ephemeral_storage=str(room.get("ephemeral-storage", "100Gi")),
        extended=extended,
        labels=dict(meta.labels(node)),
        taints=tuple(taint for taint in spec.get("taints") or () if not _by_lifecycle(taint)),
        ip=addresses.get("InternalIP", ""),
        pod_cidr=spec.get("podCIDR", ""),
    )


def _by_lifecycle(taint: Json) -> bool:
    """Those of `node.kubernetes.io` follow from the machine's state."""
    return str(taint.get("key", "")).startswith("node.kubernetes.io/")


@attrs.define
class Machines:
    """`present` at the beginning, by name; `steps` in the order of the log."""

    present: dict[str, NodeSpec] = attrs.field(factory=dict)
    steps: list[Step] = attrs.field(factory=list)
    lifetimes: Lifetimes = attrs.field(factory=lambda: Lifetimes())
    ears: Ears = attrs.field(factory=lambda: Ears())
    _gone: dict[str, Step] = attrs.field(factory=dict)
    """Those of which nothing was heard since their Node was deleted."""

    @property
    def names(self) -> list[str]:
        """Of all that ever were there."""
        new = (step.name for step in self.steps if step.what == "new")
        return sorted({*self.present, *new}, key=natural)

    def heard_of(self, name: str, ts_us: int) -> None:
        """A machine talks: it did not go with its Node, only the object was deleted."""
        self.ears.heard_us[name] = ts_us
        gone = self._gone.pop(name, None)
        if gone is not None:
            self.steps.remove(gone)

    def note_gone(self, ts_us: int, rv: int, name: str) -> None:
        self._gone[name] = Step(ts_us, rv, "gone", name)
        self.steps.append(self._gone[name])

    def note_reboot(self, ts_us: int, rv: int, name: str) -> None:
        """A machine that fell silent had gone down; one that did not was down for a moment."""
        last = next((at for at in reversed(range(len(self.steps))) if self.steps[at].name == name), None)
        if last is not None and self.steps[last].what == "silent":
            self.steps[last] = attrs.evolve(self.steps[last], what="off")
        else:
            self.steps.append(Step(ts_us, rv, "off", name))

    def at(self, ts_us: int) -> list[NodeSpec]:
        """The machines that were there at a moment, by name."""
        found = dict(self.present)
        for step in self.steps:
            if step.ts_us <= ts_us and step.what == "new" and step.spec is not None:
                found[step.name] = step.spec
            elif step.ts_us <= ts_us and step.what == "gone":
                found.pop(step.name, None)
        return [found[name] for name in sorted(found, key=natural)]


@attrs.define
class Ears:
    """Since when a machine was silent lies between the last that it said and the first that it did not answer to.

    It has to answer to a pod that is bound to it, and to one that is to go.
    """

    heard_us: dict[str, int] = attrs.field(factory=dict)
    _unanswered: dict[str, dict[str, int]] = attrs.field(factory=dict)
    """By machine: uid of a pod -> since when."""

    def see_pod(self, event: Event) -> None:
        pod, uid = event.record.value, event.record.uid
        node = (pod.get("spec") or {}).get("nodeName") or ""
        if not node:
            return
        waiting = self._unanswered.setdefault(node, {})
        if event.op is Op.DELETED or is_kubelet(event.cause.actor.username):
            waiting.pop(uid, None)
        elif _asks_for_an_answer(pod, event.previous.value if event.previous is not None else {}):
            waiting.setdefault(uid, event.ts_us)

    def silent_since_us(self, node: str, guess_us: int) -> int:
        """`guess_us` is what the heartbeats tell."""
        first_us = min(self._unanswered.get(node, {}).values(), default=guess_us + 1)
        return max(min(guess_us, first_us - 1), self.heard_us.get(node, 0) + 1)


def _asks_for_an_answer(pod: Json, before: Json) -> bool:
    bound = not (before.get("spec") or {}).get("nodeName")
    return bound or (meta.is_deleting(pod) and not ("metadata" in before and meta.is_deleting(before)))


@frozen
class Ran:
    """How long a container ran, None: for ever."""

    ran_s: float | None
    exit_code: int = 0


Attempts = dict[int, Ran]
"""By number of restart."""


@attrs.define
class Lifetimes:
    """How long containers ran on machines that were not simulated.

    A pod of the second run is told what its namesake did; another one of the same owner what the first of its pods did.
    """

    _pods: dict[tuple[str, str, str], Attempts] = attrs.field(factory=dict)
    _owners: dict[tuple[str, str, str, str], Attempts] = attrs.field(factory=dict)

    def see(self, pod: Json) -> None:
        """A version of a pod; what a later one tells counts."""
        status = pod.get("status") or {}
        for field in _STATUSES:
            for entry in status.get(field) or ():
                simulated = str(entry.get("containerID") or f"{SCHEME}://").startswith(f"{SCHEME}://")
                runs = {} if simulated else _runs(entry)
                if runs:
                    self._keep(pod, str(entry["name"]), runs)

    def _keep(self, pod: Json, container: str, runs: Attempts) -> None:
        known = self._pods.setdefault((meta.namespace(pod), meta.name(pod), container), {})
        known.update(runs)
        owner = meta.controller_of(pod)
        if owner is not None:
            self._owners.setdefault((meta.namespace(pod), owner["kind"], owner["name"], container), known)

    def program(self, config: ContainerConfig) -> Program:
        """What a container does: as recorded, or else what its command says."""
        pod, name = config.pod, config.container["name"]
        runs = self._pods.get((meta.namespace(pod), meta.name(pod), name))
        owner = meta.controller_of(pod)
        if runs is None and owner is not None:
            runs = self._owners.get((meta.namespace(pod), owner["kind"], owner["name"], name))
        if not runs:
            return default_program(config)
        run = runs.get(config.attempt, runs[max(runs)])
        return Program(run.ran_s, run.exit_code)


def _runs(entry: Json) -> Attempts:
    """What a container status tells: of the present run, and of the one before."""
    count, state = int(entry.get("restartCount") or 0), entry.get("state") or {}
    before = _ended((entry.get("lastState") or {}).get("terminated"))
    now = _ended(state.get("terminated")) or (Ran(None) if "running" in state else None)
    told = {count - 1: before, count: now}
    return {attempt: run for attempt, run in told.items() if attempt >= 0 and run is not None}


def _ended(terminated: Json | None) -> Ran | None:
    if not terminated or not terminated.get("startedAt") or not terminated.get("finishedAt"):
        return None
    took = parse_time(terminated["finishedAt"]) - parse_time(terminated["startedAt"])
    return Ran(max(0.0, took / timedelta(seconds=1)), int(terminated.get("exitCode") or 0))
