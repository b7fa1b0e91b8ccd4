"""What a KubeSchedulerConfiguration says beside profiles, and who reports what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kcp.base.clock import VirtualClock
from kcp.client.client import Client
from kcp.client.leader_election import Timing
from kcp.client.recorder import EventRecorder
from kcp.client.transport import InProcessTransport
from kcp.controlplane.kube_scheduler import SchedulerFile, event_writer
from kcp.controlplane.standalone import ComponentSettings
from kcp.scheduler.profiles import ConfigError
from kcp.wire.http import Request, Response

HEAD = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"
SETTINGS = ComponentSettings("kube-scheduler", lease="from-flags", timing=Timing(30.0, 20.0, 4.0))


def read(path: Path, text: str) -> SchedulerFile:
    file = path / "scheduler.yaml"
    file.write_text(HEAD + text, encoding="utf-8")
    return SchedulerFile.read(str(file))


def test_the_file_says_how_to_reach_the_server_and_which_lease(tmp_path: Path) -> None:
    text = """
clientConnection: {kubeconfig: /etc/kubernetes/scheduler.conf}
leaderElection: {resourceName: mine, resourceNamespace: here, leaseDuration: 6s, renewDeadline: 4s, retryPeriod: 1s}
profiles: [{schedulerName: batch}]
"""
    file = read(tmp_path, text)
    assert file.kubeconfig == "/etc/kubernetes/scheduler.conf"
    assert [profile.name for profile in file.configuration.profiles] == ["batch"]
    settings = file.elected(SETTINGS)
    assert (settings.lease, settings.lease_namespace) == ("mine", "here")
    assert settings.timing == Timing(6.0, 4.0, 1.0)


def test_what_it_does_not_say_stays_as_it_is(tmp_path: Path) -> None:
    assert read(tmp_path, "").elected(SETTINGS) == SETTINGS
    assert read(tmp_path, "leaderElection: {leaderElect: false}").elected(SETTINGS).lease == ""


@pytest.mark.parametrize(
    "text",
    [
        "profiles: [{plugins: {score: {enabled: [{name: Nothing}]}}}]",
        "profiles: 7",
        "leaderElection: [",
        "x: {",
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"scheduler\.yaml: "):
        read(tmp_path, text)


async def test_a_pods_own_scheduler_reports_and_a_victims_preemptors() -> None:
    sent: list[dict[str, Any]] = []

    async def nobody(request: Request) -> Response:
        raise AssertionError(request.path)

    class Kept(EventRecorder):
        def event(self, *args: Any, **kwargs: Any) -> None:
            sent.append(kwargs)

    recorder = Kept(Client(InProcessTransport(nobody, None)), "default-scheduler", clock=VirtualClock())
    write = event_writer(recorder)
    victim = {"metadata": {"name": "old"}, "spec": {"schedulerName": "default-scheduler"}}
    preemptor = {"metadata": {"name": "new"}, "spec": {"schedulerName": "batch"}}
    write(preemptor, "Normal", "Scheduled", "…", "Binding", None)
    write(victim, "Normal", "Preempted", "…", "Preempting", preemptor)
    assert [each["reporting_controller"] for each in sent] == ["batch", "batch"]
