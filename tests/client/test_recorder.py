from __future__ import annotations

from typing import Any

import anyio
import pytest

from kcp.base.background import Background
from kcp.base.clock import LoopClock
from kcp.base.entropy import SeededEntropy
from kcp.client.recorder import QUEUE_CAPACITY, EventRecorder, Form
from kcp.client.transport import Unreachable
from kcp.machinery.errors import Forbidden
from tests.client.support import client_of
from tests.support.background import running
from tests.support.fake_api import FakeApi

pytestmark = pytest.mark.sim

Json = dict[str, Any]
WEB: Json = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "7"},
}
NODE: Json = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "uid": "u2"}}


def recorder(api: FakeApi, form: Form = "core") -> EventRecorder:
    return EventRecorder(
        client_of(api), "deployment-controller", form=form, clock=LoopClock(), entropy=SeededEntropy(1)
    )


def events(api: FakeApi, resource: str = "events") -> list[Json]:
    return [document.value for document in api.objects.get(resource, {}).values()]


async def test_an_event_as_controllers_write_it() -> None:
    api = FakeApi()
    record = recorder(api)
    async with running(record.run):
        record.event(WEB, "Normal", "ScalingReplicaSet", "Scaled up replica set web-1 from 0 to 3")
        assert await record.flush()
    (event,) = events(api)
    assert event["metadata"]["namespace"] == "shop"
    assert event["metadata"]["name"].startswith("web.")
    assert int(event["metadata"]["name"].removeprefix("web."), 16) > 0
    assert event["involvedObject"] == {
        "kind": "Deployment",
        "namespace": "shop",
        "name": "web",
        "uid": "u1",
        "apiVersion": "apps/v1",
        "resourceVersion": "7",
    }
    assert {
        key: event[key] for key in ("reason", "message", "type", "count", "source", "reportingComponent")
    } == {
        "reason": "ScalingReplicaSet",
        "message": "Scaled up replica set web-1 from 0 to 3",
        "type": "Normal",
        "count": 1,
        "source": {"component": "deployment-controller"},
        "reportingComponent": "deployment-controller",
    }
    assert event["firstTimestamp"] == event["lastTimestamp"] == "2026-01-01T00:00:00Z"


async def test_the_same_again_counts_up() -> None:
    api = FakeApi()
    record = recorder(api)
    async with running(record.run):
        for _ in range(3):
            record.event(WEB, "Warning", "FailedCreate", "no quota")
        await record.flush()
        await anyio.sleep(61)
        record.event(WEB, "Warning", "FailedCreate", "no quota")
        await record.flush()
    (event,) = events(api)
    assert (event["count"], event["lastTimestamp"]) == (4, "2026-01-01T00:01:01Z")
    assert len([r for r in api.requests if r.method == "PATCH"]) == 1, "a burst is one write"


async def test_events_that_expired_are_made_anew() -> None:
    api = FakeApi()
    record = recorder(api)
    async with running(record.run):
        record.event(WEB, "Normal", "R", "m")
        await record.flush()
        (event,) = events(api)
        api.remove("events", event["metadata"]["name"], "shop")
        record.event(WEB, "Normal", "R", "m")
        await record.flush()
    assert [event["count"] for event in events(api)] == [2]


async def test_many_similar_ones_are_combined_and_floods_are_cut() -> None:
    api = FakeApi()
    record = recorder(api)
    async with running(record.run):
        for i in range(40):
            record.event(WEB, "Warning", "Failed", f"attempt {i}")
        await record.flush()
        by_message = {event["message"]: event["count"] for event in events(api)}
        combined = {
            message for message in by_message if message.startswith("(combined from similar events): ")
        }
        assert set(by_message) - combined == {f"attempt {i}" for i in range(9)}
        assert [by_message[message] for message in combined] == [31], "counted, also where writes were cut"
        record.event(NODE, "Normal", "NodeReady", "another object has its own budget")
        await record.flush()
        assert len(events(api)) == 11


async def test_cluster_scoped_objects_have_their_events_in_default() -> None:
    api = FakeApi()
    record = recorder(api)
    async with running(record.run):
        record.event(NODE, "Normal", "NodeReady", "Node n1 status is now: NodeReady")
        await record.flush()
    assert events(api)[0]["metadata"]["namespace"] == "default"


async def test_the_new_form_writes_series() -> None:
    api = FakeApi()
    record = recorder(api, "events.k8s.io")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "shop", "uid": "u3"}}
    async with running(record.run):
        for i in range(5):
            record.event(
                pod, "Warning", "FailedScheduling", f"0/{i} nodes", action="Scheduling", related=NODE
            )
            await record.flush()
            await anyio.sleep(10)
        (event,) = events(api, "events.events.k8s.io")
        assert (event["note"], event["action"]) == ("0/0 nodes", "Scheduling")
        assert event["reportingController"] == "deployment-controller"
        assert event["regarding"]["name"] == "p"
        assert event["related"]["name"] == "n1"
        assert event["series"]["count"] == 2, "only the first repetition is written at once"
        await anyio.sleep(500)
        record.event(pod, "Warning", "FailedScheduling", "again", action="Scheduling", related=NODE)
        await record.flush()
    assert len(events(api, "events.events.k8s.io")) == 2, "after six quiet minutes it is another event"


async def test_the_queue_is_bounded() -> None:
    record = recorder(FakeApi())
    for i in range(QUEUE_CAPACITY + 5):
        record.event(WEB, "Normal", "R", f"m{i}")
    assert record.dropped == 5


async def test_a_server_out_of_reach_is_tried_again_a_refusal_is_not() -> None:
    api = FakeApi()
    record = recorder(api)
    api.faults.extend([Unreachable("connection refused")] * 3)
    async with running(record.run):
        record.event(WEB, "Normal", "R", "m")
        assert await record.flush(60)
        assert len(events(api)) == 1
        api.faults.append(Forbidden("namespace is being terminated"))
        record.event(NODE, "Normal", "R", "m")
        await record.flush()
        assert len(events(api)) == 1


async def test_events_wait_for_what_they_report_but_not_for_ever() -> None:
    api = FakeApi()
    background = Background(LoopClock(), lambda: True)
    background.leave(await background.enter() - 1.0)
    record = EventRecorder(client_of(api), "c", clock=LoopClock(), background=background)
    async with running(record.run):
        record.event(WEB, "Normal", "R", "m")
        await anyio.sleep(0.05)
        assert events(api) == []
        assert await record.flush()
        assert len(events(api)) == 1


async def test_names_do_not_collide() -> None:
    api = FakeApi()
    one, two = recorder(api), recorder(api)
    async with running(one.run, two.run):
        one.event(WEB, "Normal", "A", "m")
        two.event(WEB, "Normal", "B", "m")
        await one.flush()
        await two.flush()
    assert sorted(event["reason"] for event in events(api)) == ["A", "B"]


async def test_after_a_flush_that_was_too_late_events_wait_for_company_as_before() -> None:
    api = FakeApi()
    record = EventRecorder(
        client_of(api), "deployment-controller", clock=LoopClock(), entropy=SeededEntropy(1), linger_s=1.0
    )
    async with running(record.run):
        api.faults.append(Unreachable("nobody there"))
        record.event(WEB, "Normal", "ScalingReplicaSet", "one")
        assert not await record.flush(0.01)
        await anyio.sleep(60)
        assert len(events(api)) == 1
        record.event(NODE, "Normal", "NodeReady", "two")
        await anyio.sleep(0.5)
        assert len(events(api)) == 1
        await anyio.sleep(1)
        assert len(events(api)) == 2
