"""The housekeeping controllers while requests fail, watches are cut and everything restarts: nothing is done twice."""

from __future__ import annotations

import base64
from collections import Counter
from typing import Any

import anyio
import pytest

from kcp.apis.semantics import pods as pod_facts
from kcp.base.certs import create_request, generate_key
from kcp.base.entropy import SeededEntropy
from kcp.client.client import Client
from kcp.client.transport import InProcessTransport, Unreachable
from kcp.controlplane.cluster import ADMIN, Cluster, ClusterOptions
from kcp.machinery import meta
from kcp.machinery.errors import ApiError, TooManyRequests
from kcp.machinery.quantity import parse
from kcp.replay.faults import Faults, FaultyTransport
from kcp.store.protocol import Event
from tests.controllers.test_housekeeping_cluster import claim, evict, signing_request, volume
from tests.support.builders import deployment, metadata
from tests.support.clusters import in_world

Json = dict[str, Any]
RATES = {
    "unreachable": 0.03,
    "error": 0.03,
    "conflict": 0.05,
    "lost-answer": 0.03,
    "slow": 0.05,
    "watch-cut": 0.05,
    "watch-delay": 0.05,
    "watch-expired": 0.02,
}
CLAIMS, VOLUMES = "persistentvolumeclaims", "persistentvolumes"
BUDGETS = "poddisruptionbudgets.policy"
COUNT = 6


class Watcher:
    """What must hold at every revision: a volume has one claim at most, and no quota is exceeded."""

    def __init__(self) -> None:
        self.claims: dict[str, str] = {}
        self.faults: list[str] = []

    def see(self, events: Any) -> None:
        for event in events:
            if event.key.resource == CLAIMS:
                self._claim(event)
            elif event.key.resource == "resourcequotas":
                self._quota(event.record.value)

    def _claim(self, event: Event) -> None:
        self.claims.pop(event.key.name, None)
        if event.op.name == "DELETED":
            return
        name = event.record.value["spec"].get("volumeName")
        if name:
            if name in self.claims.values():
                self.faults.append(f"{name} has two claims at {event.rv}")
            self.claims[event.key.name] = name

    def _quota(self, quota: Json) -> None:
        hard, used = quota["spec"]["hard"], quota.get("status", {}).get("used", {})
        over = [name for name, amount in used.items() if name in hard and parse(amount) > parse(hard[name])]
        if over:
            self.faults.append(f"quota exceeded: {over} at {quota['metadata']['resourceVersion']}")


async def trouble(cluster: Cluster, client: Client) -> None:
    """Users make everything at once, evict what they may, and the controllers are restarted twice."""
    key = generate_key(SeededEntropy(9))
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata("q")}
    hard = {"pods": "8", CLAIMS: "10", "requests.storage": f"{COUNT}Gi"}
    await client.create("resourcequotas", {**quota, "spec": {"hard": hard}}, "default")
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata("web")}
    budget["spec"] = {"minAvailable": "50%", "selector": {"matchLabels": {"app": "web"}}}
    await client.create(BUDGETS, budget, "default")
    await client.create("deployments.apps", deployment("web", replicas=5), "default")
    for number in range(COUNT):
        await client.create(VOLUMES, volume(f"v{number}"))
        await client.create(CLAIMS, claim(f"c{number}"), "default")
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(f"robot-{number}")}
        await client.create("serviceaccounts", account, "default")
        annotations = {"kubernetes.io/service-account.name": f"robot-{number}"}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata(f"t{number}", annotations=annotations),
        }
        await client.create("secrets", {**secret, "type": "kubernetes.io/service-account-token"}, "default")
        pem = create_request(key, f"user-{number}")
        usages = ["client auth"]
        made = signing_request(f"csr-{number}", "kubernetes.io/kube-apiserver-client", usages, pem)
        asked = (await client.create("certificatesigningrequests.certificates.k8s.io", made)).object
        condition = {"type": "Approved", "status": "True", "reason": "Ok", "message": "fine"}
        approved = {**asked, "status": {"conditions": [condition]}}
        await client.update(
            "certificatesigningrequests.certificates.k8s.io", approved, subresource="approval"
        )
    for round_ in range(4):
        await anyio.sleep(8)
        for pod in (await client.list("pods", "default")).items[:2]:
            try:
                await evict(client, meta.name(pod))
            except (TooManyRequests, ApiError, Unreachable):
                continue
        if round_ % 2:
            cluster.restart("kube-controller-manager")
    for number in range(0, COUNT, 2):
        await client.delete("serviceaccounts", f"robot-{number}", "default")


async def settled(client: Client) -> list[str]:
    """What is not as it must be once everything works again."""
    return [*await _storage(client), *await _counts(client), *await _identities(client)]


async def _storage(client: Client) -> list[str]:
    claims = {meta.name(c): c for c in (await client.list(CLAIMS, "default")).items}
    volumes = {meta.name(v): v for v in (await client.list(VOLUMES)).items}
    wrong = []
    for name, found in claims.items():
        if found["status"].get("phase") != "Bound":
            wrong.append(f"{name} is {found['status'].get('phase')}")
            continue
        holder = volumes[found["spec"]["volumeName"]]
        if holder["spec"]["claimRef"]["uid"] != meta.uid(found) or holder["status"]["phase"] != "Bound":
            wrong.append(f"{name} and {meta.name(holder)} disagree")
    return wrong


async def _counts(client: Client) -> list[str]:
    pods = (await client.list("pods", "default")).items
    quota = await client.get("resourcequotas", "q", "default")
    used = quota.get("status", {}).get("used", {})
    active = sum(not pod_facts.is_terminal(pod) for pod in pods)
    wrong = [] if used.get("pods") == str(active) else [f"quota says {used.get('pods')} of {active} pods"]
    wrong += [] if used.get("requests.storage") == f"{COUNT}Gi" else [f"quota says {used} of {COUNT}Gi"]
    status = (await client.get(BUDGETS, "web", "default"))["status"]
    healthy = sum(pod_facts.is_ready(pod) and not meta.is_deleting(pod) for pod in pods)
    expected = {"expectedPods": 5, "desiredHealthy": 3, "currentHealthy": healthy}
    wrong += [f"budget says {status}" for field, value in expected.items() if status.get(field) != value]
    return wrong


async def _identities(client: Client) -> list[str]:
    secrets = Counter(
        bool(s.get("data", {}).get("token"))
        for s in (await client.list("secrets", "default")).items
        if s.get("type") == "kubernetes.io/service-account-token"
    )
    wrong = [] if secrets == Counter({True: COUNT // 2}) else [f"tokens: {secrets}"]
    for asked in (await client.list("certificatesigningrequests.certificates.k8s.io")).items:
        if not base64.b64decode(asked.get("status", {}).get("certificate", "")):
            wrong.append(f"{meta.name(asked)} is not signed")
    return wrong


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_everything_converges_after_the_trouble(seed: int) -> None:
    watcher = Watcher()

    async def run(clock: Any, build: Any) -> None:
        faults = Faults(seed, RATES, clock)

        def wrap(inner: InProcessTransport) -> FaultyTransport:
            return FaultyTransport(inner, faults, watcher.faults.append)

        cluster = build(ClusterOptions(nodes=2, wrap_transport=wrap))
        cluster.store.listen(watcher.see)
        user = Client(InProcessTransport(cluster.handler, ADMIN), cluster.catalog)
        async with anyio.create_task_group() as group:
            await group.start(cluster.run)
            faults.start()
            await trouble(cluster, user)
            faults.heal()
            with anyio.move_on_after(600):
                while await settled(user):
                    await anyio.sleep(5)
            assert await settled(user) == []
            group.cancel_scope.cancel()

    in_world(run, seed)
    assert watcher.faults == []
