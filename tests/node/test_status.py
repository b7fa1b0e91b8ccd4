"""Phases and conditions from what containers did."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.node.status import phase_of

Json = dict[str, Any]
RUNNING: Json = {"state": {"running": {}}, "lastState": {}, "started": True, "ready": True}
WAITING: Json = {"state": {"waiting": {}}, "lastState": {}, "started": False, "ready": False}


def over(code: int) -> Json:
    return {
        "state": {"terminated": {"exitCode": code}},
        "lastState": {},
        "started": False,
        "ready": code == 0,
    }


def crashed(code: int) -> Json:
    """Ended, and waiting to be started again."""
    return {**WAITING, "lastState": {"terminated": {"exitCode": code}}}


def phase(
    policy: str, *entries: Json, inits: tuple[Json, ...] = (), sidecar: bool = False, ended: bool = False
) -> str:
    own = {"restartPolicy": "Always"} if sidecar else {}
    pod = {
        "spec": {
            "restartPolicy": policy,
            "containers": [{"name": f"c{i}"} for i in range(len(entries))],
            "initContainers": [{"name": f"i{i}", **own} for i in range(len(inits))],
        }
    }
    known = {f"c{i}": {"name": f"c{i}", **entry} for i, entry in enumerate(entries)}
    known |= {f"i{i}": {"name": f"i{i}", **entry} for i, entry in enumerate(inits)}
    return phase_of(pod, known, ended)


@pytest.mark.parametrize(
    ("policy", "entries", "expected"),
    [
        ("Always", [RUNNING], "Running"),
        ("Always", [RUNNING, WAITING], "Pending"),
        ("Always", [RUNNING, crashed(1)], "Running"),
        ("Always", [over(0)], "Running"),
        ("OnFailure", [over(0), over(1)], "Running"),
        ("OnFailure", [over(0), over(0)], "Succeeded"),
        ("Never", [over(0), over(1)], "Failed"),
        ("Never", [over(1), RUNNING], "Running"),
        ("Never", [over(0)], "Succeeded"),
    ],
)
def test_phase_by_containers(policy: str, entries: list[Json], expected: str) -> None:
    assert phase(policy, *entries) == expected


@pytest.mark.parametrize(
    ("policy", "init", "expected"),
    [
        ("Always", RUNNING, "Pending"),
        ("Always", over(1), "Pending"),
        ("Always", crashed(1), "Pending"),
        ("Never", over(1), "Failed"),
        ("Never", over(0), "Pending"),
    ],
)
def test_phase_while_initializing(policy: str, init: Json, expected: str) -> None:
    assert phase(policy, WAITING, inits=(init,)) == expected


def test_a_sidecar_that_has_not_started_keeps_the_pod_pending() -> None:
    starting = {**RUNNING, "started": False}
    assert phase("Always", WAITING, inits=(starting,), sidecar=True) == "Pending"
    assert phase("Always", RUNNING, inits=(starting,), sidecar=True) == "Running"


@pytest.mark.parametrize(
    ("entries", "expected"),
    [([over(0)], "Succeeded"), ([over(143)], "Failed"), ([crashed(0)], "Succeeded"), ([WAITING], "Failed")],
)
def test_an_ended_pod_is_terminal_whatever_its_policy(entries: list[Json], expected: str) -> None:
    assert phase("Always", *entries, ended=True) == expected
