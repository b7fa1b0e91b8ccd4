"""kill -9 at any moment of a running rollout: nothing acknowledged is lost, the rollout completes, nothing is double."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.real import kubectl as kubectls
from tests.real.daemon import ROOT, Daemon, environment, eventually, kcp
from tests.real.https import Api
from tests.real.kubectl import Kubectl

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]

KILLS = 10
REPLICAS = 4
SURGE = 1
LONGEST_S = 0.6
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
MAPS = "/api/v1/namespaces/default/configmaps"


@attrs.define
class Writer:
    """Creates ConfigMaps one after the other until the daemon is gone, and remembers which were acknowledged."""

    api: Api
    round: int
    acknowledged: dict[str, tuple[str, str]] = attrs.field(factory=dict)

    def run(self) -> None:
        for number in range(10_000):
            name = f"write-{self.round}-{number}"
            try:
                answer = self.api.request("POST", MAPS, {"metadata": {"name": name}})
            except (OSError, HTTPException):
                return
            if answer.status != 201:
                return
            metadata = answer.json()["metadata"]
            self.acknowledged[name] = (metadata["uid"], metadata["resourceVersion"])


@pytest.fixture
def cluster(make_daemon: Callable[..., Daemon]) -> Daemon:
    return make_daemon(nodes=3).start()


@pytest.fixture
def kubectl(cluster: Daemon) -> Kubectl:
    try:
        program = kubectls.binary("path")
    except kubectls.Missing as reason:
        pytest.skip(str(reason))
    return Kubectl(program, {**environment(cluster.home), "KUBECONFIG": str(cluster.kubeconfig)})


def test_kill_9_during_a_rollout_ten_times(cluster: Daemon, kubectl: Kubectl, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    kubectl("apply", "-f", ROOT / "examples/httpserver.yaml")
    kubectl("scale", "deployment/httpserver", f"--replicas={REPLICAS}")
    settled(kubectl, "v1")
    acknowledged: dict[str, tuple[str, str]] = {}
    for kill in range(KILLS):
        version = f"v{kill + 2}"
        acknowledged.update(killed_while_rolling(cluster, version, kill, moments.uniform(0.0, LONGEST_S)))
        cluster.start()
        nothing_lost(Api.of(cluster.kubeconfig), acknowledged)
        settled(kubectl, version)
    assert len(acknowledged) > KILLS
    never_too_many(cluster)
    assert cluster.stop() == 0
    every_decision_again(cluster, tmp_path)


def killed_while_rolling(
    cluster: Daemon, version: str, kill: int, after_s: float
) -> dict[str, tuple[str, str]]:
    """Start a rollout and writes beside it, kill the daemon in between. Returns the acknowledged writes."""
    api = Api.of(cluster.kubeconfig)
    writer = Writer(api, kill)
    thread = threading.Thread(target=writer.run)
    change = {
        "spec": {
            "template": {
                "spec": {"containers": [{"name": "httpserver", "image": f"example.com/httpserver:{version}"}]}
            }
        }
    }
    thread.start()
    answer = api.request(
        "PATCH",
        f"{DEPLOYMENTS}/httpserver",
        change,
        content_type="application/strategic-merge-patch+json",
    )
    assert answer.status == 200, answer.body
    generation = answer.json()["metadata"]["generation"]
    time.sleep(after_s)  # not a wait for something: the random moment
    cluster.kill()
    thread.join(30)
    assert not thread.is_alive()
    print(
        f"kill {kill} after {after_s * 1000:.0f} ms: generation {generation}, {len(writer.acknowledged)} writes"
    )
    return writer.acknowledged


def nothing_lost(api: Api, acknowledged: dict[str, tuple[str, str]]) -> None:
    kept = {
        item["metadata"]["name"]: (item["metadata"]["uid"], item["metadata"]["resourceVersion"])
        for item in api.get(MAPS)["items"]
    }
    assert {name: kept.get(name) for name in acknowledged} == acknowledged


def settled(kubectl: Kubectl, version: str) -> None:
    """The rollout is complete: one ReplicaSet with pods, exactly as many as wanted, all of them ready and new."""
    kubectl("rollout", "status", "deployment/httpserver", "--timeout=60s")

    def complete() -> bool:
        pods = kubectl.json("get", "pods", "-l", "app=httpserver")["items"]
        return len(pods) == REPLICAS and all(of_version(pod, version) for pod in pods)

    eventually(complete, f"{REPLICAS} pods of {version}", 60)
    wanted = Counter(
        rs["spec"]["replicas"] for rs in kubectl.json("get", "rs", "-l", "app=httpserver")["items"]
    )
    assert wanted[REPLICAS] == 1 and set(wanted) <= {0, REPLICAS}


def of_version(pod: dict[str, Any], version: str) -> bool:
    ready = [c["status"] for c in pod["status"].get("conditions", []) if c["type"] == "Ready"]
    image = pod["spec"]["containers"][0]["image"]
    return image == f"example.com/httpserver:{version}" and ready == ["True"]


def never_too_many(cluster: Daemon) -> None:
    """At every revision: pods that are not on their way out are at most replicas + surge."""
    rows = cluster.sql(
        "SELECT rv, uid, op, json_extract(object, '$.metadata.deletionTimestamp') AS leaving, "
        "json_extract(object, '$.status.phase') AS phase FROM history WHERE kind = 'Pod' ORDER BY rv",
        "--format",
        "csv",
    ).splitlines()[1:]
    alive: set[str] = set()
    names: list[int] = []
    for row in rows:
        _, uid, op, leaving, phase = row.split(",")
        if op == "DELETED" or leaving or phase in ("Succeeded", "Failed"):
            alive.discard(uid)
        else:
            alive.add(uid)
        names.append(len(alive))
    assert max(names) <= REPLICAS + SURGE
    assert names[-1] == REPLICAS


def every_decision_again(cluster: Daemon, tmp_path: Path) -> None:
    """The exported log re-makes all decisions of all eleven processes, with none that differs."""
    incident = tmp_path / "crash.kcplog"
    exported = cluster.kcp("export", incident)
    assert exported.returncode == 0, exported.stderr
    replayed = kcp("replay", incident, home=tmp_path)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    total, identical = (int(word) for word in replayed.stdout.split() if word.isdigit())
    assert total == identical > KILLS
