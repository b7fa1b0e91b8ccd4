"""The scheduler as a process of its own, over HTTPS, against any Kubernetes API server.

What decides is the same `Scheduler` as inside the daemon; its bindings go out one request each, many at a time.
Source: k8s v1.36 cmd/kube-scheduler/app/server.go.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import anyio
import attrs
import structlog

from kcp.base.values import frozen
from kcp.client.cache.shared_informer import InformerFactory
from kcp.client.leader_election import Timing
from kcp.client.recorder import EventRecorder, EventType
from kcp.controlplane import standalone
from kcp.controlplane.standalone import Component, ComponentSettings
from kcp.machinery.times import parse_go_duration
from kcp.scheduler.metrics import Measured, series
from kcp.scheduler.profiles import Configuration, read_configuration
from kcp.scheduler.scheduler import Scheduler
from kcp.scheduler.writes import EventWriter

log = structlog.get_logger()

Json = dict[str, Any]

LEASE = "kube-scheduler"
REPORTER = "default-scheduler"
LINGER_S = 0.5


@frozen
class SchedulerFile:
    """A KubeSchedulerConfiguration: what it says about scheduling, and the rest of it."""

    configuration: Configuration = attrs.field(factory=Configuration)
    kubeconfig: str = ""
    leader_election: Json = attrs.field(factory=dict)

    @classmethod
    def read(cls, path: str) -> SchedulerFile:
        """Raises OSError or ConfigError."""
        configuration = read_configuration(path)
        document = configuration.document or {}
        connection = document.get("clientConnection") or {}
        return cls(configuration, connection.get("kubeconfig") or "", document.get("leaderElection") or {})

    def elected(self, settings: ComponentSettings) -> ComponentSettings:
        """The settings as the file has them, where it says something."""
        said = self.leader_election
        if said.get("leaderElect") is False:
            return attrs.evolve(settings, lease="")
        return attrs.evolve(
            settings,
            lease=said.get("resourceName") or settings.lease or LEASE,
            lease_namespace=said.get("resourceNamespace") or settings.lease_namespace,
            timing=Timing(
                _seconds(said, "leaseDuration", settings.timing.lease_duration_s),
                _seconds(said, "renewDeadline", settings.timing.renew_deadline_s),
                _seconds(said, "retryPeriod", settings.timing.retry_period_s),
            ),
        )


def _seconds(said: Json, name: str, default_s: float) -> float:
    return parse_go_duration(said[name]) if said.get(name) else default_s


def event_writer(recorder: EventRecorder) -> EventWriter:
    """Events of a pod are reported by the scheduler that the pod asks for, those of a victim by its preemptor's."""

    def write(
        regarding: Json, type_: str, reason: str, message: str, action: str, related: Json | None
    ) -> None:
        pod = related if action == "Preempting" and related is not None else regarding
        reporter = (pod.get("spec") or {}).get("schedulerName") or ""
        recorder.event(
            regarding,
            cast("EventType", type_),
            reason,
            message,
            action=action,
            related=related,
            reporting_controller=reporter,
        )

    return write


async def lead(configuration: Configuration, component: Component, measured: Measured | None = None) -> None:
    """Schedule until cancelled: one turn. What is `measured` goes on from turn to turn."""
    client = component.connections.client("scheduler", fence=component.fence)
    events = component.connections.client("events", fence=component.fence)
    entropy = component.entropy.stream(f"{LEASE}/{component.epoch}")
    informers = InformerFactory(component.connections.client(), clock=component.clock, entropy=entropy)
    recorder = EventRecorder(
        events, REPORTER, form="events.k8s.io", linger_s=LINGER_S, clock=component.clock, entropy=entropy
    )
    scheduler = Scheduler(
        client,
        informers,
        component.clock,
        component.sink,
        event_writer(recorder),
        seed=entropy.below(2**63),
        configuration=configuration,
        epoch=lambda: component.epoch,
        measured=measured or Measured(),
    )
    component.metrics.collect("scheduler", partial(series, scheduler))
    async with anyio.create_task_group() as group:
        group.start_soon(component.forever, "scheduler events", recorder.run)
        group.start_soon(component.forever, "scheduler informers", informers.run)
        await scheduler.run()


async def run(
    component: ComponentSettings, configuration: Configuration, on_ready: Callable[[str], None]
) -> None:
    """Run until SIGINT or SIGTERM. Raises OSError, ValueError or StoreError when it cannot start."""
    for note in configuration.notes:
        if not note.startswith("leaderElection"):  # that has none inside a daemon only
            log.warning("scheduler configuration", note=note)
    await standalone.run(component, partial(lead, configuration, measured=Measured()), on_ready)
