"""`kcp fit` against what really happens: so many pods are bound, on these nodes, and the next one waits with this text."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest

from kcp.client.client import Client
from kcp.controlplane.cluster import ClusterOptions
from kcp.replay.fitting import Fitted, documents_of, fit_documents
from kcp.replay.incident import Incident
from kcp.scheduler.profiles import parse_configuration
from tests.replay.placements import record
from tests.scheduler.harness import condition, node, pod

Json = dict[str, Any]
ZONE = "topology.kubernetes.io/zone"
CREATED = 25
SPREAD: Json = {
    "maxSkew": 1,
    "topologyKey": ZONE,
    "whenUnsatisfiable": "DoNotSchedule",
    "labelSelector": {"matchLabels": {"app": "spread"}},
}
LIMITS: Json = {
    "apiVersion": "v1",
    "kind": "LimitRange",
    "metadata": {"name": "limits"},
    "spec": {"limits": [{"type": "Container", "defaultRequest": {"cpu": "900m"}}]},
}


def kinds() -> dict[str, Json]:
    """What is asked about, by name. `defaulted` gets its request from the namespace's LimitRange."""
    found = {
        "plain": pod("plain", cpu="700m"),
        "defaulted": pod("defaulted"),
        "spread": pod("spread", cpu="500m", labels={"app": "spread"}, topologySpreadConstraints=[SPREAD]),
        "port": pod("port"),
    }
    found["defaulted"]["spec"]["containers"][0]["resources"] = {}
    found["port"]["spec"]["containers"][0]["ports"] = [{"containerPort": 80, "hostPort": 8080}]
    return found


def write_log(file: Path) -> dict[str, int]:
    """Each kind in turn: many are created, and deleted again, those that wait first. The revisions before each."""
    asked_at: dict[str, int] = {}

    async def story(client: Client) -> None:
        await client.create("limitranges", LIMITS, "default")
        for name, zone, cpu in (("a", "east", "4"), ("b", "west", "3"), ("c", "west", "2")):
            await client.create("nodes", node(name, labels={ZONE: zone}, allocatable={"cpu": cpu}))
            await client.patch("nodes", name, {"spec": {"taints": None}}, "merge")
        for number in range(3):
            await client.create("pods", pod(f"other-{number}", cpu="300m"), "default")
        await anyio.sleep(3)
        for name, wanted in kinds().items():
            asked_at[name] = (await client.list("pods", "default")).rv
            for number in range(CREATED):
                named = {**wanted["metadata"], "name": f"{name}-{number}"}
                await client.create("pods", {**wanted, "metadata": named}, "default")
            await anyio.sleep(5)
            for number in reversed(range(CREATED)):
                await client.delete("pods", f"{name}-{number}", "default", grace_s=0)
            await anyio.sleep(3)

    record(file, story, ClusterOptions(controllers=()))
    return asked_at


Recorded = tuple[Path, dict[str, int]]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    file = tmp_path_factory.mktemp("fitting") / "log.kcp"
    return file, write_log(file)


def what_happened(incident: Incident, name: str) -> tuple[dict[str, int], set[str]]:
    """Of the pods of a kind: (how many each node got, what was said of the others)."""
    last = {
        step.key: step.record.value
        for step in incident.log.steps["pods"]
        if step.key.startswith(f"default/{name}-") and step.record is not None
    }
    assert len(last) == CREATED
    nodes = Counter(obj["spec"]["nodeName"] for obj in last.values() if obj["spec"].get("nodeName"))
    return dict(nodes), {condition(obj)[2] for obj in last.values() if not obj["spec"].get("nodeName")}


def fitted(incident: Incident, document: Json, **options: Any) -> Fitted:
    (found,) = fit_documents(incident, [document], **options)
    return found


@pytest.mark.parametrize("name", list(kinds()))
def test_so_many_are_bound_there_and_the_next_one_waits_with_that_text(recorded: Recorded, name: str) -> None:
    file, asked_at = recorded
    with Incident.open(file) as incident:
        found = fitted(incident, kinds()[name], at=asked_at[name])
        nodes, texts = what_happened(incident, name)
    assert {node: count for node, count in found.fit.placed.items() if count} == nodes
    assert 0 < found.fit.count < CREATED
    assert texts == {found.fit.text}


def test_templates_are_asked_about_as_their_pods(recorded: Recorded) -> None:
    file, asked_at = recorded
    spec = kinds()["plain"]["spec"]
    template = {"metadata": {"labels": {"app": "x"}}, "spec": spec}
    owned = {"selector": {"matchLabels": {"app": "x"}}, "template": template}
    documents: list[Json] = [
        {"kind": kind, "metadata": {"name": "x"}, "spec": owned}
        for kind in ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job")
    ]
    documents.append({"kind": "CronJob", "metadata": {"name": "x"}, "spec": {"jobTemplate": {"spec": owned}}})
    documents.append({"kind": "Service", "metadata": {"name": "x"}, "spec": {}})
    with Incident.open(file) as incident:
        at = asked_at["plain"]
        alone = fitted(incident, kinds()["plain"], at=at).fit.count
        found = list(fit_documents(incident, documents, at=at))
    assert [each.kind for each in found] == [document["kind"] for document in documents[:-1]]
    assert {each.fit.count for each in found} == {alone}


def test_another_moment_and_another_configuration(recorded: Recorded) -> None:
    file, asked_at = recorded
    document = parse_configuration({
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "profiles": [{"plugins": {"filter": {"disabled": [{"name": "NodePorts"}]}}}],
    })  # fmt: skip
    with Incident.open(file) as incident:
        rows = incident.decisions_of("default-scheduler")
        crowded = max(row[1]["pods"] for row in rows if row[0].key.startswith("default/plain-"))
        assert fitted(incident, kinds()["plain"], at=crowded).fit.count == 0
        assert fitted(incident, kinds()["port"], at=asked_at["port"]).fit.count == 3
        free = fitted(incident, kinds()["port"], at=asked_at["port"], configuration=document)
    assert free.fit.count > 3


def test_more_of_a_pod_that_runs(recorded: Recorded) -> None:
    file, asked_at = recorded
    with Incident.open(file) as incident:
        running = next(
            step.record.value
            for step in incident.log.steps["pods"]
            if step.key == "default/plain-0"
            and step.record is not None
            and step.record.value["spec"].get("nodeName")
        )
        found = fitted(incident, running, at=asked_at["plain"])
        assert found.fit.count == fitted(incident, kinds()["plain"], at=asked_at["plain"]).fit.count


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"kind": "Service", "metadata": {"name": "x"}}, "nothing in it that makes pods"),
        ({"kind": "Deployment", "metadata": {"name": "x"}, "spec": {}}, "Deployment 'x' has no pod template"),
        (pod("x", nodeName="a"), "Pod 'x' names its node"),
        (pod("x", schedulerName="mine"), "the pod asks for scheduler 'mine'; there is default-scheduler"),
        (pod("x", priorityClassName="no"), "no PriorityClass with name no was found"),
        (pod("x", restartPolicy="Sometimes"), 'Unsupported value: "Sometimes"'),
    ],
)
def test_what_cannot_be_asked_is_said(recorded: Recorded, document: Json, text: str) -> None:
    with Incident.open(recorded[0]) as incident, pytest.raises(ValueError, match=text):
        list(fit_documents(incident, [document]))


def test_documents_of_a_file() -> None:
    text = "# first\n---\nkind: Pod\n---\nkind: List\nitems:\n- kind: Job\n- kind: Pod\n--- # end\n"
    assert [document["kind"] for document in documents_of(text)] == ["Pod", "Job", "Pod"]
    for wrong in ("a: [", "just text", "apiVersion: v1"):
        with pytest.raises(ValueError):
            documents_of(wrong)
