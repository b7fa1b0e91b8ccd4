"""The probes of one container: when each is due, and what its results add up to.

A startup probe gates the other two. Liveness begins as passed, readiness as failed; a result changes once its
threshold of equal answers is reached. The worker asks the runtime; probes whose answer cannot change are not asked
again.
Source: k8s v1.36 pkg/kubelet/prober/{worker,prober,prober_manager}.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from kcp.node.runtime.protocol import ProbeKind, ProbeOutcome

Json = dict[str, Any]
KINDS: tuple[tuple[ProbeKind, str], ...] = (
    ("startup", "startupProbe"),
    ("liveness", "livenessProbe"),
    ("readiness", "readinessProbe"),
)
_INITIAL: dict[ProbeKind, bool] = {"startup": False, "liveness": True, "readiness": False}


@attrs.define(slots=True)
class Probe:
    """One probe of a running container. `due_s` None: nothing more to ask."""

    kind: ProbeKind
    spec: Json
    due_s: float | None
    passed: bool
    settled: bool = False
    last_ok: bool | None = None
    streak: int = 0

    @property
    def _threshold(self) -> int:
        if self.last_ok:
            return int(self.spec.get("successThreshold") or 1)
        return int(self.spec.get("failureThreshold") or 3)

    def record(self, outcome: ProbeOutcome, now_s: float) -> None:
        """Count an answer and set the next time."""
        self.streak = self.streak + 1 if outcome.ok == self.last_ok else 1
        self.last_ok = outcome.ok
        reached = self.streak >= self._threshold
        if reached:
            self.passed, self.settled = outcome.ok, True
        done = reached and (outcome.steady or self.kind == "startup")
        self.due_s = None if done else now_s + float(self.spec.get("periodSeconds") or 10)


@attrs.define(slots=True)
class ContainerProbes:
    """All probes of one container incarnation."""

    probes: tuple[Probe, ...] = ()

    @classmethod
    def of(cls, container: Json, started_s: float) -> ContainerProbes | None:
        """None for the many containers without probes."""
        found = [
            Probe(kind, spec, started_s + float(spec.get("initialDelaySeconds") or 0), _INITIAL[kind])
            for kind, field in KINDS
            if (spec := container.get(field)) is not None
        ]
        return cls(tuple(found)) if found else None

    def _get(self, kind: ProbeKind) -> Probe | None:
        return next((probe for probe in self.probes if probe.kind == kind), None)

    @property
    def started(self) -> bool:
        startup = self._get("startup")
        return startup is None or startup.passed

    @property
    def ready(self) -> bool:
        readiness = self._get("readiness")
        return self.started and (readiness is None or readiness.passed)

    @property
    def failed(self) -> Probe | None:
        """The startup or liveness probe for which the container has to be killed."""
        for probe in self.probes:
            if probe.kind != "readiness" and probe.settled and not probe.passed:
                return probe
        return None

    def active(self) -> Iterator[Probe]:
        """Those that may be asked now or later."""
        started = self.started
        for probe in self.probes:
            if probe.due_s is not None and (started or probe.kind == "startup"):
                yield probe

    def next_due_s(self) -> float | None:
        return min((probe.due_s for probe in self.active() if probe.due_s is not None), default=None)


def failure_text(probe: Probe, text: str) -> str:
    """The message of the Unhealthy event."""
    return f"{probe.kind.capitalize()} probe failed: {text}"


def kill_message(probe: Probe, container: str) -> str:
    return f"Container {container} failed {probe.kind} probe, will be restarted"
