"""Jobs go some time after they ended, and not before."""

from __future__ import annotations

from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.ttl_after_finished import CONTROLLER
from tests.support.builders import served_job
from tests.support.planning import World

Json = dict[str, Any]
KEY = "default/once"


def finished(type_: str = "Complete", **spec: Any) -> Json:
    condition = {"type": type_, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    return {**served_job("once", **spec), "status": {"conditions": [condition]}}


def test_it_waits_for_the_rest_of_the_time() -> None:
    world = World(finished(ttlSecondsAfterFinished=30))
    world.sleep(10)
    assert world.plan(CONTROLLER, KEY) == [fx.RequeueAfter(20)]


def test_then_the_job_goes_in_the_foreground_if_it_is_still_the_same() -> None:
    world = World(finished("Failed", ttlSecondsAfterFinished=30))
    world.sleep(30)
    (delete,) = world.plan(CONTROLLER, KEY)
    assert isinstance(delete, fx.Delete)
    assert (delete.propagation, delete.uid, delete.rv) == ("Foreground", "job-once", "1")


def test_zero_means_at_once() -> None:
    (delete,) = World(finished(ttlSecondsAfterFinished=0)).plan(CONTROLLER, KEY)
    assert isinstance(delete, fx.Delete)


def test_jobs_without_the_field_or_without_an_end_stay() -> None:
    assert World(finished()).plan(CONTROLLER, KEY) == []
    assert World(served_job("once", ttlSecondsAfterFinished=0)).plan(CONTROLLER, KEY) == []
    going = finished(ttlSecondsAfterFinished=0)
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert World(going).plan(CONTROLLER, KEY) == []
