"""A whole server: what every request goes through, whoever sends it."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs
import orjson
import pytest

from kcp.api import routes
from kcp.api.auth.protocol import MASTERS
from kcp.api.auth.reviews import REVIEWS
from kcp.api.auth.setup import setup
from kcp.api.auth.tokens import StaticTokens
from kcp.api.context import Call, Server, ServerSettings
from kcp.base.clock import VirtualClock
from kcp.machinery.fence import LeaseFence
from kcp.machinery.gvk import GroupVersionKind
from kcp.store.protocol import Key, Operation, Remove, Store
from kcp.wire.http import Handler, Request, Response
from tests.api.support import CATALOG, api, as_json, binding, cluster_role, rule, user

Json = dict[str, Any]
TOKENS = StaticTokens.parse('root,root,0,"system:masters"\nalice,alice,1,dev\n')
NAMESPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "d"},
    "status": {"phase": "Active"},
}


def with_tokens(store: Store) -> Any:
    return setup(store, VirtualClock(), tokens=[TOKENS])


def rbac_object(obj: Json) -> Json:
    return {"apiVersion": "rbac.authorization.k8s.io/v1", **obj}


async def ask(
    handler: Handler, method: str, target: str, token: str = "alice", body: Json | None = None, **headers: str
) -> Response:
    path, _, query = target.partition("?")
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if token:
        sent["authorization"] = f"Bearer {token}"
    return await handler(Request(method, path, query, sent, orjson.dumps(body) if body else b""))


async def test_wrong_credentials_are_401_none_are_anonymous() -> None:
    async with api(auth=with_tokens) as (_, handler):
        refused = await ask(handler, "GET", "/api/v1/pods", "wrong")
        assert (refused.status, as_json(refused)["reason"]) == (401, "Unauthorized")
        nobody = await ask(handler, "GET", "/api/v1/pods", "")
        assert as_json(nobody)["message"] == (
            'pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" '
            "at the cluster scope"
        )


@pytest.mark.parametrize(
    ("method", "target", "message"),
    [
        ("GET", "/api/v1/namespaces/d/pods", 'pods is forbidden: User "alice" cannot list resource "pods" in API group "" in the namespace "d"'),
        ("GET", "/api/v1/namespaces/d/pods/x", 'pods "x" is forbidden: User "alice" cannot get resource "pods" in API group "" in the namespace "d"'),
        ("DELETE", "/api/v1/nodes/n", 'nodes "n" is forbidden: User "alice" cannot delete resource "nodes" in API group "" at the cluster scope'),
        ("POST", "/apis/apps/v1/namespaces/d/deployments/x/scale", 'deployments.apps "x" is forbidden: User "alice" cannot create resource "deployments/scale" in API group "apps" in the namespace "d"'),
        ("GET", "/metrics", 'forbidden: User "alice" cannot get path "/metrics"'),
        ("GET", "/<script>", 'forbidden: User "alice" cannot get path "/&lt;script&gt;"'),
    ],
)  # fmt: skip
async def test_403_texts(method: str, target: str, message: str) -> None:
    async with api(auth=with_tokens) as (_, handler):
        response = await ask(handler, method, target)
        assert (response.status, as_json(response)["message"]) == (403, message)


async def test_permission_follows_the_objects_at_once() -> None:
    async with api(NAMESPACE, auth=with_tokens) as (_, handler):
        assert (await ask(handler, "GET", "/api/v1/pods")).status == 403
        base = "/apis/rbac.authorization.k8s.io/v1"
        role = rbac_object(cluster_role("r", rule("list", "pods")))
        bound = rbac_object(binding("b", "r", "User:alice"))
        assert (await ask(handler, "POST", f"{base}/clusterroles", "root", role)).status == 201
        assert (await ask(handler, "POST", f"{base}/clusterrolebindings", "root", bound)).status == 201
        assert (await ask(handler, "GET", "/api/v1/pods")).status == 200
        assert (await ask(handler, "DELETE", f"{base}/clusterrolebindings/b", "root")).status == 200
        assert (await ask(handler, "GET", "/api/v1/pods")).status == 403


async def test_nobody_grants_more_than_they_hold() -> None:
    base = "/apis/rbac.authorization.k8s.io/v1/namespaces/d/roles"
    objects = [
        rbac_object(cluster_role("r", rule("create", "roles", "rbac.authorization.k8s.io"))),
        rbac_object(binding("b", "r", "User:alice")),
    ]
    async with api(NAMESPACE, *objects, auth=with_tokens) as (_, handler):
        new = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "x"}}
        refused = await ask(handler, "POST", base, body={**new, "rules": [rule("get", "secrets")]})
        assert refused.status == 403
        assert "attempting to grant RBAC permissions not currently held" in as_json(refused)["message"]
        assert (await ask(handler, "POST", base, body={**new, "rules": []})).status == 201


async def test_impersonation_acts_as_the_other_and_needs_permission() -> None:
    async with api(auth=with_tokens) as (_, handler):
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        asked = {"impersonate_user": "bob", "impersonate_group": "a\nb", "impersonate_extra_scope": "x"}
        answer = as_json(await ask(handler, "POST", path, "root", review, **asked))
        assert answer["status"]["userInfo"] == {
            "username": "bob",
            "groups": ["a", "b", "system:authenticated"],
            "extra": {"scope": ["x"]},
        }
        account = as_json(
            await ask(handler, "POST", path, "root", review, impersonate_user="system:serviceaccount:d:web")
        )
        assert account["status"]["userInfo"]["groups"] == [
            "system:serviceaccounts",
            "system:serviceaccounts:d",
            "system:authenticated",
        ]
        refused = as_json(await ask(handler, "POST", path, "alice", review, impersonate_user="bob"))
        assert refused["message"] == (
            'users "bob" is forbidden: User "alice" cannot impersonate resource "users" in API group "" '
            "at the cluster scope"
        )
        headless = await ask(handler, "POST", path, "root", review, impersonate_group="a")
        assert headless.status == 400


async def test_every_answer_has_its_headers() -> None:
    async with api(auth=with_tokens) as (_, handler):
        response = await ask(handler, "GET", "/api/v1/pods", audit_id="mine\nsent twice")
        assert response.header("audit-id") == "mine"
        assert response.header("cache-control") == "no-cache, private"
        assert len((await ask(handler, "GET", "/version")).header("audit-id")) == 36


async def test_changes_carry_who_made_them() -> None:
    async with api(NAMESPACE, auth=with_tokens) as (server, handler):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
        request = Request(
            "POST",
            "/api/v1/namespaces/d/configmaps",
            "fieldManager=tool",
            {"authorization": "Bearer root", "user-agent": "agent/1", "audit-id": "request-1"},
            orjson.dumps(body),
            peer_address="10.0.0.9",
        )
        response = await handler(request)
        assert response.status == 201
        rv = int(response.header("x-kcp-revision"))
        (event,) = await server.store.events_since(rv - 1)
        actor = event.cause.actor
        assert (actor.username, actor.groups) == ("root", (MASTERS, "system:authenticated"))
        assert (actor.user_agent, actor.field_manager, actor.source_ip) == ("agent/1", "tool", "10.0.0.9")
        assert event.cause.request_id == "request-1"


async def test_in_process_callers_pass_the_same_authorization() -> None:
    async with api(NAMESPACE) as (server, handler):
        path = "/api/v1/namespaces/d/configmaps"
        document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
        refused = await handler(Request("POST", path, document=document, identity=user("alice")))
        assert (refused.status, refused.document["reason"]) == (403, "Forbidden")
        root = user("root", MASTERS)
        made = await handler(Request("POST", path, document=document, identity=root, cause=42))
        assert made.status == 201
        assert made.document.value["metadata"]["name"] == "a"
        (event,) = await server.store.events_since(made.document.rv - 1)
        assert event.cause.decision_id == 42
        listed = await handler(Request("GET", path, identity=root))
        assert [each.value["metadata"]["name"] for each in listed.document.documents] == ["a"]


async def test_unknown_things() -> None:
    async with api(auth=with_tokens) as (_, handler):
        known_group = await ask(handler, "GET", "/api/v1/nonsense", "root")
        assert (known_group.status, as_json(known_group)["message"]) == (
            404,
            "the server could not find the requested resource",
        )
        for path in ("/apis/nonsense/v1/things", "/nonsense", "/apis/nonsense"):
            response = await ask(handler, "GET", path, "root")
            assert (response.status, response.body) == (404, b"404 page not found\n")
        assert (await ask(handler, "POST", "/version", "root")).status == 405
        assert (await ask(handler, "GET", "/api/v1/watch", "root")).status == 500


@pytest.mark.parametrize(("timeout", "status"), [("", 200), ("30s", 200), ("nonsense", 400)])
async def test_the_timeout_parameter_is_checked(timeout: str, status: int) -> None:
    async with api(auth=with_tokens) as (_, handler):
        response = await ask(handler, "GET", f"/api/v1/pods?timeout={timeout}", "root")
        assert response.status == status
        if status == 400:
            assert as_json(response)["message"] == (
                'invalid timeout specified in the request URL - time: invalid duration "nonsense"'
            )


async def _hang(server: Server, call: Call) -> Any:
    await asyncio.Event().wait()


async def _break(server: Server, call: Call) -> Any:
    raise ZeroDivisionError


async def test_a_request_that_takes_too_long_is_504(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(routes.VERBS, "list", _hang)
    async with api(auth=with_tokens, settings=ServerSettings(request_timeout_s=0.02)) as (_, handler):
        response = await ask(handler, "GET", "/api/v1/pods", "root")
        assert (response.status, as_json(response)["reason"]) == (504, "Timeout")


async def test_a_broken_verb_is_500_and_the_server_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(routes.VERBS, "list", _break)
    async with api(auth=with_tokens) as (_, handler):
        response = await ask(handler, "GET", "/api/v1/pods", "root")
        assert (response.status, as_json(response)["reason"]) == (500, "InternalError")
        assert (await ask(handler, "GET", "/version", "root")).status == 200


async def test_requests_in_flight_are_limited_reads_and_writes_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(routes.VERBS, "list", _hang)
    settings = ServerSettings(max_requests_inflight=1, max_mutating_requests_inflight=1)
    reader = [
        rbac_object(cluster_role("r", rule("*", "*", "*"))),
        rbac_object(binding("b", "r", "User:alice")),
    ]
    async with api(*reader, NAMESPACE, auth=with_tokens, settings=settings) as (server, handler):
        first = asyncio.create_task(ask(handler, "GET", "/api/v1/pods"))
        while not server.extras["in_flight"].reading:
            await asyncio.sleep(0)
        shed = await ask(handler, "GET", "/api/v1/namespaces/d")
        assert (shed.status, shed.header("retry-after")) == (429, "1")
        assert as_json(shed)["message"] == "Too many requests, please try again later."
        assert (await ask(handler, "GET", "/api/v1/namespaces/d", "root")).status == 200
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
        assert (await ask(handler, "POST", "/api/v1/namespaces/d/configmaps", body=body)).status == 201
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert server.extras["in_flight"].reading == 0
        assert (await ask(handler, "GET", "/api/v1/namespaces/d")).status == 200


async def test_hopeless_accept_headers_write_nothing() -> None:
    async with api(NAMESPACE, auth=with_tokens) as (server, handler):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
        path = "/api/v1/namespaces/d/configmaps"
        assert (await ask(handler, "POST", path, "root", body, accept="text/html")).status == 406
        assert server.store.get(Key("configmaps", "d", "a")) is None


async def test_flow_schemas_are_named_in_the_headers() -> None:
    def object_of(kind: str, name: str, spec: Json) -> Json:
        return {
            "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": name, "uid": f"uid-{name}"},
            "spec": spec,
        }

    def schema(name: str, precedence: int, level: str, group: str) -> Json:
        everything = {
            "verbs": ["*"],
            "apiGroups": ["*"],
            "resources": ["*"],
            "namespaces": ["*"],
            "clusterScope": True,
        }
        subjects = [{"kind": "Group", "group": {"name": group}}]
        rules = [{"subjects": subjects, "resourceRules": [everything]}]
        spec = {
            "matchingPrecedence": precedence,
            "priorityLevelConfiguration": {"name": level},
            "rules": rules,
        }
        return object_of("FlowSchema", name, spec)

    objects = [
        object_of("PriorityLevelConfiguration", "exempt", {"type": "Exempt"}),
        object_of("PriorityLevelConfiguration", "low", {"type": "Limited"}),
        schema("masters", 1, "exempt", MASTERS),
        schema("everyone", 10, "low", "system:authenticated"),
    ]
    async with api(*objects, auth=with_tokens) as (_, handler):
        for token, name, level in (("root", "masters", "exempt"), ("alice", "everyone", "low")):
            response = await ask(handler, "GET", "/api/v1/pods", token)
            assert response.header("x-kubernetes-pf-flowschema-uid") == f"uid-{name}"
            assert response.header("x-kubernetes-pf-prioritylevel-uid") == f"uid-{level}"
        assert not (await ask(handler, "GET", "/version")).header("x-kubernetes-pf-flowschema-uid")


async def test_requests_are_counted() -> None:
    async with api(auth=with_tokens) as (_, handler):
        await ask(handler, "GET", "/api/v1/pods", "root")
        await ask(handler, "GET", "/api/v1/pods")
        await ask(handler, "GET", "/apis/made/up/things/name/sub", "root")
        text = (await ask(handler, "GET", "/metrics", "root")).body.decode()
    lines = [line for line in text.splitlines() if line.startswith("apiserver_request_total")]
    assert sum('resource="pods"' in line and 'verb="LIST"' in line for line in lines) == 2
    assert not any("made" in line for line in lines)
    assert "apiserver_request_duration_seconds_bucket" in text


def test_the_catalog_knows_the_kinds_that_reviews_answer() -> None:
    for group, kind in REVIEWS:
        found = CATALOG.by_kind(group, "v1", kind)
        assert found is not None
        assert found.gvk == GroupVersionKind(group, "v1", kind)


async def test_a_node_reads_the_secrets_of_its_pods_while_they_are_there() -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "d"},
        "spec": {"nodeName": "n1", "volumes": [{"name": "v", "secret": {"secretName": "s"}}]},
    }
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "d"}}
    async with api(NAMESPACE, pod, secret) as (server, handler):

        async def read(node: str) -> int:
            identity = user(f"system:node:{node}", "system:nodes")
            return (await handler(Request("GET", "/api/v1/namespaces/d/secrets/s", identity=identity))).status

        assert [await read("n1"), await read("n2")] == [200, 403]
        await server.store.append(Operation(Key("pods", "d", "p"), lambda current, head: Remove()))
        assert await read("n1") == 403


@pytest.mark.parametrize(
    ("target", "token", "headers", "status"),
    [
        ("/api/v1/namespaces/d", "root", {}, 200),
        ("/api/v1/namespaces/d?resourceVersion=1", "root", {"accept": "application/yaml"}, 200),
        ("/api/v1/namespaces/none", "root", {}, 404),
        ("/api/v1/namespaces/d", "alice", {}, 403),
        ("/api/v1/namespaces/d", "wrong", {}, 401),
        ("/api/v1/namespaces/d", "root", {"accept": "image/png"}, 406),
        ("/api/v1/namespaces/d?timeout=x", "root", {}, 400),
        ("/api/v1/things/d", "root", {}, 404),
    ],
)
async def test_a_get_is_answered_at_once_as_any_other_request(
    target: str, token: str, headers: dict[str, str], status: int
) -> None:
    """What needs no waiting gets no task from the server; the answer is the same, byte for byte."""
    path, _, query = target.partition("?")
    sent = {**headers, "authorization": f"Bearer {token}", "audit-id": "same"}
    async with api(NAMESPACE, auth=with_tokens) as (server, handler):
        waited = await handler(Request("GET", path, query, sent))
        assert (waited.status, server.extras["in_flight"].reading) == (status, 0)
        answers: list[Response | None] = []
        at_once = handler.at_once  # type: ignore[attr-defined]
        asyncio.get_running_loop().call_soon(
            lambda: answers.append(at_once(Request("GET", path, query, sent)))
        )
        await asyncio.sleep(0)
        assert answers == [waited]
        assert server.extras["in_flight"].reading == 0


@pytest.mark.parametrize(
    "target",
    [
        "/api/v1/namespaces/d?resourceVersion=1000",
        "/api/v1/namespaces",
        "/api/v1/namespaces?watch=1",
        "/api/v1/namespaces/d/pods/p/log",
        "/api/v1/watch/namespaces/d",
        "/api/v1/watch",
        "/version",
    ],
)
async def test_what_may_wait_is_left_to_a_task(target: str) -> None:
    path, _, query = target.partition("?")
    async with api(NAMESPACE, auth=with_tokens) as (server, handler):
        request = Request("GET", path, query, {"authorization": "Bearer root"})
        answers: list[Response | None] = []
        at_once = handler.at_once  # type: ignore[attr-defined]
        asyncio.get_running_loop().call_soon(lambda: answers.append(at_once(request)))
        await asyncio.sleep(0)
        assert answers == [None]
        assert server.extras["in_flight"].reading == 0


async def test_a_write_with_a_claim_holds_while_its_lease_does() -> None:
    """The header of a leader that runs apart. A claim that nobody can read is no claim that holds."""
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "leader"},
        "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15, "leaseTransitions": 2},
    }
    leases = "/apis/coordination.k8s.io/v1/namespaces/d/leases"
    maps = "/api/v1/namespaces/d/configmaps"

    async with api(NAMESPACE, auth=with_tokens) as (_, handler):
        held = as_json(await ask(handler, "POST", leases, "root", lease))
        claim = LeaseFence("d", "leader", held["metadata"]["uid"], "me", 2)

        async def write(name: str, text: str) -> Response:
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
            return await ask(handler, "POST", maps, "root", body, kcp_fence=text)

        assert (await write("a", claim.header())).status == 201
        assert (await write("b", "nonsense")).status == 400
        late = await write("b", attrs.evolve(claim, epoch=1).header())
        assert (late.status, as_json(late)["details"]["causes"][0]["reason"]) == (409, "LeaseFenced")
        spec = {**held["spec"], "holderIdentity": "other", "leaseTransitions": 3}
        assert (await ask(handler, "PUT", f"{leases}/leader", "root", {**held, "spec": spec})).status == 200
        assert (await write("b", claim.header())).status == 409
        assert (await ask(handler, "GET", f"{maps}/b", "root")).status == 404


@pytest.mark.parametrize(
    ("method", "target", "code"),
    [
        ("PUT", "/api/v1/namespaces/d/configmaps", 405),
        ("PATCH", "/api/v1/namespaces/d/configmaps", 405),
        ("POST", "/api/v1/namespaces/d/configmaps/x", 405),
        ("DELETE", "/api/v1/namespaces", 405),
        ("GET", "/api/v1/namespaces/d/pods/x/status/y", 404),
        ("GET", "/api/v1/namespaces/d/pods/x/nonsense", 404),
        ("GET", "/api/v1/nonsense", 404),
        ("POST", "/version", 405),
    ],
)
async def test_what_no_route_serves_is_answered_for_the_http_server(
    method: str, target: str, code: int
) -> None:
    async with api(NAMESPACE, auth=with_tokens) as (_, handler):
        answer = as_json(await ask(handler, method, target, "root", {}))
        assert (answer["code"], answer["details"]) == (code, {})


async def test_a_path_that_is_forbidden_has_empty_details_and_no_credentials_none() -> None:
    async with api(auth=with_tokens) as (_, handler):
        assert as_json(await ask(handler, "GET", "/metrics"))["details"] == {}
        assert "details" not in as_json(await ask(handler, "GET", "/metrics", "wrong"))


@pytest.mark.parametrize(
    ("target", "warning"),
    [
        (
            "/api/v1/namespaces/d/endpoints",
            "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
        ),
        ("/api/v1/namespaces/d/endpoints/x", "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        ("/api/v1/componentstatuses", "v1 ComponentStatus is deprecated in v1.19+"),
    ],
)  # fmt: skip
async def test_every_answer_about_a_deprecated_kind_warns(target: str, warning: str) -> None:
    async with api(NAMESPACE, auth=with_tokens) as (_, handler):
        assert (await ask(handler, "GET", target, "root")).header("warning") == f'299 - "{warning}"'
        assert (await ask(handler, "GET", "/api/v1/namespaces/d/pods", "root")).header("warning") == ""


async def test_groups_cannot_be_impersonated_without_a_user() -> None:
    async with api(auth=with_tokens) as (_, handler):
        asked: Any = {"impersonate_group": "a\nb", "impersonate_extra_scope": "x", "impersonate_uid": "7"}
        refused = as_json(await ask(handler, "GET", "/api/v1/pods", "root", **asked))
        assert (refused["code"], refused["message"]) == (
            400,
            "requested [{Group  a    } {Group  b    } {UserExtra  x  authentication.k8s.io/v1  scope} "
            "{UID  7  authentication.k8s.io/v1  }] without impersonating a user",
        )
