from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.client.cache.indexer import Indexer, Tally, by_namespace
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


def test_names_share_the_index_of_one_function() -> None:
    asked: list[str] = []

    def counted(obj: Json) -> list[str]:
        asked.append(obj["metadata"]["name"])
        return by_node(obj)

    indexer = Indexer({"a/node": counted})
    indexer.add_indexers({"b/node": counted})
    indexer.put(pod("x", node="n1"))
    assert asked == ["x"]
    assert indexer.index("a/node", "n1") == indexer.index("b/node", "n1") == indexer.list()
    indexer.replace([pod("y", node="n1"), pod("z")], 7)
    assert indexer.index_keys("b/node", "n1") == ("default/y",)
    assert indexer.count() == 2


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


def phase(obj: Json) -> str:
    return str(obj["metadata"]["labels"].get("phase", ""))


PODS = st.builds(
    lambda name, node, phase: pod(name, node=node, phase=phase),
    st.sampled_from("abcde"),
    st.sampled_from(["", "n1", "n2"]),
    st.sampled_from(["Running", "Failed"]),
)
STEPS = st.lists(st.one_of(PODS, st.sampled_from("abcde"), st.lists(PODS, max_size=3)), max_size=20)


@given(STEPS)
def test_a_tally_counts_what_a_look_at_every_object_would(steps: list[Any]) -> None:
    indexer = Indexer({"node": by_node})
    indexer.add_tallies({"phases": Tally(by_node, phase)})
    for step in steps:
        if isinstance(step, dict):
            indexer.put(step)
        elif isinstance(step, str):
            indexer.remove(f"default/{step}")
        else:
            indexer.replace(step, 1)
        for node in ("n1", "n2", "n3"):
            looked: dict[str, int] = {}
            for obj in indexer.index("node", node):
                looked[phase(obj)] = looked.get(phase(obj), 0) + 1
            assert indexer.tally("phases", node) == looked


def test_a_tally_that_is_added_later_counts_what_is_there() -> None:
    indexer = Indexer()
    indexer.put(pod("a", node="n1", phase="Running"))
    indexer.add_tallies({"one/phases": Tally(by_node, phase)})
    indexer.add_tallies({"other/phases": Tally(by_node, phase)})
    indexer.put(pod("b", node="n1", phase="Running"))
    assert indexer.tally("one/phases", "n1") == indexer.tally("other/phases", "n1") == {"Running": 2}
    with pytest.raises(KeyError):
        indexer.tally("undeclared", "n1")


@given(st.lists(st.text("abc", min_size=1, max_size=4), unique=True))
def test_keys_are_in_order_whatever_order_the_objects_come_in(names: list[str]) -> None:
    indexer = Indexer({"all": lambda obj: ("x",)})
    for name in names:
        indexer.put({"metadata": {"name": name, "namespace": "n"}})
    wanted = [f"n/{name}" for name in sorted(names)]
    assert list(indexer.keys()) == wanted == list(indexer.index_keys("all", "x"))
    assert [obj["metadata"]["name"] for obj in indexer.list("n")] == sorted(names)
