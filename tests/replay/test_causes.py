"""`kcp why`: stories of objects, told from a log of a cluster that played them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest
from click.testing import CliRunner

from kcp.cli.export import command as export
from kcp.cli.why import command
from kcp.client.client import Client
from kcp.controlplane.cluster import ClusterOptions
from kcp.replay import causes
from kcp.store import history
from tests.replay.placements import record
from tests.support.builders import deployment

Json = dict[str, Any]
DEPLOYMENTS = "deployments.apps"


async def play(client: Client) -> None:
    """web: three pods, a new image, one pod more, a tainted node, a pod deleted by hand. big fits nowhere, goes again."""
    await anyio.sleep(5)
    await client.create(DEPLOYMENTS, deployment("web", replicas=3, image="web:1"), "default")
    await anyio.sleep(10)
    await client.patch(DEPLOYMENTS, "web", {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "web:2"}]}}}}, "strategic", "default")  # fmt: skip
    await anyio.sleep(20)
    await client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 4}}, "merge", "default")
    await anyio.sleep(10)
    big = deployment("big", replicas=1)
    big["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "64"}}
    await client.create(DEPLOYMENTS, big, "default")
    await anyio.sleep(10)
    taint = {"key": "broken", "effect": "NoExecute"}
    await client.patch("nodes", "node-1", {"spec": {"taints": [taint]}}, "merge")
    await anyio.sleep(60)
    await client.create(
        "configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}, "default"
    )
    await client.create("namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gone"}})
    await client.create(
        "configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}, "gone"
    )
    await client.delete("namespaces", "gone")
    await client.delete(DEPLOYMENTS, "big", "default")
    pods = (await client.list("pods", "default", label_selector="app=web")).items
    newest = max(
        (p["metadata"]["creationTimestamp"], p["metadata"]["name"])
        for p in pods
        if p["spec"]["nodeName"] == "node-2"
    )
    await client.delete("pods", newest[1], "default")
    await anyio.sleep(60)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("why") / "log.kcp"
    record(file, play, ClusterOptions(nodes=3))
    return str(file)


def names(log: str, kind: str, prefix: str) -> list[str]:
    """Objects of a kind in the order in which they were created."""
    with history.reader(log) as connection:
        number = history.find_kinds(connection, kind)[0][0]
        rows = connection.exec_driver_sql(
            f"SELECT name FROM objects WHERE kind_id = {number} AND name LIKE '{prefix}%' ORDER BY oid"
        )
        return [name for (name,) in rows]


def story(log: str, target: str, *arguments: str) -> list[str]:
    """State, then a line per link: who, what; hashes and random names are blanked."""
    done = CliRunner().invoke(command, [target, "--data", log, "--format", "json", *arguments])
    assert done.exit_code == 0, done.output
    told = orjson.loads(done.output)
    assert told["missing"] == ""
    assert [link["rv"] for link in told["links"]] == sorted(
        {link["rv"] for link in told["links"]}, reverse=True
    )
    lines = [told["state"], *(f"{link['who']} {link['what']}" for link in told["links"])]
    return [re.sub(r"(web|big)-[0-9a-z]+(-[0-9a-z]{5})?", r"\1-…", line) for line in lines]


NEW_IMAGE = (
    "kubernetes-admin through kcp changed deployment default/web: "
    "~ spec.template.spec.containers[name=main].image: web:1 → web:2"
)
TAINTED = (
    'kubernetes-admin through kcp changed node node-1: + spec.taints: [{"effect":"NoExecute","key":"broken"}]'
)


def test_a_pod_of_a_rollout_goes_back_to_the_new_image(log: str) -> None:
    assert story(log, f"pod/{names(log, 'pods', 'web')[4]}") == [
        "pod default/web-… is Running and ready on node-3",
        "node-3 reported pod default/web-… Running and ready",
        "the scheduler put pod default/web-… on node-3: score 596 was the highest of 3 nodes that could take it",
        "replicaset-controller created pod default/web-… for replicaset default/web-…, which wanted 2 and had 1",
        "deployment-controller changed replicaset default/web-…: ~ spec.replicas: 1 → 2",
        NEW_IMAGE,
    ]


def test_the_first_pod_of_a_new_replicaset(log: str) -> None:
    assert story(log, f"pod/{names(log, 'pods', 'web')[3]}")[-3:] == [
        "replicaset-controller created pod default/web-… for replicaset default/web-…, which wanted 1 and had 0",
        "deployment-controller created replicaset default/web-… for deployment default/web",
        NEW_IMAGE,
    ]


def test_a_pod_that_made_room_for_the_new_image(log: str) -> None:
    assert story(log, f"pod/{names(log, 'pods', 'web')[0]}")[1:] == [
        "node-2 removed pod default/web-…",
        "replicaset-controller asked for the deletion of pod default/web-… for replicaset default/web-…, which wanted 2 and had 3",
        "deployment-controller changed replicaset default/web-…: ~ spec.replicas: 3 → 2",
        NEW_IMAGE,
    ]


def test_a_pod_that_a_taint_drove_out(log: str) -> None:
    assert story(log, f"pod/{names(log, 'pods', 'web')[5]}")[1:] == [
        "node-1 removed pod default/web-…",
        "taint-eviction-controller asked for the deletion of pod default/web-…",
        TAINTED,
    ]


def test_a_pod_that_replaces_a_deleted_one(log: str) -> None:
    assert story(log, f"pod/{names(log, 'pods', 'web')[-1]}")[-2:] == [
        "replicaset-controller created pod default/web-… for replicaset default/web-…, which wanted 4 and had 3",
        "kubernetes-admin through kcp asked for the deletion of pod default/web-…",
    ]


def test_pending_is_told_in_the_schedulers_words(log: str) -> None:
    pod = names(log, "pods", "big")[0]
    with history.reader(log) as connection:
        found = history.versions(connection, "pods", "default", pod)
        refused = next(v.rv for v in found if v.verb == "changed")
    assert story(log, f"pod/{pod}", "--at", str(refused)) == [
        "pod default/big-… is Pending",
        "the scheduler finds no place for it: 0/3 nodes are available: 3 Insufficient cpu. no new claims to deallocate, "
        "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.",
        "replicaset-controller created pod default/big-… for replicaset default/big-…, which wanted 1 and had 0",
        "deployment-controller created replicaset default/big-… for deployment default/big",
        "kubernetes-admin through kcp created deployment default/big",
    ]


def test_what_the_garbage_collector_removed(log: str) -> None:
    assert story(log, f"pod/{names(log, 'pods', 'big')[0]}")[1:] == [
        "garbage-collector-controller removed pod default/big-…",
        "garbage-collector-controller removed replicaset default/big-…",
        "kubernetes-admin through kcp removed deployment default/big",
    ]


def test_what_went_with_its_namespace(log: str) -> None:
    told = story(log, "cm/c", "-n", "gone")
    assert told[0].startswith("configmap gone/c is gone since revision ")
    assert told[1:] == [
        "namespace-controller removed configmap gone/c",
        "kubernetes-admin through kcp asked for the deletion of namespace gone",
    ]


def test_an_object_that_nobody_else_touched(log: str) -> None:
    told = ["configmap default/c is there", "kubernetes-admin through kcp created configmap default/c"]
    assert story(log, "configmaps/c") == told


def test_the_wishes_of_a_deployment(log: str) -> None:
    assert story(log, "deploy/web") == [
        "deployment default/web has 4 of 4 replicas ready",
        "kubernetes-admin through kcp changed deployment default/web: ~ spec.replicas: 3 → 4",
        NEW_IMAGE,
        "kubernetes-admin through kcp created deployment default/web",
    ]


def test_an_export_tells_the_same_and_says_where_it_ends(log: str, tmp_path: Path) -> None:
    pod = names(log, "pods", "web")[4]
    whole = CliRunner().invoke(command, [f"pod/{pod}", "--data", log]).output
    copy, tail = str(tmp_path / "all.kcp"), str(tmp_path / "tail.kcp")
    assert CliRunner().invoke(export, [copy, "--data", log]).exit_code == 0
    assert CliRunner().invoke(command, [f"pod/{pod}", "--data", copy]).output == whole
    with history.reader(log) as connection:
        newest = history.versions(connection, "pods", "default", pod)[-1].rv
    assert CliRunner().invoke(export, [tail, "--data", log, "--from", str(newest + 1)]).exit_code == 0
    told = CliRunner().invoke(command, [f"pod/{pod}", "--data", tail]).output.splitlines()
    assert told[0] == f"pod default/{pod} is Running and ready on node-3"
    assert told[-1] == "the log does not reach further back"


def test_what_was_never_there_is_one_line(log: str) -> None:
    done = CliRunner().invoke(command, ["pod/nobody", "--data", log])
    assert (done.exit_code, done.output) == (1, 'Error: the log has no pods "nobody" at that moment\n')
    assert CliRunner().invoke(command, ["pod", "--data", log]).exit_code == 2
    assert CliRunner().invoke(command, ["pod", "a", "b", "--data", log]).exit_code == 2


def test_kind_and_name_may_be_two_words(log: str) -> None:
    one, two = (
        CliRunner().invoke(command, [*target, "--data", log]) for target in (["ns/gone"], ["ns", "gone"])
    )
    assert one.exit_code == two.exit_code == 0 and one.output == two.output


def test_an_export_without_the_wish_says_that_it_ends(log: str, tmp_path: Path) -> None:
    pod, tail = names(log, "pods", "web")[4], str(tmp_path / "tail.kcp")
    with history.reader(log) as connection:
        born = history.versions(connection, "pods", "default", pod)[0].rv
    assert CliRunner().invoke(export, [tail, "--data", log, "--from", str(born)]).exit_code == 0
    told = CliRunner().invoke(command, [f"pod/{pod}", "--data", tail]).output.splitlines()
    assert "replicaset-controller created pod" in told[-2]
    assert told[-1] == "the log does not reach further back"


def test_a_long_story_says_that_it_is_cut(log: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causes, "MAX_LINKS", 1)
    told = CliRunner().invoke(command, ["deploy/web", "--data", log]).output.splitlines()
    assert len(told) == 3 and told[-1] == "older changes are left out"


def test_lines_carry_revision_time_and_decision(log: str) -> None:
    line = CliRunner().invoke(command, ["ns/gone", "--data", log]).output.splitlines()[1]
    assert re.fullmatch(
        r"  rv \d+ +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  namespace-controller removed namespace gone  \[decision \d+\]",
        line,
    )
