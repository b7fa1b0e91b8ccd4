"""Three daemons on one PostgreSQL: one cluster, whichever of them is asked, and one of them decides at a time."""

from __future__ import annotations

import contextlib
import itertools
import json
import ssl
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import yaml

from tests.real.daemon import Daemon, eventually
from tests.real.https import Api
from tests.store import postgres

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

NODES = 2
TAKE_OVER_S = 25.0
"""A dead leader's Lease expires after 15 s; candidates look every 2 to 4.4 s."""
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
COMPONENTS = ("kube-controller-manager", "kube-scheduler", "kcp-simulated-nodes")
MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods?labelSelector=app%3Dweb"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
SECRET = "/api/v1/namespaces/kube-system/secrets/kcp-pki"
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
ENDPOINTS = "/api/v1/namespaces/default/endpoints/kubernetes"
SLICES = (
    "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    "?labelSelector=kubernetes.io/service-name%3Dkubernetes"
)
IDENTITIES = f"{LEASES}?labelSelector=apiserver.kubernetes.io/identity%3Dkube-apiserver"


@pytest.fixture(scope="module")
def daemons(make_daemon: Callable[..., Daemon]) -> list[Daemon]:
    """The first comes alone and leads; of the others one has nodes of its own to run when the first is gone."""
    url = postgres.database(empty=True)
    return [make_daemon("--store", url, nodes=nodes).start() for nodes in (NODES, NODES, 0)]


@pytest.fixture(scope="module")
def apis(daemons: Sequence[Daemon]) -> list[Api]:
    return [Api.of(daemon.kubeconfig) for daemon in daemons]


def holders(api: Api) -> dict[str, str]:
    """Who runs what: component -> identity."""
    leases = {lease["metadata"]["name"]: lease["spec"] for lease in api.get(LEASES)["items"]}
    return {name: leases[name].get("holderIdentity", "") for name in COMPONENTS if name in leases}


def endpoint_ports(api: Api) -> list[int]:
    """The ports in Endpoints and in the slices of the Service `kubernetes`, which tell the daemons of one machine apart."""
    ports = sorted(port["port"] for subset in api.get(ENDPOINTS)["subsets"] for port in subset["ports"])
    assert ports == sorted(port["port"] for piece in api.get(SLICES)["items"] for port in piece["ports"])
    return ports


def web(replicas: int) -> dict[str, Any]:
    labels = {"app": "web"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "web", "image": "nginx"}]},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}


def running(api: Api, count: int) -> list[str] | None:
    """Names of the pods when there are so many and all are ready."""
    pods = api.get(PODS)["items"]
    ready = [
        pod["metadata"]["name"]
        for pod in pods
        if {"type": "Ready", "status": "True"}.items()
        <= next((c for c in pod["status"].get("conditions", ()) if c["type"] == "Ready"), {}).items()
    ]
    return sorted(ready) if len(ready) == len(pods) == count else None


def created(api: Api, since: str) -> list[str]:
    """Names of all pods that were ever added after a revision, as a watch tells them."""
    names = []
    for event in api.watch(f"{PODS}&watch=true&timeoutSeconds=1&resourceVersion={since}"):
        if event["type"] == "ADDED":
            names.append(event["object"]["metadata"]["name"])
    return sorted(names)


def test_all_have_one_authority_and_pairs_of_their_own(
    daemons: Sequence[Daemon], apis: Sequence[Api]
) -> None:
    configs = [yaml.safe_load(daemon.kubeconfig.read_text()) for daemon in daemons]
    assert len({c["clusters"][0]["cluster"]["certificate-authority-data"] for c in configs}) == 1
    assert len({c["users"][0]["user"]["client-certificate-data"] for c in configs}) == len(daemons)
    tokens = {(daemon.data / "pki" / "sa.key").read_bytes() for daemon in daemons}
    assert len(tokens) == 1
    assert set(apis[2].get(SECRET)["data"]) == {"ca.crt", "ca.key", "sa.key"}


def test_a_token_of_one_is_good_at_another(apis: Sequence[Api]) -> None:
    eventually(
        lambda: apis[1].request("GET", f"{ACCOUNTS}/default").status == 200, "the service account is there"
    )
    made = apis[0].request("POST", f"{ACCOUNTS}/default/token", {"spec": {}})
    token = made.json()["status"]["token"]
    review = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token},
    }
    answer = apis[2].request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review).json()
    assert answer["status"]["user"]["username"] == "system:serviceaccount:default:default"


def test_the_keys_of_the_cluster_are_no_secret_like_others(apis: Sequence[Api]) -> None:
    """Immutable, and nothing that a role for other namespaces gives."""
    changed = apis[0].request(
        "PATCH", SECRET, {"data": {"ca.key": ""}}, content_type="application/merge-patch+json"
    )
    assert changed.status == 422
    access = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": "someone",
            "groups": ["system:authenticated"],
            "resourceAttributes": {
                "namespace": "kube-system",
                "verb": "get",
                "resource": "secrets",
                "name": "kcp-pki",
            },
        },
    }
    answer = apis[0].request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", access)
    assert answer.json()["status"]["allowed"] is False


def test_what_one_writes_another_reads_at_once(apis: Sequence[Api]) -> None:
    for number, (writer, reader) in enumerate(itertools.permutations(apis, 2)):
        name = f"from-{number}"
        assert writer.request("POST", MAPS, {"metadata": {"name": name}}).status == 201
        assert reader.request("GET", f"{MAPS}/{name}").status == 200


def test_what_one_writes_another_watches(apis: Sequence[Api]) -> None:
    revision = apis[1].get(MAPS)["metadata"]["resourceVersion"]
    watch = apis[1].watch(f"{MAPS}?watch=true&resourceVersion={revision}")
    apis[0].request("POST", MAPS, {"metadata": {"name": "watched"}})
    apis[2].request("DELETE", f"{MAPS}/watched")
    told = [(e["type"], e["object"]["metadata"]["name"]) for e in itertools.islice(watch, 2)]
    assert told == [("ADDED", "watched"), ("DELETED", "watched")]


def test_a_watch_hears_of_it_without_waiting_for_the_next_look(apis: Sequence[Api]) -> None:
    """Daemons look for changes every second; the word that one passes to the others is much faster."""
    revision = apis[1].get(MAPS)["metadata"]["resourceVersion"]
    watch = apis[1].watch(f"{MAPS}?watch=true&resourceVersion={revision}")
    took_s = []
    with contextlib.closing(apis[0].connect()) as connection:
        for number in range(100):
            body = json.dumps({"metadata": {"name": f"told-{number}"}})
            started_s = time.monotonic()
            connection.request("POST", MAPS, body, {"Content-Type": "application/json"})
            assert connection.getresponse().read()
            assert next(watch)["object"]["metadata"]["name"] == f"told-{number}"
            took_s.append(time.monotonic() - started_s)
    p50_ms, p99_ms = (1000 * statistics.quantiles(took_s, n=100)[at] for at in (49, 98))
    print(f"write at one and watch event at another: p50 {p50_ms:.1f} ms, p99 {p99_ms:.1f} ms")
    assert statistics.median(took_s) < 0.25


def test_the_service_kubernetes_names_all_of_them(daemons: Sequence[Daemon], apis: Sequence[Api]) -> None:
    ports = sorted(daemon.port for daemon in daemons)
    for api in apis:
        assert endpoint_ports(api) == ports
    told = {
        lease["metadata"]["annotations"]["kubernetes.io/peer-advertise-address"]: lease["spec"][
            "holderIdentity"
        ]
        for lease in apis[2].get(IDENTITIES)["items"]
    }
    for daemon in daemons:
        assert daemon.process is not None
        assert f"_{daemon.process.pid}_" in told[f"127.0.0.1:{daemon.port}"]


def test_logs_are_read_through_any_of_them(apis: Sequence[Api]) -> None:
    """The first daemon runs the nodes; the others pass the question on, and its answer or error back."""
    container = {"name": "hi", "image": "busybox", "command": ["echo", "hello"]}
    pod = {"metadata": {"name": "hi"}, "spec": {"containers": [container], "restartPolicy": "Never"}}
    assert apis[1].request("POST", PODS.partition("?")[0], pod).status == 201
    path = "/api/v1/namespaces/default/pods/hi"
    eventually(lambda: apis[1].get(path)["status"].get("phase") == "Succeeded", "the pod has run")
    for api in apis:
        answer = api.request("GET", f"{path}/log?timestamps=false")
        assert (answer.status, answer.body) == (200, b"hello\n")
        assert answer.headers["Content-Type"] == "text/plain"
        followed = api.request("GET", f"{path}/log?follow=true")
        assert (followed.status, followed.body) == (200, b"hello\n")
        assert api.request("GET", f"{path}/log?previous=true").message == (
            'previous terminated container "hi" in pod "hi" not found'
        )


def test_who_passes_a_request_on_may_read_logs_and_nothing_else(
    daemons: Sequence[Daemon], apis: Sequence[Api]
) -> None:
    access = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": "system:kcp:peer", "groups": ["system:authenticated"]},
    }

    def may(verb: str, resource: str, subresource: str = "") -> bool:
        attributes = {"verb": verb, "resource": resource, "subresource": subresource, "namespace": "default"}
        body = {**access, "spec": {**access["spec"], "resourceAttributes": attributes}}  # type: ignore[dict-item]
        answer = apis[0].request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
        return bool(answer.json()["status"]["allowed"])

    assert may("get", "pods", "log")
    assert not any((may("get", "pods"), may("get", "secrets"), may("create", "pods", "exec")))
    assert not any((may("impersonate", "users"), may("list", "pods")))
    headers = {"X-Remote-User": "system:admin", "X-Remote-Group": "system:masters"}
    bare = Api(apis[0].host, daemons[0].port, anonymous_tls(daemons[0]))
    assert bare.request("GET", "/api/v1/namespaces/default/secrets", headers=headers).status == 403


def anonymous_tls(daemon: Daemon) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(daemon.data / "pki" / "ca.crt"))


def test_a_killed_leader_is_followed_and_nothing_is_decided_twice(
    daemons: Sequence[Daemon], apis: Sequence[Api]
) -> None:
    first, others = holders(apis[1]), apis[1:]
    leader = daemons[0].process
    assert leader is not None
    assert {name: f"_{leader.pid}_" in first[name] for name in COMPONENTS} == dict.fromkeys(COMPONENTS, True)
    since = apis[1].get(PODS)["metadata"]["resourceVersion"]
    assert apis[2].request("POST", DEPLOYMENTS, web(3)).status == 201
    before = eventually(lambda: running(apis[1], 3), "three pods run")

    daemons[0].kill()
    killed_s = time.monotonic()
    unreachable = apis[2].request("GET", f"/api/v1/namespaces/default/pods/{before[0]}/log")
    assert (unreachable.status, unreachable.reason) == (503, "ServiceUnavailable")
    where = f"127.0.0.1:{daemons[0].port}"
    path = f"/api/v1/namespaces/default/pods/{before[0]}/log"
    assert (
        unreachable.message == f'Get "https://{where}{path}": dial tcp {where}: connect: connection refused'
    )
    assert apis[1].request(
        "PATCH", f"{DEPLOYMENTS}/web", {"spec": {"replicas": 5}}, content_type="application/merge-patch+json"
    ).status == 200  # fmt: skip
    eventually(
        lambda: all(holders(apis[1])[name] != first[name] for name in COMPONENTS),
        "others lead",
        TAKE_OVER_S,
    )
    print(f"taken over after {time.monotonic() - killed_s:.1f} s")
    left = sorted(daemon.port for daemon in daemons[1:])
    eventually(lambda: endpoint_ports(apis[1]) == left, "the dead one is no endpoint", TAKE_OVER_S)
    print(f"out of the endpoints after {time.monotonic() - killed_s:.1f} s at most")
    for api in others:
        after = eventually(partial(running, api, 5), "five pods run")
        assert set(before) <= set(after)
        assert created(api, since) == after
    sets = apis[2].get("/apis/apps/v1/namespaces/default/replicasets")["items"]
    assert len(sets) == 1
    assert [daemon.errors.count("crashed") for daemon in daemons] == [0, 0, 0]


def test_who_was_killed_comes_back_as_one_of_them(daemons: Sequence[Daemon], apis: Sequence[Api]) -> None:
    ca = (daemons[0].data / "pki" / "ca.crt").read_bytes()
    leaders = holders(apis[1])
    daemons[0].start()
    assert (daemons[0].data / "pki" / "ca.crt").read_bytes() == ca
    assert running(apis[0], 5) is not None
    assert endpoint_ports(apis[1]) == sorted(daemon.port for daemon in daemons)
    assert len(apis[1].get(IDENTITIES)["items"]) == len(daemons)
    assert {name: holders(apis[0])[name] for name in COMPONENTS} == {n: leaders[n] for n in COMPONENTS}


def test_a_leader_that_stops_in_order_hands_over_at_once(
    daemons: Sequence[Daemon], apis: Sequence[Api]
) -> None:
    leaders = holders(apis[0])
    leader = next(
        d for d in daemons if d.process and f"_{d.process.pid}_" in leaders["kube-controller-manager"]
    )
    rest = next(api for daemon, api in zip(daemons, apis, strict=True) if daemon is not leader)
    stopped_s = time.monotonic()
    assert leader.stop() == 0
    assert endpoint_ports(rest) == sorted(daemon.port for daemon in daemons if daemon is not leader)
    eventually(
        lambda: holders(rest)["kube-controller-manager"] not in ("", leaders["kube-controller-manager"]),
        "another one leads",
        10.0,
    )
    print(f"handed over {time.monotonic() - stopped_s:.1f} s after SIGTERM")


def test_first_starts_at_once_agree_on_the_keys(make_daemon: Callable[..., Daemon]) -> None:
    url = postgres.database(empty=True)
    with ThreadPoolExecutor(3) as threads:
        started = list(threads.map(Daemon.start, [make_daemon("--store", url) for _ in range(3)]))
    assert len({(daemon.data / "pki" / "ca.crt").read_bytes() for daemon in started}) == 1
    apis = [Api.of(daemon.kubeconfig) for daemon in started]
    assert len({api.get("/api/v1/namespaces/kube-system")["metadata"]["uid"] for api in apis}) == 1
    for daemon in started:
        assert daemon.stop() == 0
        assert "crashed" not in daemon.errors
