"""The review kinds through the whole server: kubectl auth can-i, whoami, and token checks."""

from __future__ import annotations

from typing import Any

import orjson

from kcp.api.auth.protocol import UserInfo
from kcp.api.auth.setup import setup
from kcp.api.auth.tokens import StaticTokens
from kcp.base.clock import VirtualClock
from kcp.wire.http import Handler, Request, Response
from tests.api.support import api, as_json, binding, cluster_role, role, rule, user
from tests.api.test_chain import ask, with_tokens

Json = dict[str, Any]
ROOT, ALICE = user("root", "system:masters"), user("alice", "dev")
NAMESPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "d"},
    "status": {"phase": "Active"},
}
OBJECTS = [
    {"apiVersion": "rbac.authorization.k8s.io/v1", **obj}
    for obj in (
        cluster_role("r", rule("get list", "pods")),
        binding("b", "r", "User:alice"),
        role("d", "s", rule("get", "configmaps", names="a")),
        binding("c", "s", "Group:dev", namespace="d"),
    )
]


async def review(handler: Handler, who: UserInfo, path: str, kind: str, spec: Json) -> Response:
    group, _, plural = path.rpartition("/")
    group = group or "authorization.k8s.io/v1"
    body = {"apiVersion": "/".join(group.split("/")[:2]), "kind": kind, "spec": spec}
    return await handler(Request("POST", f"/apis/{group}/{plural}", body=orjson.dumps(body), identity=who))


async def test_self_subject_access_review() -> None:
    async with api(*OBJECTS) as (_, handler):

        async def may(**attributes: str) -> Json:
            spec = {"resourceAttributes": attributes}
            response = await review(
                handler, ALICE, "selfsubjectaccessreviews", "SelfSubjectAccessReview", spec
            )
            assert response.status == 201
            status: Json = response.document["status"]
            return status

        assert await may(verb="get", resource="pods", namespace="d") == {
            "allowed": True,
            "reason": 'RBAC: allowed by ClusterRoleBinding "b" of ClusterRole "r" to User "alice"',
        }
        assert await may(verb="delete", resource="pods", namespace="d") == {"allowed": False}
        assert (await may(verb="get", resource="configmaps", namespace="d", name="a"))["allowed"]
        assert not (await may(verb="get", resource="configmaps", namespace="d", name="z"))["allowed"]


async def test_reviews_about_others_need_permission_to_ask() -> None:
    spec = {"user": "alice", "groups": ["dev"], "resourceAttributes": {"verb": "list", "resource": "pods"}}
    async with api(NAMESPACE, *OBJECTS) as (_, handler):
        asked = await review(handler, ROOT, "subjectaccessreviews", "SubjectAccessReview", spec)
        assert asked.document["status"]["allowed"]
        refused = await review(handler, ALICE, "subjectaccessreviews", "SubjectAccessReview", spec)
        assert refused.status == 403
        local = "authorization.k8s.io/v1/namespaces/d/localsubjectaccessreviews"
        elsewhere = {**spec, "resourceAttributes": {**spec["resourceAttributes"], "namespace": "other"}}  # type: ignore[dict-item]
        wrong = await review(handler, ROOT, local, "LocalSubjectAccessReview", elsewhere)
        assert wrong.status in (400, 422)


async def test_self_subject_rules_review_lists_what_applies() -> None:
    async with api(*OBJECTS) as (_, handler):
        response = await review(
            handler, ALICE, "selfsubjectrulesreviews", "SelfSubjectRulesReview", {"namespace": "d"}
        )
        status = response.document["status"]
        assert {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]} in status["resourceRules"]
        assert any(each.get("resourceNames") == ["a"] for each in status["resourceRules"])
        assert any("/api" in each["nonResourceURLs"] for each in status["nonResourceRules"])
        assert status["incomplete"] is False


async def test_token_reviews_answer_for_good_and_bad_tokens() -> None:
    tokens = StaticTokens.parse("secret,carol,7,ops\n")
    path = "authentication.k8s.io/v1/tokenreviews"
    async with api(auth=lambda store: setup(store, VirtualClock(), tokens=[tokens])) as (_, handler):
        good = await review(handler, ROOT, path, "TokenReview", {"token": "secret"})
        assert good.document["status"]["authenticated"] is True
        assert good.document["status"]["user"] == {"username": "carol", "uid": "7", "groups": ["ops"]}
        bad = await review(handler, ROOT, path, "TokenReview", {"token": "wrong"})
        assert bad.status == 201
        assert bad.document["status"] == {"user": {}, "error": "invalid bearer token"}
        assert (await review(handler, ROOT, path, "TokenReview", {})).status in (400, 422)


async def test_reviews_and_token_requests_say_who_sent_what() -> None:
    async with api(auth=with_tokens) as (_, handler):
        asked = {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = as_json(await ask(handler, "POST", path, "root", asked, user_agent="tester/1.0"))
        (managed,) = answer["metadata"]["managedFields"]
        assert (managed["manager"], managed["operation"]) == ("tester", "Update")
        assert managed["fieldsV1"] == {
            "f:spec": {"f:resourceAttributes": {".": {}, "f:resource": {}, "f:verb": {}}}
        }


async def test_who_am_i_is_an_object_of_its_own() -> None:
    async with api(auth=with_tokens) as (_, handler):
        sent = {"metadata": {"labels": {"a": "b"}}}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        answer = as_json(await ask(handler, "POST", path, "alice", sent))
        assert list(answer["metadata"]) == ["creationTimestamp"]
        assert answer["status"]["userInfo"]["username"] == "alice"
