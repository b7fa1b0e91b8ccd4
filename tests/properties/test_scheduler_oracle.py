"""The vectorised scheduler decides what the slow one decides: node, total, ties, and every node's first reason.

Set KCP_ORACLE_SEEDS to look at more random clusters.
"""

from __future__ import annotations

import os
from collections import Counter
from random import Random
from typing import Any

import attrs
import pytest

from kcp.scheduler import profiles, reference
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.cycle import decide
from kcp.scheduler.framework.runtime import Framework
from tests.properties import scheduler_worlds as worlds

Json = dict[str, Any]
SEEDS = int(os.environ.get("KCP_ORACLE_SEEDS", "40"))
PODS = 30


@attrs.define
class Pair:
    """The same cluster, told to both."""

    rng: Random
    world: reference.World = attrs.field(factory=lambda: reference.World([], []))
    state: ClusterState = attrs.field(factory=ClusterState)
    framework: Framework = attrs.field(init=False)
    number: int = 0

    def __attrs_post_init__(self) -> None:
        self.framework = profiles.build(self.state, profiles.Profile())

    def set_namespace(self, name: str, labels: dict[str, str]) -> None:
        self.world.namespaces[name] = labels
        self.state.apply("namespaces", None, {"metadata": {"name": name, "labels": labels}})

    def add_node(self, name: str) -> None:
        self.remove_node(name)
        made = worlds.node(self.rng, name)
        self.world.nodes.append(made)
        self.state.apply("nodes", None, made)

    def change_node(self, name: str) -> None:
        old = next(n for n in self.world.nodes if n["metadata"]["name"] == name)
        new = worlds.node(self.rng, name)
        self.world.nodes[self.world.nodes.index(old)] = new
        self.state.apply("nodes", old, new)

    def remove_node(self, name: str) -> None:
        for old in [n for n in self.world.nodes if n["metadata"]["name"] == name]:
            self.world.nodes.remove(old)
            self.state.apply("nodes", old, None)

    def add_extras(self) -> None:
        for namespace in worlds.NAMESPACES:
            for app in worlds.APPS:
                if self.rng.random() < 0.5:
                    made = worlds.service(namespace, app)
                    self.world.services.append(made)
                    self.state.apply("services", None, made)
                if self.rng.random() < 0.7:
                    owner = worlds.replica_set(namespace, app)
                    self.world.owners.append(owner)
                    self.state.apply("replicasets.apps", None, owner)

    def end_one(self) -> None:
        """A running pod goes, or starts to go."""
        if not self.world.placed:
            return
        position = self.rng.randrange(len(self.world.placed))
        pod, node = self.world.placed[position]
        old = {**pod, "spec": {**pod["spec"], "nodeName": node}}
        if self.rng.random() < 0.5:
            del self.world.placed[position]
            self.state.apply("pods", old, None)
        else:
            going = {**pod, "metadata": {**pod["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}
            self.world.placed[position] = (going, node)
            self.state.apply("pods", old, {**going, "spec": {**pod["spec"], "nodeName": node}})

    def schedule(self, template: Json) -> None:
        pod = worlds.pod(template, self.number)
        self.number += 1
        self.state.apply("pods", None, pod)
        info = self.state.pods[pod["metadata"]["uid"]]
        ours = decide(self.framework, info, cycle=self.number, seed=11)
        theirs = reference.decide(self.world, pod, cycle=self.number, seed=11)
        seen = (ours.node, ours.feasible, ours.ties, ours.total)
        assert seen == (theirs.node, theirs.feasible, theirs.ties, theirs.total), pod
        if not theirs.node and self.world.nodes:
            reasons = Counter(reason for _, all_ in theirs.failures.values() for reason in all_)
            assert ours.diagnosis is not None and dict(ours.diagnosis.histogram) == dict(reasons)
            assert set(ours.diagnosis.plugins) == {plugin for plugin, _ in theirs.failures.values()}
        if theirs.node:
            self.state.assume(info.uid, theirs.node)
            self.world.placed.append((pod, theirs.node))
            if self.rng.random() < 0.7:
                bound = {**pod, "spec": {**pod["spec"], "nodeName": theirs.node}}
                self.state.apply("pods", pod, bound)


def run(seed: int) -> None:
    rng = Random(seed)
    pair = Pair(rng)
    for name in worlds.NAMESPACES:
        pair.set_namespace(name, {"team": rng.choice(["red", "blue"])})
    names = [f"n{number}" for number in range(rng.randint(3, 12))]
    for name in names:
        pair.add_node(name)
    pair.add_extras()
    kind = worlds.plain_kind_of_pod if seed % 4 == 0 else worlds.kind_of_pod
    templates = [kind(rng) for _ in range(rng.randint(1, 6))]
    for _ in range(PODS):
        _disturb(pair, rng, names)
        pair.schedule(rng.choice(templates))


def _disturb(pair: Pair, rng: Random, names: list[str]) -> None:
    roll = rng.random()
    if roll < 0.06:
        pair.change_node(rng.choice([n["metadata"]["name"] for n in pair.world.nodes]))
    elif roll < 0.10 and len(pair.world.nodes) > 2:
        pair.remove_node(rng.choice(names))
    elif roll < 0.14:
        pair.add_node(rng.choice(names))
    elif roll < 0.24:
        pair.end_one()
    elif roll < 0.27:
        pair.set_namespace(rng.choice(worlds.NAMESPACES), {"team": rng.choice(["red", "blue"])})


@pytest.mark.parametrize("seed", range(SEEDS))
def test_both_schedulers_decide_alike(seed: int) -> None:
    run(seed)
