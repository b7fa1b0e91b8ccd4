"""What controllers promise at every revision: each check finds what it is there for, and lets pass what is right."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from kcp.replay.invariants import Invariant, Leaders
from kcp.replay.workload_invariants import Bindings, Members, NeverBack, Ordinals, Quotas
from kcp.store.log import DECISIONS_PER_LIFE
from kcp.store.protocol import Actor, Cause, Event
from tests.replay.events import Writer
from tests.support.builders import daemonset, pod, served_job, statefulset

Json = dict[str, Any]


def seen(invariant: Invariant, events: Iterable[Event]) -> list[str]:
    return [text for event in events for text in invariant.see(event)]


def owned(name: str, owner: Event, phase: str = "Running", **metadata: Any) -> Json:
    built = pod(name, owner=owner.record.value, phase=phase)
    return {**built, "metadata": {**built["metadata"], **metadata}}


def test_two_pods_of_one_index_are_found() -> None:
    writer = Writer()
    job = writer.put("jobs.batch", served_job("work", completions=3, parallelism=3))
    index: Json = {"annotations": {"batch.kubernetes.io/job-completion-index": "1"}}
    first, again = (writer.put("pods", owned(name, job, **index)) for name in "ab")
    assert seen(Members(), [job, first]) == []
    assert seen(Members(), [job, first, again]) == ["jobs.batch/default/work has 2 active pods for 1"]


def test_an_index_is_free_again_once_its_pod_failed() -> None:
    writer = Writer()
    job = writer.put("jobs.batch", served_job("work", completions=3, parallelism=3))
    index: Json = {"annotations": {"batch.kubernetes.io/job-completion-index": "1"}}
    events = [job, *(writer.put("pods", owned("a", job, phase, **index)) for phase in ("Running", "Failed"))]
    assert not seen(Members(), [*events, writer.put("pods", owned("b", job, **index))])


def test_more_pods_than_the_parallelism_are_found() -> None:
    writer = Writer()
    job = writer.put("jobs.batch", served_job("work", completions=9, parallelism=1))
    events = [job, *(writer.put("pods", owned(name, job)) for name in "ab")]
    assert seen(Members(), events) == ["jobs.batch/default/work has 2 active pods, at most 1 are allowed"]


@pytest.mark.parametrize(("surge", "found"), [(0, 1), (1, 0)])
def test_a_second_daemon_on_a_node_is_found_unless_it_surges(surge: int, found: int) -> None:
    writer = Writer()
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": 1 - surge}}
    daemons = writer.put("daemonsets.apps", daemonset("agent", updateStrategy=rolling))
    pods = []
    for name in "ab":
        built = owned(name, daemons)
        pods.append(writer.put("pods", {**built, "spec": {**built["spec"], "nodeName": "node-1"}}))
    assert len(seen(Members(), [daemons, *pods])) == found


def test_an_ordinal_that_nobody_wants_is_found() -> None:
    writer = Writer()
    events = [writer.put("statefulsets.apps", statefulset("db", replicas=2))]
    events += [writer.put("pods", owned(f"db-{n}", events[0])) for n in (0, 1)]
    assert not seen(Ordinals(), events)
    events.append(writer.put("pods", owned("db-2", events[0])))
    assert seen(Ordinals(), events) == ["pods/default/db-2 is created, 2 are wanted"]


@pytest.mark.parametrize(
    ("resource", "before", "after", "text"),
    [
        ("pods", {"status": {"phase": "Failed"}}, {"status": {"phase": "Running"}}, "phase Running after Failed"),
        ("pods", {"spec": {"nodeName": "a"}}, {"spec": {"nodeName": "b"}}, "it moves from a to b"),
        ("jobs.batch", {"status": {"succeeded": 2}}, {"status": {"succeeded": 1}}, "succeeded falls from 2 to 1"),
        ("jobs.batch", {}, {"spec": {"completions": 1}, "status": {"succeeded": 2}}, "2 succeeded of 1"),
        ("persistentvolumeclaims", {"spec": {"volumeName": "a"}}, {"spec": {}}, "it moves from a to None"),
        ("pods", {"metadata": {"generation": 3}}, {"metadata": {"generation": 2}}, "generation 2 after 3"),
        ("pods", {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, {}, "its deletion was taken back"),
        (
            "replicasets.apps",
            {},
            {"metadata": {"generation": 1}, "status": {"observedGeneration": 2}},
            "generation 2 is observed, 1 is the newest",
        ),
    ],
)  # fmt: skip
def test_what_goes_one_way_does_not_come_back(resource: str, before: Json, after: Json, text: str) -> None:
    writer = Writer()
    versions = [
        {"spec": {}, **part, "metadata": {"name": "x", "namespace": "default", **part.get("metadata", {})}}
        for part in (before, after)
    ]
    events = [writer.put(resource, version) for version in versions]
    assert seen(NeverBack(), events) == [f"{resource}/default/x: {text}"]
    assert not seen(NeverBack(), events[:1])


def claim(name: str, volume: str, phase: str = "Bound") -> Json:
    metadata = {"name": name, "namespace": "default"}
    return {"metadata": metadata, "spec": {"volumeName": volume}, "status": {"phase": phase}}


def test_a_volume_that_two_claims_are_bound_to_is_found() -> None:
    writer = Writer()
    events = [writer.put("persistentvolumeclaims", claim(name, "disk")) for name in "ab"]
    assert seen(Bindings(), events) == [
        "persistentvolumeclaims/default/b is bound to disk, as is persistentvolumeclaims/default/a"
    ]


def test_a_volume_is_free_again_once_its_claim_is_gone() -> None:
    writer = Writer()
    first = writer.put("persistentvolumeclaims", claim("a", "disk"))
    gone = writer.remove("persistentvolumeclaims", "a")
    assert not seen(Bindings(), [first, gone, writer.put("persistentvolumeclaims", claim("b", "disk"))])


def test_a_create_beyond_a_quota_is_found() -> None:
    writer = Writer()
    quota = {"metadata": {"name": "limit", "namespace": "default"}, "spec": {"hard": {"pods": "1"}}}
    events = [writer.put("resourcequotas", quota), writer.put("pods", pod("a"))]
    assert not seen(Quotas(), events)
    events.append(writer.put("pods", pod("b")))
    assert seen(Quotas(), events) == ["pods/default/b is created: 2 of 1 pods"]


def test_a_lowered_quota_breaks_nothing_by_itself() -> None:
    writer = Writer()
    metadata = {"name": "limit", "namespace": "default"}
    events = [writer.put("resourcequotas", {"metadata": metadata, "spec": {"hard": {"pods": "2"}}})]
    events += [writer.put("pods", pod(name)) for name in "ab"]
    events.append(writer.put("resourcequotas", {"metadata": metadata, "spec": {"hard": {"pods": "1"}}}))
    events += [writer.remove("pods", name) for name in "ab"]
    events.append(writer.put("pods", pod("c")))
    assert not seen(Quotas(), events)


def lease(holder: str) -> Json:
    return {"metadata": {"name": "kcm", "namespace": "kube-system"}, "spec": {"holderIdentity": holder}}


def test_a_write_of_a_leader_whose_lease_was_taken_over_is_found() -> None:
    writer = Writer()
    leases = [writer.put("leases.coordination.k8s.io", lease(holder)) for holder in ("one", "two")]
    decided = Cause(Actor("x", user_agent="job-controller"), decision_id=DECISIONS_PER_LIFE + 7)
    written = writer.put("pods", pod("a"), decided)
    leaders = Leaders(lambda agent: "kcm", {1: "one", 2: "two"})
    assert not seen(leaders, [leases[0], written])
    assert seen(leaders, [*leases, written]) == ["pods/default/a is written by one while two holds kcm"]
