from __future__ import annotations

from typing import Any

import pytest

from kcp.client.cache.indexer import Indexer, by_namespace
from kcp.client.cache.lister import Lister
from kcp.machinery.errors import NotFound
from kcp.machinery.labels import parse_selector

Json = dict[str, Any]


def pod(name: str, namespace: str = "default", node: str = "", **labels: str) -> Json:
    return {"metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": {"nodeName": node}}


def by_node(obj: Json) -> list[str]:
    return [obj["spec"]["nodeName"]] if obj["spec"]["nodeName"] else []


def test_objects_are_found_by_key_namespace_and_index_in_key_order() -> None:
    indexer = Indexer({"node": by_node, "namespace": by_namespace})
    for name, namespace, node in (("b", "x", "n1"), ("a", "x", "n1"), ("c", "y", "n2"), ("d", "x", "")):
        assert indexer.put(pod(name, namespace, node)) is None
    names = [obj["metadata"]["name"] for obj in indexer.list()]
    assert names == ["a", "b", "d", "c"]
    assert [o["metadata"]["name"] for o in indexer.index("node", "n1")] == ["a", "b"]
    assert indexer.index_values("node") == ["n1", "n2"]
    assert indexer.index("namespace", "y") == indexer.list("y")
    moved = pod("a", "x", "n2")
    assert indexer.put(moved) == pod("a", "x", "n1")
    assert indexer.index_keys("node", "n2") == ("x/a", "y/c")
    assert indexer.remove("x/a") is moved
    assert indexer.remove("x/a") is None
    assert indexer.index_keys("node", "n2") == ("y/c",)
    assert "x/a" not in indexer
    assert len(indexer) == 3


def test_indexes_can_be_added_later_but_not_changed() -> None:
    indexer = Indexer()
    indexer.put(pod("a", node="n1"))
    indexer.add_indexers({"node": by_node})
    indexer.add_indexers({"node": by_node})
    assert [o["metadata"]["name"] for o in indexer.index("node", "n1")] == ["a"]
    with pytest.raises(ValueError, match="indexer conflict: node"):
        indexer.add_indexers({"node": by_namespace})
    with pytest.raises(KeyError):
        indexer.index("undeclared", "x")


def test_replace_is_the_new_list_and_nothing_else() -> None:
    indexer = Indexer({"node": by_node})
    indexer.put(pod("a", node="n1"))
    indexer.replace([pod("b", node="n1"), pod("c")], 42)
    assert (indexer.keys(), indexer.rv) == (["default/b", "default/c"], 42)
    assert indexer.index_keys("node", "n1") == ("default/b",)


def test_a_lister_reads_by_namespace_name_and_selector() -> None:
    indexer = Indexer()
    for name, namespace, app in (("a", "x", "web"), ("b", "x", "db"), ("c", "y", "web")):
        indexer.put(pod(name, namespace, app=app))
    lister = Lister("pods", indexer)
    assert lister.get("a", "x")["metadata"]["name"] == "a"
    assert lister.find("a", "y") is None
    selected = lister.list("x", parse_selector("app=web"))
    assert [o["metadata"]["name"] for o in selected] == ["a"]
    assert len(lister.list(None, parse_selector("app=web"))) == 2
    with pytest.raises(NotFound, match=r'deployments\.apps "web" not found'):
        Lister("deployments.apps", Indexer()).get("web", "default")
