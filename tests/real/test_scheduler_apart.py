"""`kcp scheduler` as processes: two that share a Lease, and one for pods that ask for it by name."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import yaml

from tests.real.component import LEASE_S, Component
from tests.real.daemon import Daemon, eventually
from tests.real.https import Api

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

Json = dict[str, Any]
PODS = "/api/v1/namespaces/default/pods"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
MANY = 120
BATCH = {
    "apiVersion": "kubescheduler.config.k8s.io/v1",
    "kind": "KubeSchedulerConfiguration",
    "leaderElection": {
        "resourceName": "batch", "leaseDuration": "3s", "renewDeadline": "2s", "retryPeriod": "500ms",
    },
    "profiles": [{
        "schedulerName": "batch",
        "pluginConfig": [{"name": "NodeResourcesFit", "args": {"scoringStrategy": {"type": "MostAllocated"}}}],
        "plugins": {"score": {"disabled": [{"name": "NodeResourcesBalancedAllocation"}]}},
    }],
}  # fmt: skip


@pytest.fixture(scope="module")
def cluster(make_daemon: Callable[..., Daemon]) -> Daemon:
    return make_daemon("--components", "api,controllers,nodes", nodes=3).start()


@pytest.fixture(scope="module")
def server(cluster: Daemon) -> Api:
    return Api.of(cluster.kubeconfig)


@pytest.fixture(scope="module")
def schedulers(
    cluster: Daemon, server: Api, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Component]]:
    """first and second share a Lease; batch has a file and a Lease of its own, which it must be allowed to hold."""
    home = tmp_path_factory.mktemp("schedulers")
    (home / "batch.yaml").write_text(yaml.safe_dump(BATCH), encoding="utf-8")
    _allow_lease(server, "batch")
    config = cluster.data / "scheduler.kubeconfig"
    made = [
        Component("scheduler", "first", config, home).start(),
        Component("scheduler", "second", config, home).start(),
        Component("scheduler", "batch", config, home, ("--config", str(home / "batch.yaml"))).start(),
    ]
    yield made
    for scheduler in made:
        scheduler.kill()


def _allow_lease(api: Api, name: str) -> None:
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system"
    role = {
        "metadata": {"name": name},
        "rules": [
            {
                "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"],
                "resourceNames": [name],
                "verbs": ["get", "update"],
            }
        ],
    }
    binding = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [
            {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-scheduler"}
        ],
    }
    assert api.request("POST", f"{rbac}/roles", role).status == 201
    assert api.request("POST", f"{rbac}/rolebindings", binding).status == 201


def pod(name: str, scheduler: str = "", cpu: str = "10m") -> Json:
    container = {"name": "main", "image": "nginx", "resources": {"requests": {"cpu": cpu}}}
    spec = {"containers": [container], **({"schedulerName": scheduler} if scheduler else {})}
    return {"metadata": {"name": name, "labels": {"set": name.partition("-")[0]}}, "spec": spec}


def create(api: Api, pods: Sequence[Json]) -> None:
    for each in pods:
        answer = api.request("POST", PODS, each)
        assert answer.status == 201, answer.body


def nodes(api: Api, name: str) -> list[str]:
    """Where the pods of a set are; "" for those that wait."""
    items = api.get(f"{PODS}?labelSelector=set%3D{name}")["items"]
    return [each["spec"].get("nodeName", "") for each in items]


def events(api: Api, name: str) -> list[Json]:
    found = api.get(f"/apis/events.k8s.io/v1/namespaces/default/events?fieldSelector=regarding.name%3D{name}")
    return [each for each in found["items"] if each["reason"] in ("Scheduled", "FailedScheduling")]


def holder(api: Api, lease: str) -> str:
    leases = {each["metadata"]["name"]: each["spec"] for each in api.get(LEASES)["items"]}
    return str(leases.get(lease, {}).get("holderIdentity", ""))


def test_each_schedules_the_pods_that_ask_for_it(
    cluster: Daemon, server: Api, schedulers: Sequence[Component]
) -> None:
    account = "/api/v1/namespaces/default/serviceaccounts/default"
    eventually(lambda: server.request("GET", account).status == 200, "the service account is there")
    create(server, [pod(f"packed-{n}", "batch", "500m") for n in range(4)])
    create(server, [pod("spread-0"), pod("waits-0", "nobody"), pod("huge-0", "batch", "64")])
    eventually(lambda: all(nodes(server, "packed")) and all(nodes(server, "spread")), "they are bound")
    assert len(set(nodes(server, "packed"))) == 1
    scheduled = eventually(lambda: events(server, "packed-0") or None, "the Event is written")[0]
    assert scheduled["reportingController"] == "batch"
    assert scheduled["note"] == f"Successfully assigned default/packed-0 to {nodes(server, 'packed')[0]}"
    assert (
        eventually(lambda: events(server, "spread-0") or None, "an Event")[0]["reportingController"]
        == "default-scheduler"
    )
    failed = eventually(lambda: events(server, "huge-0") or None, "why it waits is told")[0]
    assert failed["note"].startswith("0/3 nodes are available: 3 Insufficient cpu.")
    conditions = server.get(f"{PODS}/huge-0")["status"]["conditions"]
    assert [(c["type"], c["status"], c["reason"]) for c in conditions] == [
        ("PodScheduled", "False", "Unschedulable")
    ]
    assert nodes(server, "waits") == [""]
    binders = json.loads(
        cluster.sql("SELECT DISTINCT username FROM history WHERE kind = 'Pod' AND op = 'MODIFIED'"
                    " AND manager = 'kube-scheduler'", "--format", "json")
    )  # fmt: skip
    assert binders == [{"username": "system:kube-scheduler"}]


def test_a_killed_one_is_followed_while_it_binds(
    cluster: Daemon, server: Api, schedulers: Sequence[Component]
) -> None:
    """Every pod is bound once, wherever its scheduler was when it died."""
    leader = next(each for each in schedulers if each.identity == holder(server, "kube-scheduler"))
    create(server, [pod(f"many-{n}") for n in range(MANY)])
    eventually(lambda: any(nodes(server, "many")), "it has begun")
    leader.kill()
    killed_s = time.monotonic()
    create(server, [pod(f"more-{n}") for n in range(10)])
    eventually(
        lambda: holder(server, "kube-scheduler") not in ("", leader.identity),
        "the other leads",
        LEASE_S + 2.0,
    )
    print(f"scheduler: handed over after {time.monotonic() - killed_s:.1f} s (lease {LEASE_S:g} s)")
    eventually(lambda: all(nodes(server, "many")) and all(nodes(server, "more")), "all are bound")
    moved = cluster.sql(
        "SELECT name FROM (SELECT DISTINCT name, uid, json_extract(object, '$.spec.nodeName') AS node"
        " FROM history WHERE kind = 'Pod' AND node IS NOT NULL) GROUP BY name, uid HAVING count(*) > 1",
        "--format",
        "json",
    )
    assert json.loads(moved) == []
