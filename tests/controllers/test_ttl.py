"""TTL: the annotation follows the size of the cluster, without swinging at a boundary."""

from __future__ import annotations

import pytest

from kcp.controllers.ttl import ANNOTATION, CONTROLLER, next_step
from kcp.machinery import meta
from tests.support.builders import node
from tests.support.planning import World, writes


@pytest.mark.parametrize(
    ("step", "size", "want"),
    [(0, 100, 0), (0, 101, 1), (1, 95, 1), (1, 89, 0), (1, 501, 2), (4, 1800, 4), (4, 1799, 3), (0, 5000, 4)],
)
def test_steps_overlap(step: int, size: int, want: int) -> None:
    assert next_step(step, size) == want


def test_a_node_is_annotated_once_and_again_when_the_cluster_grew() -> None:
    world = World(node("n0"))
    world.plan(CONTROLLER, "n0")
    assert meta.annotations(world.get("nodes", "n0"))[ANNOTATION] == "0"
    assert writes(world.plan(CONTROLLER, "n0")) == []
    for number in range(1, 101):
        world.put(node(f"n{number}"))
    world.plan(CONTROLLER, "n0")
    assert meta.annotations(world.get("nodes", "n0"))[ANNOTATION] == "15"


def test_the_step_survives_a_lost_memory() -> None:
    world = World(*(node(f"n{number}") for number in range(95)))
    current = world.get("nodes", "n0")
    world.put({**current, "metadata": {**current["metadata"], "annotations": {ANNOTATION: "15"}}})
    assert writes(world.plan(CONTROLLER, "n0")) == []
