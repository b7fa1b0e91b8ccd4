"""A cluster in a thread: what its blocking client, its SQL and its end are like."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kcp.client.kubeconfig import connect, load
from kcp.client.transport import Unreachable
from kcp.machinery.errors import Conflict, NotFound
from kcp.store.query import QueryFailed
from kcp.testing import ServedCluster, serve
from kcp.wire.http import Request
from tests.support.builders import deployment

Json = dict[str, Any]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedCluster]:
    with serve(tmp_path_factory.mktemp("cluster"), nodes=2, node_cpu="2") as cluster:
        yield cluster


def config_map(name: str, **data: str) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def test_nodes_are_ready_and_as_large_as_asked(served: ServedCluster) -> None:
    nodes = served.client.list("nodes")
    assert [node["status"]["capacity"]["cpu"] for node in nodes] == ["2", "2"]
    ready = [c["status"] for node in nodes for c in node["status"]["conditions"] if c["type"] == "Ready"]
    assert ready == ["True", "True"]


def test_verbs_on_an_object(served: ServedCluster) -> None:
    client = served.client
    made = client.create(config_map("a", x="1"))
    assert made["metadata"]["namespace"] == "default"
    made["data"]["x"] = "2"
    changed = client.update(made)
    with pytest.raises(Conflict):
        client.update(made)
    assert changed["data"] == {"x": "2"}
    assert client.patch("ConfigMap", "a", {"data": {"y": "3"}})["data"] == {
        "x": "2",
        "y": "3",
    }
    with pytest.raises(Conflict):
        client.apply(config_map("a", x="4"))
    assert client.apply(config_map("a", x="4"), force=True)["data"] == {"x": "4", "y": "3"}
    client.delete("configmaps", "a")
    with pytest.raises(NotFound):
        client.get("configmaps", "a")


def test_answers_are_copies(served: ServedCluster) -> None:
    served.client.get("namespaces", "default")["metadata"].clear()
    assert served.client.get("namespaces", "default")["metadata"]["name"] == "default"


def test_an_object_goes_to_the_version_it_names(served: ServedCluster) -> None:
    scaler: Json = {
        "apiVersion": "autoscaling/v1",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web"},
        "spec": {
            "maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        },
    }
    assert served.client.create(scaler)["apiVersion"] == "autoscaling/v1"


def test_what_nobody_serves(served: ServedCluster) -> None:
    with pytest.raises(NotFound):
        served.client.list("unicorns")
    with pytest.raises(NotFound):
        served.client.create({"apiVersion": "example.com/v1", "kind": "Unicorn", "metadata": {"name": "a"}})


def test_waiting_for_what_controllers_and_nodes_do(served: ServedCluster) -> None:
    served.client.create(deployment("web", replicas=2))
    served.client.wait_for(lambda: served.client.get("Deployment", "web")["status"].get("readyReplicas") == 2)
    rows = served.sql("SELECT phase, node FROM pods WHERE ns = ? ORDER BY node", "default")
    assert rows == [{"phase": "Running", "node": "node-1"}, {"phase": "Running", "node": "node-2"}]


def test_waiting_in_vain_tells_what_was_last(served: ServedCluster) -> None:
    with pytest.raises(TimeoutError, match=r"within 0\.05 s; it last gave NotFound.*nobody"):
        served.client.wait_for(lambda: served.client.get("pods", "nobody"), timeout_s=0.05)
    with pytest.raises(TimeoutError, match=r"it last gave 0"):
        served.client.wait_for(lambda: 0, timeout_s=0.05)


def test_sql_only_reads(served: ServedCluster) -> None:
    with pytest.raises(QueryFailed):
        served.sql("DELETE FROM head")


async def test_clusters_are_apart_and_end(tmp_path: Path) -> None:
    with serve(tmp_path / "one", nodes=0) as one, serve(tmp_path / "two", nodes=0) as two:
        one.client.create(config_map("only-in-one"))
        with pytest.raises(NotFound):
            two.client.get("configmaps", "only-in-one")
        assert one.url != two.url
        ca = [(each.directory / "pki" / "ca.crt").read_bytes() for each in (one, two)]
        assert ca[0] != ca[1]
        one.stop()
        one.stop()
        transport = connect(load([one.kubeconfig]))
        with pytest.raises(Unreachable):
            await transport.request(Request("GET", "/version"), 5.0)
        await transport.close()
        assert one.sql("SELECT name FROM state WHERE name = ?", "only-in-one") == [{"name": "only-in-one"}]
        assert two.client.get("namespaces", "default")


def test_what_a_test_raises_is_what_arrives(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), serve(tmp_path, nodes=0):
        print(1 / 0)


def test_a_directory_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with serve(tmp_path, nodes=1) as first:
        first.client.create(config_map("kept", x="1"))
    with serve(tmp_path, nodes=1) as second:
        assert second.client.get("configmaps", "kept")["data"] == {"x": "1"}
