"""What `--nodes` means."""

from __future__ import annotations

from pathlib import Path

import pytest

from kcp.machinery import meta
from kcp.replay.whatif.arrivals import Change
from kcp.replay.whatif.machines import parse_machines
from tests.replay.whatif.hand_made import Script
from tests.scheduler.harness import node

NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
ARRIVALS = Script().node("n-2", "1").node("n-10", "1").node("n-9", "1").arrivals(1)


def test_numbers_and_names() -> None:
    assert not parse_machines([], ARRIVALS)
    assert parse_machines(["+2"], ARRIVALS).copies == ("n-11", "n-12")
    assert parse_machines(["5"], ARRIVALS).copies == ("n-11", "n-12")
    assert parse_machines(["1"], ARRIVALS).without == {"n-9", "n-10"}
    both = parse_machines(["-n-9,+1", "-n-2"], ARRIVALS)
    assert both.without == {"n-9", "n-2"} and (both.copies, both.like) == (("n-11",), "n-10")


@pytest.mark.parametrize(
    ("text", "says"),
    [("-n-7", "there is no node 'n-7'"), ("more", "'more' says nothing about nodes"), ("+x", "says nothing")],
)
def test_what_is_not_meant(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_machines([text], ARRIVALS)
    with pytest.raises(ValueError, match="no node that new ones could be like"):
        parse_machines(["+1"], Script().arrivals(1))


def test_a_new_node_follows_the_one_it_is_like_until_that_is_ready() -> None:
    machines = parse_machines(["+1"], ARRIVALS)
    fresh, ready = node("n-10", taints=[NOT_READY]), node("n-10")
    cordoned = {**ready, "spec": {"unschedulable": True}}
    known: set[str] = set()
    seen = []
    for old, new in ((None, fresh), (fresh, ready), (ready, cordoned), (cordoned, None)):
        found = list(machines.versions(Change(1, 0, "nodes", old, new), known))
        seen.append([meta.name(now or before or {}) for before, now in found])
    assert seen == [["n-11", "n-10"], ["n-11", "n-10"], ["n-10"], ["n-10"]]
    (_, copy), _ = machines.versions(Change(1, 0, "nodes", None, fresh), set())
    assert copy is not None and meta.labels(copy)["kubernetes.io/hostname"] == "n-11"


def test_nodes_of_a_file_are_as_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "nodes.yaml"
    file.write_text(
        "apiVersion: v1\nkind: Node\nmetadata: {name: n-2, labels: {disk: ssd}}\nstatus: {capacity: {cpu: 8, pods: 10}}\n"
        "---\nkind: Node\nmetadata: {name: new}\nstatus: {allocatable: {cpu: 2}}\n"
    )
    machines = parse_machines([str(file)], ARRIVALS)
    assert [meta.name(each) for each in machines.at_start] == ["n-2", "new"]
    assert machines.given["n-2"]["status"]["allocatable"] == {"cpu": 8, "pods": 10}
    assert list(machines.versions(Change(1, 0, "nodes", None, node("n-2")), set())) == []
    for wrong in ("kind: Pod\nmetadata: {name: x}", "kind: Node\nmetadata: {name: x}"):
        file.write_text(wrong)
        with pytest.raises(ValueError, match=str(file)):
            parse_machines([str(file)], ARRIVALS)
