"""Audit logs: what a whole cluster was asked, written down at its door, gives its history back."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from kcp.base.clock import SystemClock
from kcp.base.loop import run_deterministic
from kcp.replay.importers.formats import import_incident
from kcp.replay.importers.reading import Malformed
from kcp.store import check
from kcp.store.protocol import Event, Key, Op
from kcp.store.reader import LogReader
from kcp.store.redaction import is_untold
from tests.replay.importers.auditing import audited_cluster
from tests.support.builders import deployment

Json = dict[str, Any]
State = dict[Key, tuple[int, Json]]
LEASES = "leases.coordination.k8s.io"


@attrs.frozen
class Story:
    """`states`: every object at each revision, as the cluster's own log has it, without what needs no request."""

    lines: str
    states: dict[int, State]
    first_rv: int


async def _play(levels: dict[str, str]) -> Story:
    async with audited_cluster(levels=levels) as (parts, client, audit):
        before, first_rv = list(audit.events), parts.store.rv
        await client.create("deployments.apps", deployment("web", replicas=3))
        await anyio.sleep(30)
        await client.patch("deployments.apps", "web", {"spec": {"replicas": 1}}, "merge", "default")
        await anyio.sleep(60)
        await client.delete("deployments.apps", "web", "default")
        await anyio.sleep(60)
        states = {rv: await _state(parts.store, rv) for rv in range(first_rv, parts.store.rv + 1)}
        assert before != audit.events
        return Story(audit.lines(), states, first_rv)


async def _state(store: Any, rv: int) -> State:
    found = [record for kind in store.kinds for record in await store.list_at(kind.resource, rv)]
    return {record.key: (record.rv, record.value) for record in found if record.key.resource != LEASES}


@pytest.fixture(scope="module")
def story() -> Story:
    return run_deterministic(_play, 3, {})


def imported(tmp_path: Path, text: str | bytes, name: str = "audit.log", **options: Any) -> LogReader:
    source = tmp_path / name
    source.write_bytes(text if isinstance(text, bytes) else text.encode())
    import_incident([source], str(tmp_path / "log"), clock=SystemClock(), **options)
    assert check.problems(tmp_path / "log") == []
    return LogReader(tmp_path / "log")


def test_the_state_as_of_every_revision_is_the_original(story: Story, tmp_path: Path) -> None:
    """But for what was made before anyone could ask: it is not in an audit log."""
    with imported(tmp_path, story.lines) as log:
        resources = sorted(kind.resource for kind in log.kinds if kind.resource != LEASES)
        for rv, state in story.states.items():
            ours = {record.key: (record.rv, record.value) for r in resources for record in log.list_at(r, rv)}
            theirs = {key: each for key, each in state.items() if key in ours or each[0] > story.first_rv}
            assert ours == theirs, rv


def test_packed_and_in_any_order_it_is_the_same(story: Story, tmp_path: Path) -> None:
    lines = story.lines.splitlines()
    backwards = gzip.compress("\n".join(lines[::-1]).encode())
    with imported(tmp_path, backwards, "audit.log.gz") as log:
        told = {
            (event.rv, str(event.key), event.op)
            for event in log.events(after=0)
            if event.op is not Op.DELETED
        }
    (tmp_path / "again").mkdir()
    with imported(tmp_path / "again", story.lines) as log:
        again = {
            (event.rv, str(event.key), event.op)
            for event in log.events(after=0)
            if event.op is not Op.DELETED
        }
    assert len(told) > 100 and told ^ again <= {each for each in told | again if "pods/" in each[1]}


def test_who_did_it_and_when(story: Story, tmp_path: Path) -> None:
    with imported(tmp_path, story.lines) as log:
        web = [e for e in log.events(after=0) if e.key == Key("deployments.apps", "default", "web")]
    assert (web[0].op, web[0].cause.actor.username) == (Op.ADDED, "kubernetes-admin")
    assert web[0].cause.actor.user_agent == "kubectl/v1.36.0" and web[0].cause.actor.source_ip == "10.0.0.7"
    assert web[0].cause.request_id.startswith("audit-")
    assert web[1].cause.actor.username == "system:serviceaccount:kube-system:deployment-controller"
    scaled = next(e for e in web if e.record.value["spec"]["replicas"] == 1)
    assert scaled.ts_us - web[0].ts_us == pytest.approx(30_000_000, abs=100_000)


def test_metadata_alone_is_a_timeline_without_bodies(tmp_path: Path) -> None:
    story = run_deterministic(_play, 3, {"pods": "Metadata", "deployments": "Metadata"})
    with imported(tmp_path, story.lines) as log:
        events = list(log.events(after=0))
    web = [e for e in events if e.key.resource == "deployments.apps"]
    assert [web[0].op, web[-1].op] == [Op.ADDED, Op.DELETED] and len(web) > 4
    assert all(is_untold(e.record.value) for e in web)
    assert {e.cause.actor.username for e in web} >= {"kubernetes-admin"}
    pods = [e for e in events if e.key.resource == "pods"]
    assert pods and all(is_untold(e.record.value) for e in pods)
    assert not any(is_untold(e.record.value) for e in events if e.key.resource == "replicasets.apps")


# --- single writes, as kube-apiserver logs them ---

POD: Json = {
    "apiVersion": "v1", "kind": "Pod",
    "metadata": {"name": "a", "namespace": "default", "uid": "u1", "creationTimestamp": "2026-03-01T10:00:00Z"},
    "spec": {"nodeName": "n1", "containers": [], "terminationGracePeriodSeconds": 30}, "status": {"phase": "Running"},
}  # fmt: skip


def pod(rv: int, **metadata: Any) -> Json:
    return {**POD, "metadata": {**POD["metadata"], "resourceVersion": str(rv), **metadata}}


def audit_event(verb: str, second: float, answer: Json | None = None, **fields: Any) -> Json:
    ref = {
        "resource": "pods",
        "namespace": "default",
        "name": "a",
        "apiVersion": "v1",
        **fields.pop("ref", {}),
    }
    event = {
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse", "auditID": f"{verb}-{second}",
        "stage": "ResponseComplete", "requestURI": "/api/v1/namespaces/default/pods/a", "verb": verb,
        "user": {"username": "alice", "groups": ["devs"]}, "sourceIPs": ["10.0.0.7"], "userAgent": "kubectl/v1.32",
        "objectRef": ref, "responseStatus": {"code": 201 if verb == "create" else 200},
        "requestReceivedTimestamp": f"2026-03-01T10:00:{second:09.6f}Z", "stageTimestamp": f"2026-03-01T10:00:{second:09.6f}Z",
        **fields,
    }  # fmt: skip
    return event if answer is None else {**event, "responseObject": answer}


def events_of(tmp_path: Path, *told: Json) -> list[Event]:
    with imported(tmp_path, "".join(json.dumps(event) + "\n" for event in told)) as log:
        return list(log.events(after=0))


def test_a_graceful_deletion_marks_and_the_last_one_removes(tmp_path: Path) -> None:
    mark = {"deletionTimestamp": "2026-03-01T10:00:33Z", "deletionGracePeriodSeconds": 30}
    events = events_of(
        tmp_path,
        audit_event("create", 1, pod(10)),
        audit_event("delete", 3, pod(12, **mark)),
        audit_event("delete", 4, pod(15, **mark), requestObject={"gracePeriodSeconds": 0}),
    )
    assert [(e.rv, e.op) for e in events] == [(10, Op.ADDED), (12, Op.MODIFIED), (15, Op.DELETED)]


def test_an_object_held_by_a_finalizer_goes_with_it(tmp_path: Path) -> None:
    mark = {"deletionTimestamp": "2026-03-01T10:00:03Z", "deletionGracePeriodSeconds": 0}
    events = events_of(
        tmp_path,
        audit_event("create", 1, pod(10, finalizers=["x/y"])),
        audit_event("delete", 3, pod(12, finalizers=["x/y"], **mark)),
        audit_event("patch", 5, pod(20, **mark)),
    )
    assert [(e.rv, e.op) for e in events] == [(10, Op.ADDED), (12, Op.MODIFIED), (20, Op.DELETED)]


def test_a_deletion_that_answers_with_a_status_has_no_revision(tmp_path: Path) -> None:
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Success",
        "details": {"name": "a", "kind": "pods", "uid": "u1"},
    }
    events = events_of(
        tmp_path,
        audit_event("create", 1, pod(10)),
        audit_event("delete", 2, status),
        audit_event("create", 3, pod(12, uid="u2", name="b"), ref={"name": ""}),
    )
    assert [(e.rv, e.op, e.key.name) for e in events] == [
        (10, Op.ADDED, "a"),
        (11, Op.DELETED, "a"),
        (12, Op.ADDED, "b"),
    ]


@pytest.mark.parametrize(
    "event",
    [
        audit_event("update", 2, pod(10)),
        audit_event("update", 2, pod(11), responseStatus={"code": 409}),
        audit_event("patch", 2, pod(11), requestURI="/api/v1/namespaces/default/pods/a?dryRun=All"),
        audit_event("create", 2, {"kind": "TokenRequest", "metadata": {}}, ref={"resource": "serviceaccounts", "subresource": "token"}),
        audit_event("create", 2, {"kind": "SubjectAccessReview", "metadata": {}}, ref={"resource": "subjectaccessreviews", "apiGroup": "authorization.k8s.io"}),
        audit_event("get", 2, pod(11)),
        audit_event("update", 2, pod(11), stage="RequestReceived"),
    ],
    ids=["no change", "conflict", "dry run", "token", "review", "read", "early stage"],
)  # fmt: skip
def test_what_changes_nothing_is_no_event(event: Json, tmp_path: Path) -> None:
    assert [e.rv for e in events_of(tmp_path, audit_event("create", 1, pod(10)), event)] == [10]


def _scaled(value: Json) -> bool:
    return bool(value["spec"]["replicas"] == 7)


def _bound(value: Json) -> bool:
    return bool(
        value["spec"]["nodeName"] == "n9" and value["status"]["conditions"][0]["type"] == "PodScheduled"
    )


def _marked(value: Json) -> bool:
    return bool(value["metadata"]["deletionTimestamp"] == "2026-03-01T10:00:32Z")


@pytest.mark.parametrize(
    ("subresource", "fields", "holds"),
    [
        ("scale", {"answer": {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"resourceVersion": "14"}, "spec": {"replicas": 7}}}, _scaled),
        ("binding", {"requestObject": {"kind": "Binding", "target": {"name": "n9"}}, "answer": {"kind": "Status", "status": "Success"}}, _bound),
        ("eviction", {"answer": {"kind": "Status", "status": "Success"}}, _marked),
    ],
)  # fmt: skip
def test_what_follows_from_a_subresource(
    subresource: str, fields: Json, holds: Callable[[Json], bool], tmp_path: Path
) -> None:
    verb = "update" if subresource == "scale" else "create"
    told = audit_event(
        verb, 2, ref={"subresource": subresource}, **{k: v for k, v in fields.items() if k != "answer"}
    )
    events = events_of(
        tmp_path, audit_event("create", 1, pod(10)), {**told, "responseObject": fields["answer"]}
    )
    assert [e.rv for e in events] == [10, 14 if subresource == "scale" else 11]
    assert holds(events[1].record.value)


def test_the_impersonated_user_is_responsible(tmp_path: Path) -> None:
    told = audit_event("create", 1, pod(10), impersonatedUser={"username": "bob"})
    assert events_of(tmp_path, told)[0].cause.actor.username == "bob"


def test_the_level_request_has_what_was_sent(tmp_path: Path) -> None:
    sent = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "resourceVersion": "3"},
        "spec": {"nodeName": "n1"},
    }
    (event,) = events_of(tmp_path, audit_event("create", 1, level="Request", requestObject=sent))
    assert (
        event.record.value["spec"] == {"nodeName": "n1"}
        and event.record.value["metadata"]["namespace"] == "default"
    )


def test_webhook_batches_and_custom_kinds(tmp_path: Path) -> None:
    widget = {
        "apiVersion": "example.com/v1",
        "kind": "Widget",
        "metadata": {"name": "w", "namespace": "default", "uid": "u", "resourceVersion": "5"},
    }
    told = audit_event(
        "create", 1, widget, ref={"resource": "widgets", "apiGroup": "example.com", "name": "w"}
    )
    (event,) = events_of(tmp_path, {"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": [told]})
    assert str(event.key) == "widgets.example.com/default/w"


def test_a_fault_names_its_line_and_can_be_skipped(tmp_path: Path) -> None:
    good = json.dumps(audit_event("create", 1, pod(10)))
    text = f'{good}\n{{"kind": "Event", broken\nnot json at all\n{json.dumps({"kind": "Pod", "apiVersion": "v1"})}\n'
    (tmp_path / "one").mkdir()
    with pytest.raises(Malformed, match=r"audit\.log:2: no JSON: .* at its line 1, column 19"):
        imported(tmp_path / "one", text)
    source = tmp_path / "audit.log"
    source.write_text(text)
    done = import_incident([source], str(tmp_path / "log"), clock=SystemClock(), skip_bad=True)
    assert done.written.events == 1 and done.faults.count == 2
    assert [fault.split(": ")[0].rpartition(":")[2] for fault in done.faults.kept] == ["2", "4"]
