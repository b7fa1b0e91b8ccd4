"""The scheduling queue: order, backoff, gates, events that wake, events that came meanwhile."""

from __future__ import annotations

from typing import Any

from kcp.scheduler.hints import ClusterEvent
from kcp.scheduler.queue import MAX_IN_FLIGHT_EVENTS, SECOND_US, QueuedPod, SchedulingQueue
from tests.scheduler.harness import node, pod

Json = dict[str, Any]
S = SECOND_US


def made(answer: bool = True) -> SchedulingQueue:
    return SchedulingQueue(lambda queued, event, hints: answer)


def waiting(name: str, **spec: Any) -> Json:
    obj = pod(name, **spec)
    obj["metadata"]["uid"] = name
    return obj


def popped(queue: SchedulingQueue, now_us: int) -> QueuedPod:
    queued = queue.pop(now_us)
    assert queued is not None
    return queued


def place(queued: QueuedPod) -> str:
    return queued.place


NODE_ADDED = ClusterEvent("nodes", ("add",), None, node("n"))


def test_priority_first_then_age() -> None:
    queue = made()
    for number, (name, priority) in enumerate([("old", 0), ("young", 0), ("high", 5)]):
        queue.add(waiting(name), priority, number)
    assert [popped(queue, 9).uid for _ in range(3)] == ["high", "old", "young"]
    assert queue.pop(9) is None


def test_backoff_doubles_from_one_to_ten_seconds() -> None:
    queue = made()
    queue.add(waiting("p"), 0, 0)
    waits, now = [], 0
    for _ in range(6):
        queued = popped(queue, now)
        queue.back(queued, ["NodeResourcesFit"], now)
        queue.move(NODE_ADDED, now)
        assert place(queued) == "backoff"
        due = queue.due_us()
        assert due is not None
        waits.append((due - now) // S)
        now = due
        queue.tick(now)
    assert waits == [1, 2, 4, 8, 10, 10]


def test_backoff_ends_on_whole_seconds_so_that_priority_decides_within_one() -> None:
    queue = made()
    queue.add(waiting("p"), 0, 0)
    queued = popped(queue, 1_700_000)
    queue.back(queued, ["NodeResourcesFit"], 1_700_000)
    assert queue.backoff_until_us(queued) == 2 * S


def test_an_idle_queue_pops_the_backoff_early_but_not_the_errors() -> None:
    queue = made()
    queue.add(waiting("rejected"), 0, 0)
    queue.add(waiting("failed"), 0, 1)
    rejected, failed = popped(queue, 2), popped(queue, 2)
    queue.back(failed, (), 2, error=True)
    queue.back(rejected, ["NodeResourcesFit"], 2)
    queue.move(NODE_ADDED, 3)
    assert popped(queue, 4) is rejected
    assert queue.pop(4) is None


def test_only_events_that_help_wake_a_pod() -> None:
    queue = made(answer=False)
    queue.add(waiting("p"), 0, 0)
    queued = popped(queue, 0)
    queue.back(queued, ["NodeResourcesFit"], 0)
    queue.move(NODE_ADDED, 1)
    assert place(queued) == "unschedulable"
    queue.tick(299 * S)
    assert place(queued) == "unschedulable"
    queue.tick(400 * S)
    assert place(queued) == "active"


def test_an_event_during_the_attempt_is_not_lost() -> None:
    queue = made()
    queue.add(waiting("p"), 0, 0)
    queued = popped(queue, 0)
    queue.move(NODE_ADDED, 1)
    assert queue.sizes()["in_flight_events"] == 1
    queue.back(queued, ["NodeResourcesFit"], 2)
    assert place(queued) == "backoff"
    assert queue.sizes()["in_flight_events"] == 0


def test_an_event_that_the_plugin_does_not_wait_for_changes_nothing() -> None:
    queue = made()
    queue.add(waiting("p"), 0, 0)
    queued = popped(queue, 0)
    queue.back(queued, ["NodeAffinity"], 0)
    queue.move(ClusterEvent("pods", ("delete",), waiting("other"), None), 1)
    assert place(queued) == "unschedulable"


def test_a_gated_pod_enters_when_its_gates_are_gone() -> None:
    queue = made()
    gated, free = waiting("p", schedulingGates=[{"name": "g"}]), waiting("p")
    queue.add(gated, 0, 0)
    assert queue.pop(0) is None and queue.sizes()["gated"] == 1
    queue.update(gated, free, 0, 5)
    assert popped(queue, 6).uid == "p"


def test_a_pod_whose_victims_are_leaving_is_held_and_woken_after() -> None:
    queue = made()
    queue.add(waiting("p"), 0, 0)
    queued = popped(queue, 0)
    queue.back(queued, ["NodeResourcesFit"], 0)
    queue.hold("p")
    queue.move(NODE_ADDED, 1)
    assert place(queued) == "unschedulable"
    queue.release("p", 2)
    assert place(queued) == "backoff"


def test_a_toleration_added_to_the_pod_itself_wakes_it() -> None:
    queue = made()
    before = waiting("p")
    after = waiting("p", tolerations=[{"operator": "Exists"}])
    queue.add(before, 0, 0)
    queued = popped(queue, 0)
    queue.back(queued, ["TaintToleration"], 0)
    queue.update(before, {**before, "status": {"phase": "Pending"}}, 0, 1)
    assert place(queued) == "unschedulable"
    queue.update(before, after, 0, 1)
    assert place(queued) == "backoff"


def test_a_removed_pod_leaves_nothing_behind() -> None:
    queue = made()
    for name in ("a", "b", "c"):
        queue.add(waiting(name), 0, 0)
    flying, parked = popped(queue, 0), popped(queue, 0)
    queue.back(parked, ["NodeName"], 0)
    queue.move(NODE_ADDED, 0)
    for name in ("a", "b", "c"):
        queue.remove(name)
    queue.back(flying, ["NodeName"], 1)
    assert set(queue.sizes().values()) == {0} and len(queue) == 0


def test_a_pod_that_is_long_in_flight_keeps_no_more_events_than_it_may_miss() -> None:
    queue = made(answer=False)
    for name in ("slow", "quick"):
        queue.add(waiting(name), 0, 0)
    slow, quick = popped(queue, 0), popped(queue, 0)
    for _ in range(MAX_IN_FLIGHT_EVENTS + 5):
        queue.move(NODE_ADDED, 1)
    assert queue.sizes()["in_flight_events"] == MAX_IN_FLIGHT_EVENTS
    queue.back(slow, ["NodeResourcesFit"], 2)
    assert place(slow) == "backoff", "what it missed is not known any more, so it is tried again"
    queue.done(quick.uid)
    assert queue.sizes()["in_flight_events"] == 0


def test_events_that_nobody_in_flight_can_have_missed_are_let_go() -> None:
    queue = made()
    for name in ("first", "second"):
        queue.add(waiting(name), 0, 0)
    first = popped(queue, 0)
    queue.move(NODE_ADDED, 1)
    second = popped(queue, 1)
    queue.move(NODE_ADDED, 2)
    queue.done(first.uid)
    assert queue.sizes()["in_flight_events"] == 1
    queue.back(second, ["NodeResourcesFit"], 3)
    assert place(second) == "backoff" and queue.sizes()["in_flight_events"] == 0
