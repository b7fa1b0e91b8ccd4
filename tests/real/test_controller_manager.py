"""Three `kcp controller-manager` against one API server: one leads, another follows when it is gone, nothing is done twice.

Every test rolls a Deployment over while its leader gets into trouble. What was done, by whom and in whose time is read
from two sources: the event log of the API server, and the decisions that each process wrote down.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import attrs
import pytest
from click.testing import CliRunner

from kcp.cli.main import kcp as commands
from tests.real.component import LEASE_S, Component, through
from tests.real.daemon import Daemon, eventually
from tests.real.https import Api
from tests.real.proxy import Proxy

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

Json = dict[str, Any]
REPLICAS = 8
HAND_OVER_S = LEASE_S + 2.0
"""A candidate looks every 500 ms to 1.1 s; the rest is for a busy machine."""
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager"
DEPLOYMENT = "/apis/apps/v1/namespaces/default/deployments/web"
SETS = "/apis/apps/v1/namespaces/default/replicasets"
MERGE = "application/merge-patch+json"


@attrs.define
class Trio:
    """The API server, and three managers that each reach it through a proxy of their own."""

    daemon: Daemon
    api: Api
    proxies: list[Proxy]
    make: Callable[[int], Component]
    managers: list[Component]
    past: list[Component] = attrs.field(factory=list)

    def lease(self) -> Json:
        spec: Json = self.api.get(LEASE)["spec"]
        return spec

    def leader(self) -> int:
        """Which of the three leads, once one does."""
        names = [manager.identity for manager in self.managers]
        return eventually(
            lambda: next((n for n, name in enumerate(names) if name == self.lease()["holderIdentity"]), None),
            "one of them leads",
        )

    def replace(self, number: int) -> None:
        """A new process for one that is gone."""
        self.past.append(self.managers[number])
        self.managers[number] = self.make(number).start()

    def handed_over(self, old: str, what: str) -> None:
        """Wait until another one leads; prints how long that took."""
        started_s = time.monotonic()
        eventually(lambda: self.lease()["holderIdentity"] not in ("", old), "another one leads", HAND_OVER_S)
        print(f"{what}: handed over after {time.monotonic() - started_s:.1f} s (lease {LEASE_S:g} s)")

    def records(self) -> list[Component]:
        return [*self.past, *self.managers]


@pytest.fixture(scope="module")
def trio(make_daemon: Callable[..., Daemon], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    home = tmp_path_factory.mktemp("managers")
    daemon = make_daemon("--components", "api,scheduler,nodes", nodes=2).start()
    proxies = [Proxy(daemon.port).start() for _ in range(3)]
    configs = [
        through(daemon.data / "controller-manager.kubeconfig", proxy.port, home / f"{number}.kubeconfig")
        for number, proxy in enumerate(proxies)
    ]
    life = itertools.count(1)

    def make(number: int) -> Component:
        return Component("controller-manager", f"manager-{number}-{next(life)}", configs[number], home)

    made = Trio(
        daemon, Api.of(daemon.kubeconfig), proxies, make, [make(number).start() for number in range(3)]
    )
    yield made
    for manager in made.managers:
        manager.kill()
    for proxy in proxies:
        proxy.stop()


def web(image: str) -> Json:
    """Rolls over two pods at a time, each of which has to be ready for a second."""
    labels = {"app": "web"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": REPLICAS,
            "minReadySeconds": 1,
            "selector": {"matchLabels": labels},
            "strategy": {"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "web", "image": image}]},
            },
        },
    }


def alone() -> Json:
    spec = web("nginx:alone")["spec"]
    labels = {"app": "alone"}
    template = {**spec["template"], "metadata": {"labels": labels}}
    return {
        "metadata": {"name": "alone"},
        "spec": {"replicas": REPLICAS, "selector": {"matchLabels": labels}, "template": template},
    }


def roll(trio: Trio, image: str) -> str:
    """Begin a rollout; the name of its ReplicaSet once that has pods and not all of them."""
    patch = {"spec": {"template": web(image)["spec"]["template"]}}
    answer = trio.api.request("PATCH", DEPLOYMENT, patch, content_type=MERGE)
    if answer.status == 404:
        answer = trio.api.request("POST", DEPLOYMENT.rpartition("/")[0], web(image))
    assert answer.status in (200, 201), answer.body
    return eventually(lambda: _begun(trio.api, image), "the rollout has begun")


def _begun(api: Api, image: str) -> str | None:
    for found in api.get(SETS)["items"]:
        used = found["spec"]["template"]["spec"]["containers"][0]["image"]
        if used == image and found.get("status", {}).get("replicas"):
            return str(found["metadata"]["name"])
    return None


def done(api: Api, image: str) -> bool:
    found = api.get(DEPLOYMENT)
    status = found.get("status", {})
    counts = [status.get(name) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    current = status.get("observedGeneration") == found["metadata"]["generation"]
    used = found["spec"]["template"]["spec"]["containers"][0]["image"]
    return current and used == image and counts == [REPLICAS] * 3


def rows(source: Path, query: str) -> list[Json]:
    ran = CliRunner().invoke(commands, ["sql", query, "--format", "json", "--data", str(source)])
    assert ran.exit_code == 0, ran.output
    found: list[Json] = json.loads(ran.stdout)
    return found


def finished(trio: Trio, image: str) -> None:
    """The rollout ends as if nothing had been; nothing was made twice, and nobody wrote after its time."""
    eventually(lambda: done(trio.api, image), "the rollout is complete", 60.0)
    made = rows(
        trio.daemon.data,
        "SELECT json_extract(object, '$.metadata.ownerReferences[0].name') AS owner, count(*) AS pods,"
        " min(username) AS username FROM history WHERE kind = 'Pod' AND op = 'ADDED' GROUP BY 1",
    )
    assert {row["owner"]: row["pods"] for row in made} == dict.fromkeys((r["owner"] for r in made), REPLICAS)
    assert {row["username"] for row in made} == {"system:serviceaccount:kube-system:replicaset-controller"}
    sets = rows(
        trio.daemon.data,
        "SELECT json_extract(object, '$.spec.template.spec.containers[0].image') AS image, count(*) AS count"
        " FROM history WHERE kind = 'ReplicaSet' AND op = 'ADDED' GROUP BY 1",
    )
    assert [row["count"] for row in sets] == [1] * len(sets)
    check_turns(trio)


def check_turns(trio: Trio) -> None:
    """What a process wrote under its claim to the Lease is in the log before the Lease went to another one."""
    ends = turns(trio)
    wrote = 0
    for manager in trio.records():
        decisions = rows(
            manager.record,
            "SELECT controller, key, epoch, last_rv FROM decisions WHERE last_rv > 0 ORDER BY last_rv",
        )
        for decision in decisions:
            wrote += 1
            assert decision["last_rv"] < ends.get(decision["epoch"], 1 << 62), (manager.identity, decision)
    assert wrote > 0


def turns(trio: Trio) -> dict[int, int]:
    """Epoch -> the revision with which it ended, by release or by another holder."""
    found = rows(
        trio.daemon.data,
        "SELECT rv, json_extract(object, '$.spec.holderIdentity') AS holder,"
        " json_extract(object, '$.spec.leaseTransitions') AS epoch FROM history"
        " WHERE kind = 'Lease' AND name = 'kube-controller-manager' ORDER BY rv",
    )
    ends: dict[int, int] = {}
    for row in found:
        epoch = row["epoch"] or 0
        if not row["holder"]:
            ends.setdefault(epoch, row["rv"])
        elif epoch:
            ends.setdefault(epoch - 1, row["rv"])
    return ends


def fenced(api: Api) -> int:
    """How many creations of pods the API server has answered with 409 so far."""
    text = api.request("GET", "/metrics").body.decode()
    found = re.findall(r"^apiserver_request_total\{([^}]*)\} ([0-9.e+]+)$", text, re.M)
    wanted = ('code="409"', 'resource="pods"', 'verb="POST"', 'subresource=""')
    return int(sum(float(value) for labels, value in found if all(part in labels for part in wanted)))


def test_a_leader_that_stops_in_order_hands_over_at_once(trio: Trio) -> None:
    leader = trio.leader()
    roll(trio, "nginx:1")
    old = trio.managers[leader]
    started_s = time.monotonic()
    assert old.stop() == 0
    eventually(lambda: trio.lease()["holderIdentity"] not in ("", old.identity), "another one leads", 5.0)
    print(f"SIGTERM: handed over after {time.monotonic() - started_s:.1f} s")
    trio.replace(leader)
    finished(trio, "nginx:1")


def test_a_killed_leader_is_followed(trio: Trio) -> None:
    leader = trio.leader()
    roll(trio, "nginx:2")
    trio.managers[leader].kill()
    trio.handed_over(trio.managers[leader].identity, "SIGKILL")
    trio.replace(leader)
    finished(trio, "nginx:2")


def test_a_leader_that_was_frozen_and_goes_on_does_nothing_any_more(trio: Trio) -> None:
    leader = trio.leader()
    roll(trio, "nginx:3")
    old = trio.managers[leader]
    old.freeze()
    trio.handed_over(old.identity, "SIGSTOP")
    old.thaw()
    finished(trio, "nginx:3")
    eventually(lambda: "lost leadership" in old.log, "it knows that it does not lead", 10.0)
    assert trio.lease()["holderIdentity"] != old.identity
    assert "crashed" not in old.log


def test_a_leader_that_is_cut_off_is_followed(trio: Trio) -> None:
    leader = trio.leader()
    old = trio.managers[leader]
    roll(trio, "nginx:4")
    trio.proxies[leader].hold(("client", "server"))
    trio.handed_over(old.identity, "cut off")
    eventually(lambda: "lost leadership" in old.log, "it stops by itself", HAND_OVER_S)
    trio.proxies[leader].heal()
    finished(trio, "nginx:4")
    assert "crashed" not in old.log


def test_what_a_leader_wrote_that_nobody_heard_is_refused_when_it_arrives_late(trio: Trio) -> None:
    """It hears everything and nobody hears it: it decides on a ReplicaSet, and its first pod gets stuck on the way.

    By the time the pod arrives another one leads and has made all of them. It has a name of its own, so nothing but the
    fence tells that it is one too many.
    """
    leader = trio.leader()
    old = trio.managers[leader]
    roll(trio, "nginx:5")
    trio.proxies[leader].hold(("client",))
    assert trio.api.request("POST", SETS, alone()).status == 201
    trio.handed_over(old.identity, "not heard of")
    eventually(
        lambda: trio.api.get(f"{SETS}/alone")["status"].get("replicas") == REPLICAS, "all pods are there"
    )
    eventually(lambda: "lost leadership" in old.log, "it stops by itself", HAND_OVER_S)
    before = fenced(trio.api)
    trio.proxies[leader].heal()
    eventually(lambda: trio.proxies[leader].held == 0, "all has arrived")
    eventually(lambda: fenced(trio.api) > before, "what it had written late is refused", 10.0)
    finished(trio, "nginx:5")
    assert "crashed" not in old.log


def test_a_claim_that_does_not_hold_is_refused_by_the_server(trio: Trio) -> None:
    trio.leader()
    lease = trio.api.get(LEASE)
    spec = lease["spec"]
    claim = {
        "namespace": "kube-system", "name": "kube-controller-manager", "uid": lease["metadata"]["uid"],
        "holder": spec["holderIdentity"], "epoch": str(spec["leaseTransitions"]),
    }  # fmt: skip
    maps = "/api/v1/namespaces/default/configmaps"

    def write(name: str, changes: Mapping[str, str]) -> Json:
        headers = {"Kcp-Fence": urlencode({**claim, **changes})}
        answer: Json = trio.api.request("POST", maps, {"metadata": {"name": name}}, headers=headers).json()
        return answer

    assert write("held", {})["kind"] == "ConfigMap"
    for changes in ({"epoch": "99"}, {"holder": "somebody"}, {"uid": "another"}, {"name": "none"}):
        answer = write("late", changes)
        assert (answer["code"], answer["details"]["causes"][0]["reason"]) == (409, "LeaseFenced")
    assert write("late", {"epoch": "soon"})["reason"] == "BadRequest"
    assert trio.api.request("GET", f"{maps}/late").status == 404
