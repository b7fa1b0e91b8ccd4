"""Every invariant finds what it is there for, and lets pass what is right."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from kcp.replay.invariants import Addresses, Invariant, Namespaces, Replicas, Revisions
from kcp.store.protocol import Event
from tests.replay.events import Writer
from tests.support.builders import deployment, namespace, pod, replicaset, service

Json = dict[str, Any]


def seen(invariant: Invariant, events: Iterable[Event]) -> list[str]:
    return [text for event in events for text in invariant.see(event)]


def running(name: str, owner: Json | None = None, ip: str = "") -> Json:
    built = pod(name, owner=owner, phase="Running")
    if ip:
        built["status"] = {**built["status"], "podIP": ip, "podIPs": [{"ip": ip}]}
    return built


def test_a_gap_in_the_revisions_is_found() -> None:
    writer = Writer()
    first, _, third = (writer.put("pods", pod(name)) for name in "abc")
    assert seen(Revisions(), [first, third]) == ["revision 3 follows 1"]


def test_a_change_that_follows_another_one_than_it_says_is_found() -> None:
    writer = Writer()
    first, second, third = (
        writer.put("pods", pod("a")),
        writer.put("pods", pod("a")),
        writer.put("pods", pod("a")),
    )
    assert not seen(Revisions(), [first, second, third])
    stale = attrs.evolve(third, previous=first.record)
    assert seen(Revisions(), [first, second, stale]) == [
        "pods/default/a: the change follows 1, the last one seen was 2"
    ]


def test_a_uid_that_was_given_before_is_found() -> None:
    writer = Writer()
    events = [
        writer.put("pods", pod("a", uid="u")),
        writer.remove("pods", "a"),
        writer.put("pods", pod("a", uid="u")),
    ]
    assert seen(Revisions(), events) == ["pods/default/a: uid u was given before"]


def test_one_pod_too_many_is_found() -> None:
    writer = Writer()
    events = [writer.put("replicasets.apps", replicaset("web", replicas=2))]
    owner = events[0].record.value
    events += [writer.put("pods", running(name, owner)) for name in "abc"]
    assert seen(Replicas(), events) == ["replicasets.apps/default/web has 3, at most 2 are allowed"]


def test_pods_that_are_finished_or_going_do_not_count() -> None:
    writer = Writer()
    events = [writer.put("replicasets.apps", replicaset("web", replicas=1))]
    owner = events[0].record.value
    events.append(writer.put("pods", running("a", owner)))
    events.append(writer.put("pods", {**running("a", owner), "status": {"phase": "Failed"}}))
    events.append(writer.put("pods", running("b", owner)))
    assert not seen(Replicas(), events)


def test_a_cache_may_be_late_but_not_for_ever() -> None:
    writer = Writer()
    events = [writer.put("replicasets.apps", replicaset("web", replicas=3))]
    owner = events[0].record.value
    events.append(writer.put("replicasets.apps", {**replicaset("web", replicas=1)}))
    writer.now_s = 60
    events += [writer.put("pods", running(name, owner)) for name in "ab"]
    assert not seen(Replicas(), events)
    writer.now_s = 300
    late = writer.put("pods", running("c", owner))
    assert seen(Replicas(), [*events, late]) == ["replicasets.apps/default/web has 3, at most 1 are allowed"]


def test_sets_of_a_deployment_that_want_too_much_are_found() -> None:
    writer = Writer()
    events = [writer.put("deployments.apps", deployment("web", replicas=4))]
    owner = events[0].record.value
    events.append(writer.put("replicasets.apps", replicaset("web-1", replicas=4, owner=owner)))
    events.append(writer.put("replicasets.apps", replicaset("web-2", replicas=1, owner=owner)))
    assert not seen(Replicas(), events)
    events.append(writer.put("replicasets.apps", replicaset("web-2", replicas=2, owner=owner)))
    assert seen(Replicas(), events) == ["deployments.apps/default/web has 6, at most 5 are allowed"]


def test_a_cluster_ip_held_twice_is_found_at_once() -> None:
    writer = Writer()
    events = [writer.put("services", service(name, clusterIPs=["10.96.0.10"])) for name in "ab"]
    assert seen(Addresses(), events) == [
        "services/default/a and services/default/b hold cluster IP 10.96.0.10"
    ]


def test_an_address_is_free_again_when_its_holder_is_gone() -> None:
    writer = Writer()
    events = [
        writer.put("pods", running("a", ip="10.0.0.1")),
        writer.remove("pods", "a"),
        writer.put("pods", running("b", ip="10.0.0.1")),
    ]
    assert not seen(Addresses(), events)


def test_a_pod_ip_that_stays_shared_is_found() -> None:
    writer = Writer()
    events = [writer.put("pods", running(name, ip="10.0.0.1")) for name in "ab"]
    assert not seen(Addresses(), events)
    writer.now_s = 11
    events.append(writer.put("pods", running("c", ip="10.0.0.2")))
    assert seen(Addresses(), events) == ["pods/default/a and pods/default/b hold pod IP 10.0.0.1"]


def test_a_namespace_that_leaves_something_behind_is_found() -> None:
    writer = Writer()
    events = [
        writer.put("namespaces", namespace("default")),
        writer.put("pods", pod("a")),
        writer.remove("namespaces", "default", ""),
    ]
    assert seen(Namespaces(), events) == ["namespace default is removed while 1 objects are in it"]


def test_an_object_in_a_namespace_that_is_not_there_is_found() -> None:
    writer = Writer()
    events = [writer.put("pods", pod("a"))]
    assert seen(Namespaces(), events) == ["pods/default/a is created in a namespace that is not there"]
