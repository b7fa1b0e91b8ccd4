"""When two logs tell the same: names and times are only names and times, what was wished is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from kcp.replay.equality import compare, first_difference, without_counterpart
from kcp.store.protocol import Actor, Cause, Event, Record
from tests.replay.events import Writer

Json = dict[str, Any]
UIDS = [f"{n:08d}-0000-4000-8000-000000000000" for n in range(100)]


class Told:
    """A log that holds what a story wrote."""

    about: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events

    def base(self) -> list[Record]:
        return []

    def events(
        self, after: int | None = None, until: int | None = None, resources: Any = None
    ) -> Iterator[Event]:
        del after, resources
        return (event for event in self._events if until is None or event.rv <= until)


class Story:
    """One log; `uid` numbers and `suffix` are what chance made of it."""

    def __init__(self, first_uid: int = 0, now_s: float = 0.0) -> None:
        self.writer = Writer(now_s)
        self.events: list[Event] = []
        self._uids = iter(UIDS[first_uid:])

    def put(self, resource: str, name: str, base: str = "", **more: Any) -> str:
        known = [e.record.uid for e in self.events if e.key.name == name and e.key.resource == resource]
        uid = known[-1] if known else next(self._uids)
        metadata = {"namespace": "default", "name": name, "uid": uid, **more.pop("metadata", {})}
        if base:
            metadata["generateName"] = base
        self.events.append(self.writer.put(resource, {"metadata": metadata, **more}))
        return uid

    def remove(self, resource: str, name: str) -> None:
        self.events.append(self.writer.remove(resource, name))

    def pods(self, *names: str, owner: str = "", node: str = "a") -> None:
        for number, name in enumerate(names):
            reference = {"ownerReferences": [{"uid": owner, "name": "web"}]}
            status = {"podIP": f"10.0.0.{len(self.events)}", "startTime": f"2026-01-01T00:00:{number:02d}Z"}
            self.put("pods", name, "web-", metadata=reference, spec={"nodeName": node}, status=status)

    @property
    def log(self) -> Any:
        return Told(self.events)


def test_a_log_is_the_same_as_itself() -> None:
    story = Story()
    story.pods("web-a", "web-b")
    assert first_difference(story.log, story.log) is None
    found = compare(story.log, story.log)
    assert (found.alike, found.equal) == (2, True)


def test_uids_made_up_names_addresses_and_times_are_no_difference() -> None:
    one, other = Story(), Story(first_uid=50, now_s=99)
    for story, names in ((one, ("web-a", "web-b")), (other, ("web-x", "web-y"))):
        owner = story.put("replicasets.apps", "web", spec={"replicas": 2})
        story.pods(*names, owner=owner)
        ready = [
            {"ip": e.record.value["status"]["podIP"], "targetRef": {"name": e.key.name}}
            for e in story.events[1:]
        ]
        story.put("endpoints", "web", subsets=[{"addresses": ready}])
    assert first_difference(one.log, other.log) is not None
    found = compare(one.log, other.log)
    assert (found.alike, found.otherwise, found.equal) == (4, (), True)
    assert without_counterpart(one.log, other.log).one is None


def test_who_has_which_made_up_name_does_not_matter() -> None:
    """The same two pods, on nodes a and b; only the names are the other way round."""
    one, other = Story(), Story()
    one.pods("web-a", node="a")
    one.pods("web-b", node="b")
    other.pods("web-b", node="a")
    other.pods("web-a", node="b")
    found = compare(one.log, other.log)
    assert found.equal and found.alike == 2


def test_writes_of_different_objects_may_come_in_any_order() -> None:
    one, other = Story(), Story()
    one.put("configmaps", "a", data={"x": "1"})
    one.put("configmaps", "b", data={"x": "1"})
    other.put("configmaps", "b", data={"x": "1"})
    other.put("configmaps", "a", data={"x": "1"})
    assert compare(one.log, other.log).equal
    assert without_counterpart(one.log, other.log) == without_counterpart(one.log, one.log)


def test_other_steps_to_the_same_end_are_told_apart_from_another_end() -> None:
    one, other, third = Story(), Story(), Story()
    for story, steps in ((one, (3, 2, 1)), (other, (3, 1)), (third, (3, 2))):
        for replicas in steps:
            story.put("replicasets.apps", "web", spec={"replicas": replicas})
    found = compare(one.log, other.log)
    assert found.equal and [str(pair.one) for pair in found.otherwise] == ["replicasets.apps/default/web"]
    found = compare(one.log, third.log)
    assert not found.equal
    assert [pair.changes for pair in found.different] == [("~ spec.replicas: 1 → 2",)]


def test_reports_in_between_do_not_count_but_the_last_one_does() -> None:
    one, other = Story(), Story()
    for story, reports in ((one, (0, 1, 2)), (other, (0, 2))):
        for ready in reports:
            story.put("replicasets.apps", "web", spec={"replicas": 2}, status={"readyReplicas": ready})
    assert compare(one.log, other.log).alike == 1
    one.put("replicasets.apps", "web", spec={"replicas": 2}, status={"readyReplicas": 0})
    assert compare(one.log, other.log).different


def test_on_another_node_is_a_difference_of_its_own() -> None:
    one, other = Story(), Story()
    one.put("pods", "bare", spec={"nodeName": "a"})
    other.put("pods", "bare", spec={"nodeName": "b"})
    found = compare(one.log, other.log)
    assert (len(found.elsewhere), found.different) == (1, ())
    assert found.equal_but_for_places and not found.equal


def test_what_only_one_has_is_told_and_what_came_and_went_apart_from_it() -> None:
    one, other = Story(), Story()
    one.put("configmaps", "stays")
    other.put("configmaps", "comes")
    other.remove("configmaps", "comes")
    found = compare(one.log, other.log)
    assert ([str(c.key) for c in found.only_one], found.only_other) == (["configmaps/default/stays"], ())
    assert [str(c.key) for c in found.passing] == ["configmaps/default/comes"]
    assert not found.equal


def test_an_object_that_was_made_anew_is_another_one() -> None:
    one, other = Story(), Story()
    for story in (one, other):
        story.put("configmaps", "a", data={"x": "1"})
        story.remove("configmaps", "a")
    assert compare(one.log, other.log).equal
    other.put("configmaps", "a", data={"x": "1"}, metadata={"uid": UIDS[90]})
    found = compare(one.log, other.log)
    assert [str(c.key) for c in found.only_other] == ["configmaps/default/a"]


def test_heartbeats_and_events_are_no_part_of_it() -> None:
    one, other = Story(), Story()
    other.put("events", "web.1")
    other.put("leases.coordination.k8s.io", "node-1")
    assert compare(one.log, other.log).equal


def test_what_every_api_server_makes_by_itself_does_not_count() -> None:
    one, other = Story(), Story()
    role: Json = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "new", "uid": UIDS[7]}}
    other.events.append(other.writer.put("clusterroles", role, Cause(Actor("system:apiserver"))))
    found = compare(one.log, other.log)
    assert found.equal and [course.key.name for course in found.by_server] == ["new"]
    assert without_counterpart(one.log, other.log).other is None


def test_the_first_event_without_counterpart_is_found_in_either_log() -> None:
    one, other = Story(), Story()
    for story in (one, other):
        story.put("configmaps", "a", data={"x": "1"})
    other.put("configmaps", "late", data={"x": "1"})
    one.put("configmaps", "a", data={"x": "2"})
    one.put("configmaps", "late", data={"x": "1"})
    found = without_counterpart(one.log, other.log)
    assert found.one is not None and found.one.record.value["data"] == {"x": "2"}
    assert found.other is None


@pytest.mark.parametrize("hidden", [True, False])
def test_bytes_of_redacted_secrets_are_not_compared(hidden: bool) -> None:
    one, other = Story(), Story()
    one.put("secrets", "s", data={"x": "redacted"})
    other.put("secrets", "s", data={"x": "real"})
    log = one.log
    log.about = {"redacted": "1" if hidden else "0"}
    assert (first_difference(log, other.log) is None) is hidden
