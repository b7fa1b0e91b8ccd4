"""A leader that stands still while another takes over: its writes, on their way already, are refused by its fence."""

from __future__ import annotations

import attrs
import pytest

from kcp.client.transport import InProcessTransport
from kcp.replay.exploration import Scenario
from kcp.wire.http import Request, Response

PAUSES = [Scenario(seed, minutes=4, faults="leader-pause=0.5", daemons=2) for seed in (1, 2)]


@pytest.mark.parametrize("scenario", PAUSES, ids=str)
def test_two_leaders_never_both_write(scenario: Scenario) -> None:
    run = scenario.run()
    assert not run.violations, run.violations[0]
    assert any("leader-pause/kube-controller-manager" in key for key in run.fired)


@pytest.mark.parametrize("scenario", PAUSES, ids=str)
def test_without_fences_they_would(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same runs, with the fences taken off on the way: so it is they that hold the paused leader back."""
    request = InProcessTransport.request

    async def unfenced(self: InProcessTransport, asked: Request, timeout_s: float) -> Response:
        return await request(self, attrs.evolve(asked, fence=None), timeout_s)

    monkeypatch.setattr(InProcessTransport, "request", unfenced)
    assert "leaders" in {violation.invariant for violation in scenario.run().violations}
