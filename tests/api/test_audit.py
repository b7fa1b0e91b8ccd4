"""The audit log: what a policy wants told, what events say, the file that they go to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest

from kcp.api.audit import log as audit_log
from kcp.api.audit.log import AuditLog, Place
from kcp.api.audit.policy import EVERYTHING, Policy, PolicyError, Telling, parse, read
from kcp.api.auth.protocol import Attributes, UserInfo
from kcp.api.auth.setup import setup
from kcp.api.auth.tokens import StaticTokens
from kcp.api.context import Server
from kcp.api.filters.audit import Trail
from kcp.base.clock import VirtualClock
from kcp.store.protocol import Store
from kcp.wire.http import Handler, Request
from tests.api.support import api

Json = dict[str, Any]
TOKENS = StaticTokens.parse('root,root,0,"system:masters"\nalice,alice,1,dev\n')
MAPS = "/api/v1/namespaces/d/configmaps"
NAMESPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "d"},
    "status": {"phase": "Active"},
}
WHOLE = parse({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "RequestResponse"}]})


def policy(*rules: Json, **more: Any) -> Policy:
    return parse({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [*rules], **more})


def resource(
    verb: str = "get", name: str = "", user: str = "alice", *, namespace: str = "", subresource: str = ""
) -> Attributes:
    who = UserInfo(user, groups=("dev",))
    return Attributes(who, verb, resource="pods", subresource=subresource, namespace=namespace, name=name)


# --- policy ---


@pytest.mark.parametrize(
    ("rule", "asked", "means"),
    [
        ({}, resource(), True),
        ({"users": ["bob"]}, resource(), False),
        ({"userGroups": ["ops", "dev"]}, resource(), True),
        ({"verbs": ["list"]}, resource(), False),
        ({"namespaces": [""]}, resource(namespace="d"), False),
        ({"namespaces": [""]}, resource(), True),
        ({"resources": [{"group": ""}]}, resource(), True),
        ({"resources": [{"group": "apps"}]}, resource(), False),
        ({"resources": [{"resources": ["pods"]}]}, resource(subresource="log"), False),
        ({"resources": [{"resources": ["pods/log"]}]}, resource(subresource="log"), True),
        ({"resources": [{"resources": ["pods/*"]}]}, resource(), True),
        ({"resources": [{"resources": ["*/log"]}]}, resource(subresource="log"), True),
        ({"resources": [{"resources": ["*/log"]}]}, resource(), False),
        ({"resources": [{"resources": ["pods"], "resourceNames": ["a"]}]}, resource(name="b"), False),
        ({"nonResourceURLs": ["/healthz*"]}, resource(), False),
        (
            {"nonResourceURLs": ["/healthz*"]},
            Attributes(UserInfo("x"), "get", path="/healthz/etcd", resource_request=False),
            True,
        ),
        (
            {"resources": [{"group": ""}]},
            Attributes(UserInfo("x"), "get", path="/healthz", resource_request=False),
            False,
        ),
    ],
)
def test_rules_mean_what_kubernetes_means(rule: Json, asked: Attributes, means: bool) -> None:
    found = policy({"level": "Metadata", **rule}).telling(asked)
    assert (found.level == "Metadata") is means


def test_the_first_rule_that_fits_decides_and_none_tells_nothing() -> None:
    found = policy({"level": "None", "users": ["alice"]}, {"level": "Request", "verbs": ["get"]})
    assert found.telling(resource()).level == "None"
    assert found.telling(resource(user="bob")).level == "Request"
    assert found.telling(resource("list", user="bob")) == Telling()


def test_what_the_policy_omits_its_rules_omit_unless_they_say_otherwise() -> None:
    found = policy(
        {"level": "Request", "verbs": ["get"], "omitStages": ["Panic"], "omitManagedFields": False},
        {"level": "Request"},
        omitStages=["RequestReceived"],
        omitManagedFields=True,
    )
    first, second = found.telling(resource()), found.telling(resource("list"))
    assert (first.omitted, first.without_managed_fields) == (frozenset({"RequestReceived", "Panic"}), False)
    assert (second.omitted, second.without_managed_fields) == (frozenset({"RequestReceived"}), True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Policy", "expected a Policy of audit.k8s.io/v1"),
        ("apiVersion: audit.k8s.io/v1\nkind: Policy", "loaded illegal policy with 0 rules"),
        (
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{}, {level: All}]",
            '[rules[0].level: Required value, rules[1].level: Unsupported value: "All": supported values: "None", '
            '"Metadata", "Request", "RequestResponse"]',
        ),
        (
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, nonResourceURLs: [a], namespaces: [b]}]",
            "[rules[0].nonResourceURLs[0]: Invalid value: \"a\": non-resource URL rules must begin with a '/' character, "
            'rules[0].nonResourceURLs: Invalid value: ["a"]: rules cannot apply to both regular resources and '
            "non-resource URLs]",
        ),
        ("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [1]", "a rule does not have the form of a PolicyRule"),
    ],
)  # fmt: skip
def test_a_policy_that_cannot_be_used_says_why_and_where(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    with pytest.raises(PolicyError) as refused:
        read(file)
    assert str(refused.value) == f"{message}: from file {file}"
    with pytest.raises(PolicyError, match=r"cannot read the audit policy .*none: no such file"):
        read(tmp_path / "none")


# --- events ---


def with_tokens(store: Store) -> Any:
    return setup(store, VirtualClock(), tokens=[TOKENS])


class Heard(AuditLog):
    """A log whose lines end in a list."""

    def __init__(self) -> None:
        super().__init__(Place("-"), VirtualClock())
        self.events: list[Json] = []

    def offer(self, line: bytes) -> bool:
        assert line.endswith(b"\n") and line.count(b"\n") == 1
        self.events.append(orjson.loads(line))
        return True


@contextlib.asynccontextmanager
async def told(rules: Policy) -> AsyncIterator[tuple[Server, Handler, list[Json]]]:
    """A server, and the events that it tells."""
    log = Heard()
    async with api(NAMESPACE, auth=with_tokens, extras={"audit": Trail(rules, log)}) as (server, handler):
        yield server, handler, log.events


def request(method: str, target: str, token: str = "root", body: Any = None, **headers: str) -> Request:
    path, _, query = target.partition("?")
    sent = {"authorization": f"Bearer {token}", "user-agent": "tests/1"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    body = b"" if body is None else orjson.dumps(body, option=orjson.OPT_INDENT_2)
    return Request(method, path, query, sent, body, peer_address="192.0.2.7")


async def test_an_event_says_who_asked_for_what_and_what_came_of_it() -> None:
    async with told(policy({"level": "Metadata"})) as (_, handler, events):
        body = {"metadata": {"name": "a"}, "data": {"k": "v"}}
        answer = await handler(request("POST", MAPS, body=body, x_forwarded_for="198.51.100.1, junk"))
        assert answer.status == 201
        received, complete = events
        assert received["stage"] == "RequestReceived" and "responseStatus" not in received
        assert complete == {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "Metadata",
            "auditID": answer.header("audit-id"),
            "stage": "ResponseComplete",
            "requestURI": MAPS,
            "verb": "create",
            "user": {"username": "root", "uid": "0", "groups": ["system:masters", "system:authenticated"]},
            "sourceIPs": ["198.51.100.1", "192.0.2.7"],
            "userAgent": "tests/1",
            "objectRef": {"resource": "configmaps", "namespace": "d", "name": "a", "apiVersion": "v1"},
            "responseStatus": {"metadata": {}, "code": 201},
            "requestReceivedTimestamp": complete["requestReceivedTimestamp"],
            "stageTimestamp": complete["stageTimestamp"],
            "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""},
        }


async def test_whole_objects_are_told_where_the_policy_says_so() -> None:
    rules = policy(
        {"level": "Request", "verbs": ["create"]}, {"level": "RequestResponse"}, omitStages=["RequestReceived"],
        omitManagedFields=True,
    )  # fmt: skip
    async with told(rules) as (_, handler, events):
        body = {"metadata": {"name": "a"}, "data": {"k": "v"}}
        await handler(request("POST", MAPS, body=body))
        await handler(request("GET", f"{MAPS}/a"))
        await handler(request("GET", f"{MAPS}?limit=5"))
        patch = {"data": {"k": "w"}}
        await handler(request("PATCH", f"{MAPS}/a", body=patch, content_type="application/merge-patch+json"))
        created, got, listed, patched = events
        assert created["requestObject"] == body and "responseObject" not in created
        assert got["responseObject"]["data"] == {"k": "v"} and "requestObject" not in got
        assert "managedFields" not in got["responseObject"]["metadata"]
        assert listed["requestURI"] == f"{MAPS}?limit=5"
        assert [item["metadata"]["name"] for item in listed["responseObject"]["items"]] == ["a"]
        assert "managedFields" not in listed["responseObject"]["items"][0]["metadata"]
        assert (patched["requestObject"], patched["responseObject"]["data"]) == (patch, {"k": "w"})


async def test_refusals_are_told_with_their_reason() -> None:
    async with told(policy({"level": "Metadata"}, omitStages=["RequestReceived"])) as (_, handler, events):
        await handler(request("DELETE", f"{MAPS}/a", "alice"))
        await handler(
            request("GET", f"{MAPS}/none", impersonate_user="root", impersonate_group="system:masters")
        )
        await handler(request("GET", f"{MAPS}/a", "wrong"))
        forbidden, absent, unknown = events
        assert (
            forbidden["responseStatus"]["reason"] == "Forbidden"
            and forbidden["responseStatus"]["code"] == 403
        )
        assert forbidden["annotations"]["authorization.k8s.io/decision"] == "forbid"
        assert absent["responseStatus"]["message"] == 'configmaps "none" not found'
        assert (absent["user"]["username"], absent["impersonatedUser"]["username"]) == ("root", "root")
        assert unknown["stage"] == "ResponseStarted" and unknown["user"] == {}
        assert unknown["responseStatus"] == {
            "metadata": {},
            "message": "Authentication failed, attempted: bearer",
            "code": 401,
        }  # fmt: skip


async def test_a_watch_is_told_when_it_starts_and_when_it_ends() -> None:
    async with told(EVERYTHING) as (_, handler, events):
        answer = await handler(request("GET", f"{MAPS}?watch=1"))
        assert [event["stage"] for event in events] == ["ResponseStarted"]
        stream = answer.stream
        assert stream is not None
        await handler(request("POST", MAPS, body={"metadata": {"name": "a"}}))
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        await stream.aclose()  # type: ignore[attr-defined]
        stages = [event["stage"] for event in events if event["verb"] == "watch"]
        assert stages == ["ResponseStarted", "ResponseComplete"]


async def test_a_peer_that_goes_away_leaves_an_event() -> None:
    async with told(EVERYTHING) as (server, handler, events):
        asked = request("GET", f"{MAPS}/a?resourceVersion={server.store.rv + 1}")
        waiting = asyncio.ensure_future(handler(asked))
        await asyncio.sleep(0)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        (event,) = events
        assert event["responseStatus"]["message"] == "Connection closed early"


async def test_every_request_is_told_also_those_that_need_not_wait() -> None:
    async with told(EVERYTHING) as (server, handler, events):
        assert handler.at_once(request("GET", f"{MAPS}/a")) is None  # type: ignore[attr-defined]
        assert events == []
        await handler(request("GET", "/healthz"))
        (event,) = events
        assert "objectRef" not in event and event["requestURI"] == "/healthz"
        assert (
            'apiserver_audit_level_total{level="Metadata"} 1.0'
            in server.extras["metrics"].exposition().decode()
        )


# --- what goes together ---

COMPONENT = UserInfo("system:serviceaccount:kube-system:replicaset-controller", groups=("system:masters",))


def together(path: str, *items: Json, key: str = "items", user: UserInfo = COMPONENT, **more: Any) -> Request:
    sent = {"user-agent": "replicaset-controller"}
    document = {key: [*items], **more}
    return Request("POST", f"/kcp/v1/{path}", "fieldManager=rs", sent, document=document, identity=user)


def core(plural: str, **more: Any) -> Json:
    return {"group": "", "version": "v1", "plural": plural, "namespace": "d", **more}


async def test_creates_that_went_together_are_told_as_if_each_had_come_alone() -> None:
    async with told(WHOLE) as (_, handler, events):
        maps = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}} for name in ("a", "B")]
        await handler(together("creates", *(core("configmaps", object=each) for each in maps)))
        assert [event["stage"] for event in events] == ["RequestReceived", "ResponseComplete"] * 2
        made, refused = events[1], events[3]
        assert (made["verb"], made["requestURI"]) == ("create", f"{MAPS}?fieldManager=rs")
        assert made["user"]["username"] == COMPONENT.name
        assert made["userAgent"] == "replicaset-controller"
        assert made["objectRef"] == {
            "resource": "configmaps", "namespace": "d", "name": "a", "apiVersion": "v1",
        }  # fmt: skip
        assert made["requestObject"] == maps[0]
        assert made["responseStatus"] == {"metadata": {}, "code": 201}
        assert made["responseObject"]["metadata"]["resourceVersion"]
        assert (refused["responseStatus"]["code"], refused["responseStatus"]["reason"]) == (422, "Invalid")
        assert made["auditID"] != refused["auditID"]
        whole = {each["annotations"]["audit.kcp.io/request"] for each in (made, refused)}
        assert len(whole) == 1 and made["auditID"] not in whole


async def test_a_policy_looks_at_each_of_what_went_together() -> None:
    rules = policy({"level": "None", "resources": [{"resources": ["secrets"]}]}, {"level": "Metadata"})
    async with told(rules) as (_, handler, events):
        items = [
            core(plural, object={"apiVersion": "v1", "kind": kind, "metadata": {"name": "a"}})
            for plural, kind in (("secrets", "Secret"), ("configmaps", "ConfigMap"))
        ]
        await handler(together("creates", *items))
        assert [event["objectRef"]["resource"] for event in events] == ["configmaps"] * 2


async def test_deletes_bindings_and_renewals_that_went_together() -> None:
    async with told(WHOLE) as (_, handler, events):
        for path, body in (
            (MAPS, {"metadata": {"name": "a"}}),
            ("/apis/coordination.k8s.io/v1/namespaces/d/leases", {"metadata": {"name": "n"}, "spec": {"holderIdentity": "n"}}),
        ):  # fmt: skip
            answer = await handler(request("POST", path, body=body))
        lease = orjson.loads(answer.body)
        events.clear()
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        await handler(together("deletes", core("configmaps", name="a", options=options)))
        renewal = {
            "user": UserInfo("system:node:n", groups=("system:masters",)), "namespace": "d", "name": "n", "holder": "n",
            "revision": int(lease["metadata"]["resourceVersion"]), "renewTime": "2026-01-01T00:00:00.000000Z",
        }  # fmt: skip
        await handler(together("renewals", renewal))
        binding = {"namespace": "d", "name": "p", "node": "n", "uid": "u"}
        await handler(together("bindings", binding, key="bindings"))
        deleted, renewed, bound = (event for event in events if event["stage"] == "ResponseComplete")
        assert (deleted["verb"], deleted["requestURI"]) == ("delete", f"{MAPS}/a?fieldManager=rs")
        assert deleted["requestObject"] == options
        assert (deleted["responseObject"]["kind"], deleted["responseObject"]["status"]) == (
            "Status",
            "Success",
        )
        assert (renewed["verb"], renewed["user"]["username"]) == ("update", "system:node:n")
        assert renewed["objectRef"]["resourceVersion"] == lease["metadata"]["resourceVersion"]
        assert renewed["requestObject"]["spec"]["renewTime"] == renewal["renewTime"]
        assert renewed["responseObject"]["kind"] == "Lease"
        assert bound["objectRef"]["subresource"] == "binding"
        assert bound["requestObject"]["target"] == {"kind": "Node", "name": "n"}
        assert bound["responseStatus"]["code"] == 409


async def test_what_was_refused_as_a_whole_is_one_event() -> None:
    async with told(EVERYTHING) as (_, handler, events):
        answer = await handler(together("creates", *[{}] * 1025))
        (event,) = events
        assert (answer.status, event["responseStatus"]["code"]) == (400, 400)
        assert event["requestURI"] == "/kcp/v1/creates?fieldManager=rs"


# --- the file ---


async def written(place: Place, lines: list[bytes]) -> AuditLog:
    log = AuditLog(place, VirtualClock())
    log.open()
    async with anyio.create_task_group() as group:
        group.start_soon(log.run)
        for line in lines:
            log.offer(line)
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    return log


async def test_lines_are_in_the_file_when_the_log_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "new" / "audit.log"
    lines = [b'{"n":%d}\n' % n for n in range(200)]
    log = await written(Place(str(path)), lines)
    assert path.read_bytes() == b"".join(lines)
    assert (log.written, log.lost) == (200, 0)
    assert path.stat().st_mode & 0o777 == 0o600
    await written(Place(str(path)), [b"more\n"])
    assert path.read_bytes() == b"".join(lines) + b"more\n"


async def test_a_full_file_is_turned_over_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(Place(str(path), max_bytes=30, max_backups=2), clock := VirtualClock())
    log.open()
    for n in range(5):
        log._write([b"%d-123456789012\n" % n, b"%d-abcdefghijkl\n" % n])
        clock.advance(1.0)
    log._close()
    backups = sorted(each.name for each in tmp_path.iterdir() if each != path)
    assert len(backups) == 2 and all(name.startswith("audit-2") and name.endswith(".log") for name in backups)
    kept = b"".join((tmp_path / name).read_bytes() for name in backups) + path.read_bytes()
    assert kept.endswith(b"4-123456789012\n4-abcdefghijkl\n")
    assert all(each.stat().st_size <= 30 for each in tmp_path.iterdir())


async def test_a_disk_that_does_not_keep_up_costs_events_not_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "QUEUED_EVENTS", 3)
    log = AuditLog(Place(str(tmp_path / "audit.log")), VirtualClock())
    assert [log.offer(b"x\n") for _ in range(5)] == [True, True, True, False, False]
    assert log.lost == 2


async def test_a_file_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.mkdir()
    log = AuditLog(Place(str(path)), VirtualClock())
    log._write([b"lost\n"])
    path.rmdir()
    log._write([b"kept\n"])
    log._close()
    assert (log.lost, path.read_bytes()) == (1, b"kept\n")
