"""When things happened: a second run keeps the pace of what was recorded, where that is near."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import anyio
import pytest

from kcp.base.clock import EPOCH_OF_SIMULATION, LoopClock, microseconds
from kcp.base.loop import run_deterministic
from kcp.client.workqueue.rate_limiting import RateLimitingQueue
from kcp.replay.pace import LATE_US, NEAR_US, Moments, Pace, Sights, keys_of, paced, place_of
from kcp.store.protocol import Actor, Cause, Decision, Key
from kcp.wire.http import Request
from tests.replay.events import Writer

Json = dict[str, Any]
START_US = microseconds(EPOCH_OF_SIMULATION)
REPLICASETS = "system:serviceaccount:kube-system:replicaset-controller"


def decision(key: str, now_us: int, effects: list[Json] | None = None, duration_us: int = 0) -> Decision:
    return Decision(
        1,
        "replicaset-controller",
        key,
        "event",
        {},
        now_us,
        effects or [],
        None,
        "",
        "",
        duration_us=duration_us,
    )


class TestMoments:
    def test_the_next_one_is_waited_for_and_used_up_when_it_is_there(self) -> None:
        moments = Moments([1000, 5000])
        assert moments.wait_us(0) == 1000
        assert moments.wait_us(400) == 600
        assert moments.wait_us(1000) == 0
        assert moments.wait_us(1000) == 4000, "the first is used up"
        assert moments.wait_us(5000) == moments.wait_us(5000) == 0

    def test_one_that_is_far_is_not_waited_for(self) -> None:
        moments = Moments([NEAR_US + 1])
        assert moments.wait_us(0) == 0
        assert moments.wait_us(1) == NEAR_US
        assert Moments([NEAR_US + 1]).wait_us(0, near_us=2 * NEAR_US) == NEAR_US + 1

    def test_one_that_is_long_past_is_forgotten_and_one_just_missed_is_now(self) -> None:
        assert Moments([0, LATE_US + 200]).wait_us(LATE_US + 100) == 100
        just = Moments([0, LATE_US + 200])
        assert (just.wait_us(100), just.wait_us(LATE_US)) == (0, 200)

    def test_writes_that_are_under_way_at_once_take_one_each(self) -> None:
        moments = Moments([1000, 3000])
        assert [moments.take_us(0) for _ in range(3)] == [1000, 3000, None]
        assert Moments().take_us(0) is None


class TestSights:
    def test_a_change_came_after_the_last_decision_that_had_not_seen_it(self) -> None:
        writer, sights = Writer(now_s=1.0), Sights()
        event = writer.put("pods", {"metadata": {"name": "a"}})
        changed = writer.put("pods", {"metadata": {"name": "a", "labels": {"x": "y"}}})
        sights.see(1_000_100, {"pods": event.rv})
        sights.see(1_000_200, {"pods": changed.rv})
        sights.see(1_000_150, {"nodes": 0})
        assert 1_000_100 < sights.since_us(changed) <= 1_000_200

    def test_without_a_decision_about_its_kind_it_came_at_its_time(self) -> None:
        event = Writer(now_s=1.0).put("nodes", {"metadata": {"name": "a"}})
        sights = Sights()
        sights.see(2_000_000, {"pods": 7})
        assert sights.since_us(event) == 1_000_000

    def test_a_new_pod_comes_just_before_it_is_seen(self) -> None:
        sights = Sights()
        sights.see(1_030_000, {"pods": 1})
        event = Writer(now_s=1.0).put("pods", {"metadata": {"name": "a"}})
        assert 1_029_000 < sights.since_us(event) < 1_030_000


class TestWrites:
    def test_each_is_there_when_it_was_recorded(self) -> None:
        writer, pace = Writer(now_s=1.0), Pace()
        event = writer.put(
            "pods", {"metadata": {"name": "a", "namespace": "shop"}}, Cause(Actor(REPLICASETS))
        )
        pace.see(event, event.ts_us)
        request = Request("POST", "/api/v1/namespaces/shop/pods", document={"metadata": {"name": "a"}})
        assert pace.write_us("somebody else", request, 990_000) is None
        assert pace.write_us(REPLICASETS, request, 990_000) == 10_000

    def test_one_that_was_refused_has_its_place_in_its_decision(self) -> None:
        pace = Pace()
        status = {"kind": "Status", "resource": "replicasets.apps", "namespace": "shop", "name": "web"}
        effects: list[Json] = [
            {"kind": "Event"},
            {**status, "rv": 7},
            {**status, "error": {"reason": "Conflict"}},
        ]
        pace.decided(decision("shop/web", 1_000_000, effects, duration_us=30_000), REPLICASETS)
        pace.in_order()
        request = Request("PUT", "/apis/apps/v1/namespaces/shop/replicasets/web/status")
        assert pace.write_us(REPLICASETS, request, 1_010_000) == 20_000

    @pytest.mark.parametrize(
        ("path", "place"),
        [
            ("/api/v1/namespaces/shop", ("namespaces", "", "shop")),
            ("/api/v1/namespaces/shop/status", ("namespaces", "", "shop")),
            ("/api/v1/namespaces/shop/pods", ("pods", "shop", "")),
            ("/api/v1/namespaces/shop/pods/a/binding", ("pods", "shop", "a")),
            ("/api/v1/nodes/n/status", ("nodes", "", "n")),
            ("/apis/apps/v1/namespaces/shop/replicasets/web", ("replicasets.apps", "shop", "web")),
            ("/kcp/v1/renewals", None),
            ("/apis/apps", None),
            ("/version", None),
        ],
    )
    def test_what_a_path_is_about(self, path: str, place: tuple[str, str, str] | None) -> None:
        assert place_of(path) == place

    def test_what_requests_for_many_are_about(self) -> None:
        item = {"group": "apps", "version": "v1", "plural": "replicasets", "namespace": "shop"}
        creates = Request(
            "POST", "/kcp/v1/creates", document={"items": [{**item, "object": {"metadata": {"name": "a"}}}]}
        )
        deletes = Request("POST", "/kcp/v1/deletes", document={"items": [{**item, "name": "a"}]})
        bindings = Request(
            "POST", "/kcp/v1/bindings", document={"bindings": [{"namespace": "shop", "name": "p"}]}
        )
        assert [*keys_of(creates), *keys_of(deletes)] == [Key("replicasets.apps", "shop", "a")] * 2
        assert list(keys_of(bindings)) == [Key("pods", "shop", "p")]


def test_a_queue_hands_out_a_key_when_its_decision_was_begun() -> None:
    pace = Pace()
    for at_us in (200_000, 240_000):
        pace.decided(decision("shop/web", START_US + at_us), REPLICASETS)

    async def run() -> list[tuple[str, int]]:
        clock = LoopClock(EPOCH_OF_SIMULATION)
        queue = paced("replicaset-controller", RateLimitingQueue(clock=clock), pace, clock)
        found: list[tuple[str, int]] = []
        async with anyio.create_task_group() as group:
            group.start_soon(queue.run)
            for key in ("shop/web", "shop/other", "shop/web"):
                queue.add(key)
            while len(found) < 3:
                key = await queue.get()
                found.append((key, round((clock.now() - EPOCH_OF_SIMULATION) / timedelta(milliseconds=1))))
                queue.done(key)
                if len(found) == 2:
                    queue.add("shop/web")
            group.cancel_scope.cancel()
        return found

    assert run_deterministic(run, 1) == [("shop/other", 0), ("shop/web", 200), ("shop/web", 240)]
