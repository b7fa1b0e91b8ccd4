"""Devices as a person would claim them: `examples/devices` by kubectl, against simulated nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.real.daemon import ROOT, Daemon, eventually
from tests.real.kubectl import FULL, Kubectl

pytestmark = [
    pytest.mark.real,
    pytest.mark.parametrize("kubectl", FULL, indirect=True),
]

DEVICES = ROOT / "examples/devices"


@pytest.fixture
def gpus(kubectl: Kubectl, daemon: Daemon) -> Iterator[None]:
    """Two nodes with devices; afterwards there are none."""
    del daemon
    kubectl("apply", "-f", DEVICES / "gpus.yaml")
    yield
    kubectl("delete", "pods,resourceclaims,resourceclaimtemplates", "--all", "--wait=false")
    kubectl("delete", "resourceslices,deviceclasses", "--all")
    eventually(lambda: not kubectl.json("get", "resourceclaims")["items"], "the claims are gone", 60)


def running(kubectl: Kubectl, name: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        pod = dict(kubectl.json("get", "pod", name))
        return pod if pod["status"].get("phase") == "Running" else None

    return dict(eventually(look, f"pod {name} runs", 60))


def test_devices_by_template_shared_and_not_yet_there(kubectl: Kubectl, gpus: None) -> None:
    del gpus
    kubectl("apply", "-f", DEVICES / "template.yaml")
    assert running(kubectl, "trainer")["spec"]["nodeName"] == "node-2"
    (claim,) = kubectl.json("get", "resourceclaims")["items"]
    table = kubectl("get", "resourceclaims").splitlines()
    assert table[0].split() == ["NAME", "STATE", "AGE"]
    assert table[1].split()[:2] == [claim["metadata"]["name"], "allocated,reserved"]
    described = kubectl("describe", "resourceclaim", claim["metadata"]["name"])
    assert "gpu.example.com" in described and "trainer" in described

    kubectl("apply", "-f", DEVICES / "shared.yaml")
    left, right = running(kubectl, "left"), running(kubectl, "right")
    assert left["spec"]["nodeName"] == right["spec"]["nodeName"] == "node-1"

    kubectl("apply", "-f", DEVICES / "huge.yaml")
    said = eventually(lambda: failed_scheduling(kubectl, "patient"), "the waiting pod has an Event", 60)
    assert "cannot allocate all claims. still not schedulable, preemption: " in said
    kubectl("apply", "-f", DEVICES / "more.yaml")
    running(kubectl, "patient")
    assert "fabric" in kubectl("get", "resourceclaim", "huge", "-o", "yaml")

    kubectl("delete", "pod", "left", "right", "trainer")
    pending = {"huge": "allocated,reserved", "pair": "pending"}
    eventually(lambda: states(kubectl) == pending, "the claims are free or gone", 60)

    kubectl("apply", "-f", DEVICES / "extended.yaml")
    status = running(kubectl, "plain")["status"]["extendedResourceClaimStatus"]
    made = status["resourceClaimName"]
    assert made.startswith("plain-extended-resources-") and states(kubectl)[made] == "allocated,reserved"
    assert status["requestMappings"][0]["resourceName"] == "example.com/gpu"
    kubectl("delete", "pod", "plain")
    eventually(lambda: states(kubectl) == pending, "the claim is gone with its pod", 60)


def failed_scheduling(kubectl: Kubectl, name: str) -> str | None:
    selector = f"reason=FailedScheduling,involvedObject.name={name}"
    events = kubectl.json("get", "events", "--field-selector", selector)["items"]
    return str(events[-1]["message"]) if events else None


def states(kubectl: Kubectl) -> dict[str, str]:
    rows = [line.split() for line in kubectl("get", "resourceclaims").splitlines()[1:]]
    return {row[0]: row[1] for row in rows}
