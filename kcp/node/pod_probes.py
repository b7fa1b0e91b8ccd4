"""The probes of all containers of one pod: asked when due, forgotten with their container.

Source: k8s v1.36 pkg/kubelet/prober/prober_manager.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import attrs

from kcp.apis.semantics.pods import containers, init_containers
from kcp.node.probes import KINDS, ContainerProbes, Probe, failure_text, kill_message
from kcp.node.runtime.protocol import ContainerStatus, NotFound, PodStatus, Runtime
from kcp.node.sync_pod import HEALTHY, Health

Json = dict[str, Any]
Tell = Callable[[str, str], None]
"""(container, message) of an Unhealthy event."""


def has_probes(pod: Json) -> bool:
    """Whether there is anything to ask; most pods have nothing."""
    return any(
        field in container for container in (*containers(pod), *init_containers(pod)) for _, field in KINDS
    )


@attrs.define(slots=True, eq=False)
class PodProbes:
    """By container id, so that a restarted container begins anew."""

    _by_id: dict[str, ContainerProbes] = attrs.field(factory=dict)
    _names: dict[str, str] = attrs.field(factory=dict)

    def started(self, status: ContainerStatus) -> bool:
        """Whether a running container has passed its startup probe, if it has one."""
        probes = self._by_id.get(status.id)
        return probes is None or probes.started

    def ready(self, status: ContainerStatus) -> bool:
        probes = self._by_id.get(status.id)
        return probes is None or probes.ready

    def health(self, stopping: Mapping[str, float], forced: Iterable[str]) -> Health:
        """What the planner has to know; containers that are being stopped are left alone."""
        if not self._by_id and not forced:
            return HEALTHY
        killed = {
            cid: (kill_message(failed, self._names[cid]), failed.spec.get("terminationGracePeriodSeconds"))
            for cid, probes in self._by_id.items()
            if (failed := probes.failed) is not None and cid not in stopping
        }
        waiting = frozenset(cid for cid, probes in self._by_id.items() if not probes.started)
        return Health(killed, waiting, frozenset(forced))

    async def ask(
        self, pod: Json, status: PodStatus, runtime: Runtime, now: datetime, now_s: float, tell: Tell
    ) -> float | None:
        """Ask every probe that is due; when the next one is. `now` and `now_s` are the same moment."""
        running = {each.id: each for each in status.containers if each.state == "running"}
        self._follow(pod, running, now, now_s)
        next_s: float | None = None
        for cid, probes in self._by_id.items():
            await _ask_due(runtime, running[cid], probes, now_s, tell)
            due_s = probes.next_due_s() if probes.failed is None else None
            if due_s is not None and (next_s is None or due_s < next_s):
                next_s = due_s
        return next_s

    def _follow(self, pod: Json, running: Mapping[str, ContainerStatus], now: datetime, now_s: float) -> None:
        """Begin with what runs now, drop what does not any more."""
        for gone in [cid for cid in self._by_id if cid not in running]:
            del self._by_id[gone], self._names[gone]
        specs = {container["name"]: container for container in (*containers(pod), *init_containers(pod))}
        for cid, each in running.items():
            if cid in self._by_id or each.name not in specs or each.started_at is None:
                continue
            age_s = (now - each.started_at) / timedelta(seconds=1)
            probes = ContainerProbes.of(specs[each.name], now_s - age_s)
            if probes is not None:
                self._by_id[cid], self._names[cid] = probes, each.name


async def _ask_due(
    runtime: Runtime, status: ContainerStatus, probes: ContainerProbes, now_s: float, tell: Tell
) -> None:
    """Until none is due: a startup probe that passes lets the others begin."""
    for _ in probes.probes:
        due = [probe for probe in probes.active() if probe.due_s is not None and probe.due_s <= now_s]
        for probe in due:
            await _ask_one(runtime, status, probe, now_s, tell)
        if not due:
            return


async def _ask_one(runtime: Runtime, status: ContainerStatus, probe: Probe, now_s: float, tell: Tell) -> None:
    try:
        outcome = await runtime.probe(status.id, probe.kind, probe.spec)
    except NotFound:
        probe.due_s = None
        return
    probe.record(outcome, now_s)
    if not outcome.ok:
        tell(status.name, failure_text(probe, outcome.text))
