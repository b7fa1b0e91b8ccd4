"""Subresources: binding, eviction, scale, token, finalize, approval, logs."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kcp.api.auth.protocol import PEER
from kcp.api.auth.service_account import SigningKey, TokenIssuer
from kcp.api.context import Call
from kcp.machinery.errors import (
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    ServiceUnavailable,
    TooManyRequests,
)
from kcp.store.protocol import Cause, Key
from kcp.wire.http import Response
from tests.api.harness import DEPLOYMENTS, PODS, Api, deployment, pod, running_api
from tests.api.requests import signing_request

BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"


def _binding(node: str = "n1", **metadata: str) -> dict[str, Any]:
    return {"metadata": {"name": "web", **metadata}, "target": {"kind": "Node", "name": node}}


async def test_binding_puts_a_pod_on_a_node() -> None:
    async with running_api() as api:
        await api.create(PODS, pod())
        answer = await api.call("POST", f"{PODS}/web/binding", _binding())
        assert (answer.status, answer.value["status"]) == (201, "Success")
        found = await api.get(f"{PODS}/web")
        assert found["spec"]["nodeName"] == "n1"
        assert {
            "type": "PodScheduled",
            "status": "True",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }.items() <= (found["status"]["conditions"][0].items())


async def test_a_pod_is_bound_once() -> None:
    async with running_api() as api:
        await api.create(PODS, pod())
        await api.create("/api/v1/namespaces/default/bindings", _binding())
        with pytest.raises(Conflict) as caught:
            await api.create(f"{PODS}/web/binding", _binding("n2"))
        assert caught.value.message == (
            'Operation cannot be fulfilled on pods/binding "web": pod web is already assigned to node "n1"'
        )
        await api.delete(f"{PODS}/web")
        with pytest.raises(Conflict, match=r"pod web is being deleted, cannot be assigned to a host"):
            await api.create(f"{PODS}/web/binding", _binding("n2"))


async def test_binding_checks_its_target_and_its_pod() -> None:
    async with running_api() as api:
        await api.create(PODS, pod())
        with pytest.raises(ApiError, match=r"target.name: Required value"):
            await api.create(f"{PODS}/web/binding", {"metadata": {"name": "web"}, "target": {}})
        with pytest.raises(Conflict, match=r"UID in precondition: other"):
            await api.create(f"{PODS}/web/binding", _binding(uid="other"))
        with pytest.raises(NotFound, match=r'^pods "x" not found$'):
            await api.create(f"{PODS}/x/binding", {"target": {"name": "n1"}})


async def test_a_batch_of_bindings_answers_each_for_itself() -> None:
    async with running_api() as api:
        for name in ("a", "b"):
            await api.create(PODS, pod(name))
        await _nodes(api, "n1", "n2")
        decision = {
            "controller": "scheduler", "key": "default/a", "trigger": "event", "frontier": {}, "now_us": 1,
            "effects": [], "memo_before": None, "code_hash": "c", "config_hash": "h",
        }  # fmt: skip
        batch = {
            "bindings": [
                {"namespace": "default", "name": "a", "node": "n1", "decision": 0},
                {"namespace": "default", "name": "missing", "node": "n1"},
                {"namespace": "default", "name": "b", "node": "n2"},
            ],
            "decisions": [decision],
        }
        causes: list[Cause] = []
        unlisten = api.store.listen(lambda events: causes.extend(event.cause for event in events))
        answer = await api.call("POST", "/kcp/v1/bindings", batch, document=True)
        unlisten()
        first, missing, last = answer.value["results"]
        assert (first["revision"], last["revision"]) == (api.store.rv - 1, api.store.rv)
        assert missing["status"]["reason"] == "NotFound"
        assert causes[0].decision_id is not None
        assert causes[1].decision_id is None
        bound = api.stored("pods", "a")
        assert bound is not None and bound["spec"]["nodeName"] == "n1"


async def _nodes(api: Api, *names: str) -> None:
    for name in names:
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        await api.create("/api/v1/nodes", node)


def _bindings(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"bindings": [{"namespace": "default", "name": name, "node": node} for name, node in pairs]}


async def test_a_batch_binds_no_pod_to_a_node_that_is_gone() -> None:
    async with running_api() as api:
        await api.create(PODS, pod("a"))
        answer = await api.call("POST", "/kcp/v1/bindings", _bindings(("a", "n1")), document=True)
        (refused,) = answer.value["results"]
        assert refused["status"]["reason"] == "Conflict"
        assert 'node "n1" is gone' in refused["status"]["message"]


async def test_of_an_atomic_batch_all_are_bound_or_none() -> None:
    async with running_api() as api:
        for name in ("a", "b"):
            await api.create(PODS, pod(name))
        await _nodes(api, "n1")
        batch = {**_bindings(("a", "n1"), ("missing", "n1"), ("b", "n1")), "atomic": True}
        revision = api.store.rv
        answer = await api.call("POST", "/kcp/v1/bindings", batch, document=True)
        assert [result["status"]["reason"] for result in answer.value["results"]] == ["NotFound"] * 3
        assert api.store.rv == revision
        del batch["bindings"][1]
        answer = await api.call("POST", "/kcp/v1/bindings", batch, document=True)
        assert [result["revision"] for result in answer.value["results"]] == [revision + 1, revision + 2]


async def test_a_batch_needs_the_right_and_comes_from_inside() -> None:
    async with running_api() as api:
        with pytest.raises(NotFound):
            await api.call("POST", "/kcp/v1/bindings", {"bindings": []})
        api.authorizer.denied.add(("create", "pods"))
        with pytest.raises(Forbidden):
            await api.call("POST", "/kcp/v1/bindings", {"bindings": []}, document=True)


async def _running(api: Api, name: str = "web", *, ready: bool = True) -> None:
    obj = pod(name)
    obj["metadata"]["labels"] = {"app": "web"}
    await api.create(PODS, obj)
    await api.create(f"{PODS}/{name}/binding", {"target": {"name": "n1"}})
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    await api.patch(f"{PODS}/{name}/status", {"status": {"phase": "Running", "conditions": conditions}})


async def _budget(api: Api, name: str = "budget", **status: Any) -> None:
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    await api.create(BUDGETS, {"metadata": {"name": name}, "spec": spec})
    filled = {"disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2, **status}
    await api.patch(f"{BUDGETS}/{name}/status", {"status": {"observedGeneration": 1, **filled}})


async def test_an_eviction_takes_one_disruption() -> None:
    async with running_api() as api:
        await _running(api)
        await _budget(api)
        answer = await api.call("POST", f"{PODS}/web/eviction", {"metadata": {"name": "web"}})
        assert (answer.status, answer.value["status"]) == (201, "Success")
        marked = await api.get(f"{PODS}/web")
        assert marked["metadata"]["deletionTimestamp"]
        status = (await api.get(f"{BUDGETS}/budget"))["status"]
        assert status["disruptionsAllowed"] == 0
        assert status["disruptedPods"] == {"web": "2026-01-01T00:00:00Z"}


async def test_a_budget_refuses() -> None:
    async with running_api() as api:
        await _running(api)
        await _budget(api, disruptionsAllowed=0, currentHealthy=1)
        with pytest.raises(TooManyRequests) as caught:
            await api.create(f"{PODS}/web/eviction", {"metadata": {"name": "web"}})
        assert caught.value.message == "Cannot evict pod as it would violate the pod's disruption budget."
        assert caught.value.details["causes"] == [
            {
                "reason": "DisruptionBudget",
                "message": "The disruption budget budget needs 1 healthy pods and has 1 currently",
            }
        ]


async def test_a_budget_not_yet_processed_refuses_for_now() -> None:
    async with running_api() as api:
        await _running(api)
        await _budget(api, observedGeneration=0)
        with pytest.raises(TooManyRequests) as caught:
            await api.create(f"{PODS}/web/eviction", {})
        assert caught.value.retry_after_s == 10


async def test_budgets_do_not_hold_what_disrupts_nobody() -> None:
    async with running_api() as api:
        await _budget(api, disruptionsAllowed=0)
        obj = pod("pending")
        obj["metadata"]["labels"] = {"app": "web"}
        await api.create(PODS, obj)
        await api.create(f"{PODS}/pending/eviction", {})
        assert api.stored("pods", "pending") is None
        await _running(api, "unready", ready=False)
        await api.create(f"{PODS}/unready/eviction", {"deleteOptions": {"gracePeriodSeconds": 0}})
        assert api.stored("pods", "unready") is None


async def test_two_budgets_are_an_error_and_dry_runs_take_nothing() -> None:
    async with running_api() as api:
        await _running(api)
        await _budget(api)
        before = api.store.rv
        await api.create(f"{PODS}/web/eviction", {"deleteOptions": {"dryRun": ["All"]}})
        assert api.store.rv == before
        await _budget(api, "second")
        with pytest.raises(ApiError, match=r"more than one PodDisruptionBudget") as caught:
            await api.create(f"{PODS}/web/eviction", {})
        assert caught.value.code == 500


async def test_scale_reads_and_writes_replicas() -> None:
    async with running_api() as api:
        created = await api.create(DEPLOYMENTS, deployment())
        scale = await api.get(f"{DEPLOYMENTS}/web/scale")
        assert (scale["apiVersion"], scale["kind"]) == ("autoscaling/v1", "Scale")
        assert scale["spec"] == {"replicas": 3}
        assert scale["status"] == {"replicas": 0, "selector": "app=web"}
        assert scale["metadata"]["uid"] == created["metadata"]["uid"]
        scale["spec"]["replicas"] = 7
        assert (await api.update(f"{DEPLOYMENTS}/web/scale", scale))["spec"] == {"replicas": 7}
        with pytest.raises(Conflict):
            await api.update(f"{DEPLOYMENTS}/web/scale", scale)
        patched = await api.patch(f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": 2}})
        assert patched["spec"] == {"replicas": 2}
        stored = api.stored("deployments.apps", "web")
        assert stored is not None
        assert (stored["spec"]["replicas"], stored["metadata"]["generation"]) == (2, 3)


async def test_scale_refuses_negative_numbers() -> None:
    async with running_api() as api:
        await api.create(DEPLOYMENTS, deployment())
        with pytest.raises(Invalid) as caught:
            await api.patch(f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": -1}})
        assert caught.value.message.startswith(
            'Scale.autoscaling "web" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0'
        )


def _issuer(api: Api) -> TokenIssuer:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return TokenIssuer("https://issuer", SigningKey.load(pem), api.clock, api.server.entropy)


async def test_a_token_is_issued_for_an_account() -> None:
    async with running_api() as api:
        api.server.extras["token_issuer"] = _issuer(api)
        answer = await api.call("POST", f"{ACCOUNTS}/default/token", {"spec": {"audiences": ["me"]}})
        assert answer.status == 201
        assert answer.value["status"]["token"].count(".") == 2
        assert answer.value["spec"]["boundObjectRef"] is None
        (managed,) = answer.value["metadata"]["managedFields"]
        assert (managed["subresource"], managed["apiVersion"]) == ("token", "authentication.k8s.io/v1")
        assert managed["fieldsV1"] == {"f:spec": {"f:audiences": {}, "f:expirationSeconds": {}}}
        assert answer.value["status"]["expirationTimestamp"] == "2026-01-01T01:00:00Z"
        with pytest.raises(Invalid, match=r"may not specify a duration less than 10 minutes"):
            await api.create(f"{ACCOUNTS}/default/token", {"spec": {"expirationSeconds": 10}})
        with pytest.raises(NotFound, match=r'^serviceaccounts "x" not found$'):
            await api.create(f"{ACCOUNTS}/x/token", {"spec": {}})


async def test_a_token_may_be_bound_to_a_pod() -> None:
    async with running_api() as api:
        api.server.extras["token_issuer"] = _issuer(api)
        created = await api.create(PODS, pod())
        bound = {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": created["metadata"]["uid"]}
        path = f"{ACCOUNTS}/default/token"
        year = await api.create(path, {"spec": {"boundObjectRef": bound, "expirationSeconds": 3607}})
        assert year["status"]["expirationTimestamp"] == "2027-01-01T00:00:00Z"
        with pytest.raises(Conflict, match=r"does not match the UID in record"):
            await api.create(path, {"spec": {"boundObjectRef": {**bound, "uid": "x"}}})
        await api.create(ACCOUNTS, {"metadata": {"name": "other"}})
        with pytest.raises(BadRequest, match=r"running with different serviceaccount name"):
            await api.create(f"{ACCOUNTS}/other/token", {"spec": {"boundObjectRef": bound}})


async def test_without_a_key_there_are_no_tokens() -> None:
    async with running_api() as api:
        with pytest.raises(ServiceUnavailable):
            await api.create(f"{ACCOUNTS}/default/token", {"spec": {}})


async def test_approval_stamps_its_condition() -> None:
    async with running_api() as api:
        created = await api.create(REQUESTS, signing_request("alice"))
        condition = {"type": "Approved", "status": "True", "reason": "ok", "message": "fine"}
        changed = {**created, "status": {"conditions": [condition]}}
        approved = await api.update(f"{REQUESTS}/alice/approval", changed)
        [found] = approved["status"]["conditions"]
        assert found["lastUpdateTime"] == found["lastTransitionTime"] == "2026-01-01T00:00:00Z"


async def test_ephemeral_containers_join_a_pod() -> None:
    async with running_api() as api:
        await api.create(PODS, pod())
        debug = {"name": "debug", "image": "busybox"}
        patched = await api.patch(
            f"{PODS}/web/ephemeralcontainers",
            {"spec": {"ephemeralContainers": [debug]}},
            "strategic-merge-patch+json",
        )
        assert patched["spec"]["ephemeralContainers"][0]["name"] == "debug"
        assert patched["metadata"]["generation"] == 2


async def test_logs_of_a_node_elsewhere_are_asked_for_there_but_only_once() -> None:
    asked = []

    async def elsewhere(call: Call, node: str) -> Response:
        asked.append((call.info.name, node))
        return Response(200, [("content-type", "text/plain")], b"from there\n")

    async with running_api() as api:
        await api.create(PODS, pod())
        await api.create(f"{PODS}/web/binding", {"target": {"name": "n1"}})
        api.server.extras["node_peer"] = elsewhere
        assert (await api.call("GET", f"{PODS}/web/log")).value == b"from there\n"
        with pytest.raises(ServiceUnavailable, match='log is not available on node "n1"'):
            await api.call("GET", f"{PODS}/web/log", user=PEER)
        assert asked == [("web", "n1")]


async def test_logs_come_from_who_has_them() -> None:
    async with running_api() as api:
        await api.create(PODS, pod())
        assert (await api.call("GET", f"{PODS}/web/log")).value == b""
        with pytest.raises(BadRequest, match=r"pod web does not have a host assigned"):
            await api.call("GET", f"{PODS}/web/exec", params={"command": "ls"})
        await api.create(f"{PODS}/web/binding", {"target": {"name": "n1"}})
        with pytest.raises(ServiceUnavailable):
            await api.call("GET", f"{PODS}/web/log")
        with pytest.raises(BadRequest, match=r"^container x is not valid for pod web$"):
            await api.call("GET", f"{PODS}/web/log", params={"container": "x"})
        api.server.extras["pod_logs"] = lambda pod, container, params: f"hello from {container}\n"
        assert (await api.call("GET", f"{PODS}/web/log")).value == b"hello from web\n"
        record = api.store.get(Key("pods", "default", "web"))
        assert record is not None


@pytest.mark.parametrize(
    ("params", "why"),
    [
        (
            {"sinceSeconds": "5", "sinceTime": "2026-01-01T00:00:00Z"},
            "[]: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
        ),
        ({"stream": "Stdout"}, "stream: Forbidden: may not be specified"),
        ({"tailLines": "-1"}, "tailLines: Invalid value: -1: must be greater than or equal to 0"),
    ],
)
async def test_options_of_logs_are_checked(params: dict[str, str], why: str) -> None:
    async with running_api() as api:
        await api.create(PODS, pod())
        with pytest.raises(Invalid) as caught:
            await api.call("GET", f"{PODS}/web/log", params=params)
        assert caught.value.message == f'PodLogOptions "web" is invalid: {why}'


async def test_a_pod_that_says_one_address_has_the_list_of_it() -> None:
    async with running_api() as api:
        await api.create(PODS, pod())
        status = (await api.patch(f"{PODS}/web/status", {"status": {"podIP": "10.0.0.1"}}))["status"]
        assert status["podIPs"] == [{"ip": "10.0.0.1"}]
        moved = (await api.patch(f"{PODS}/web/status", {"status": {"podIP": "10.0.0.2"}}))["status"]
        assert moved["podIPs"] == [{"ip": "10.0.0.2"}]
        both = [{"ip": "10.0.0.3"}, {"ip": "fd00::3"}]
        several = {"status": {"podIP": None, "podIPs": both}}
        status = (await api.patch(f"{PODS}/web/status", several))["status"]
        assert (status["podIP"], status["podIPs"]) == ("10.0.0.3", both)
