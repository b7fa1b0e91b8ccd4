"""The vectorised scheduler decides what the slow one decides: node, total, ties, texts, and who must go for whom.

`pytest tests/properties/test_scheduler_oracle.py --decisions 1000000` looks at more random clusters.
"""

from __future__ import annotations

from random import Random
from typing import Any

import attrs
import pytest

from kcp.machinery import meta
from kcp.machinery.quantity import parse
from kcp.scheduler import profiles, reference, reference_devices, reference_preemption
from kcp.scheduler.cluster_state import ATTACHMENTS, ClusterState
from kcp.scheduler.cycle import Decision, decide
from kcp.scheduler.dra.devices import CLAIMS, CLASSES, SLICES
from kcp.scheduler.dra.extended import ANNOTATION, special_key
from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.reference_world import World
from tests.properties import device_worlds as devices
from tests.properties import scheduler_worlds as worlds

Json = dict[str, Any]
PODS = 30
DECISIONS_PER_PART = 1000
SEEDS_PER_PART = 1000


@attrs.define
class Pair:
    """The same cluster, told to both."""

    rng: Random
    world: World = attrs.field(factory=lambda: World([], []))
    state: ClusterState = attrs.field(factory=ClusterState)
    framework: Framework = attrs.field(init=False)
    number: int = 0
    device_kinds: list[Json] = attrs.field(factory=list)
    serving: tuple[str, ...] = ()
    """The device classes that serve an extended resource."""

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

    def add_claims(self, names: list[str]) -> None:
        for namespace in worlds.NAMESPACES:
            for name in worlds.CLAIMS:
                claim, volume = worlds.claim(self.rng, namespace, name)
                self.world.claims[f"{namespace}/{name}"] = claim
                self.state.apply("persistentvolumeclaims", None, claim)
                if self.rng.random() < 0.9:
                    self.world.volumes[volume["metadata"]["name"]] = volume
                    self.state.apply("persistentvolumes", None, volume)
        for name in names:
            if self.rng.random() < 0.3:
                made = worlds.csi_node(self.rng, name)
                (driver,) = made["spec"]["drivers"]
                self.world.volume_limits[name] = {driver["name"]: driver["allocatable"]["count"]}
                self.state.apply("csinodes.storage.k8s.io", None, made)
                if self.rng.random() < 0.5:
                    self._attach(
                        f"{self.rng.choice(worlds.NAMESPACES)}-{self.rng.choice(worlds.CLAIMS)}", name
                    )

    def _attach(self, volume: str, node: str) -> None:
        self.world.attachments.append((volume, node))
        made = {"metadata": {"name": f"{volume}-{node}"}}
        spec = {"attacher": worlds.DRIVER, "nodeName": node, "source": {"persistentVolumeName": volume}}
        self.state.apply(ATTACHMENTS, None, {**made, "spec": spec})

    def add_budgets(self) -> None:
        for number in range(self.rng.randint(0, 3)):
            made = worlds.budget(self.rng, number)
            self.world.budgets.append(made)
            self.state.apply("poddisruptionbudgets.policy", None, made)

    def add_devices(self, names: list[str]) -> None:
        self.world.devices.says = devices.SAYS
        for made in devices.device_classes(self.serving):
            self.world.devices.classes[made["metadata"]["name"]] = made
            self.state.apply(CLASSES, None, made)
        for made in devices.slices(self.rng, names):
            self.add_slice(made)
        self.device_kinds = [devices.claim_spec(self.rng) for _ in range(3)]
        for namespace in worlds.NAMESPACES:
            self._add_claim(devices.claim(namespace, "shared", devices.claim_spec(self.rng)))

    def add_slice(self, made: Json) -> None:
        self.world.devices.slices.append(made)
        self.state.apply(SLICES, None, made)

    def remove_slice(self) -> None:
        if self.world.devices.slices:
            gone = self.world.devices.slices.pop(self.rng.randrange(len(self.world.devices.slices)))
            self.state.apply(SLICES, gone, None)

    def _add_claim(self, claim: Json) -> None:
        self.world.devices.claims[meta.key_of(claim)] = claim
        self.state.apply(CLAIMS, None, claim)

    def _with_claims(self, pod: Json) -> Json:
        """Some pods have claims of their own, some that of all."""
        if not self.device_kinds or self.rng.random() < 0.4:
            return pod
        namespace, names = pod["metadata"]["namespace"], []
        for number in range(self.rng.choice([1, 1, 2])):
            names.append(f"{pod['metadata']['name']}-{number}")
            self._add_claim(devices.claim(namespace, names[-1], self.rng.choice(self.device_kinds)))
        if self.rng.random() < 0.2:
            names[-1] = "shared"
        entries = [{"name": name, "resourceClaimName": name} for name in names]
        return {**pod, "spec": {**pod["spec"], "resourceClaims": entries}}

    def _take_devices(self, pod: Json, ours: Decision) -> None:
        """Both come to the same devices; the log shows them at once or later."""
        there = self.world.devices
        node = next(n for n in self.world.nodes if n["metadata"]["name"] == ours.node)
        waiting = reference_devices.waiting_claims(there, pod, node)
        special = special_key(pod["metadata"]["namespace"], pod["metadata"]["uid"])
        picked = reference_devices.picks(there, waiting, node) or []
        for number, claim in enumerate(waiting):
            key = meta.key_of(claim) if claim["metadata"] else special
            results = ours.allocations[key]["devices"]["results"]
            theirs = [_result(pick) for pick in picked if pick.claim == number]
            assert [_shown(result) for result in results] == theirs
        assert len(ours.allocations) == len(waiting)
        self.state.devices.take(pod["metadata"]["uid"], ours.allocations)
        if special in ours.allocations:
            self._take_special(pod, special, ours.allocations[special])
        for claim in reference_devices.claims_of(there, pod):
            self._reserve(claim, pod, ours.allocations.get(meta.key_of(claim)))

    def _take_special(self, pod: Json, key: str, allocation: Json) -> None:
        """The claim of the pod's extended resources is in the log at once, or not before the pod is gone."""
        metadata = pod["metadata"]
        owner = {"kind": "Pod", "name": metadata["name"], "uid": metadata["uid"], "controller": True}
        made = {
            "metadata": {
                "namespace": metadata["namespace"],
                "name": f"{metadata['name']}-extended-resources-x",
                "uid": f"claim-of-{metadata['uid']}",
                "annotations": {ANNOTATION: "true"},
                "ownerReferences": [owner],
            },
            "status": {"allocation": allocation},
        }
        self.world.devices.claims[key] = made
        if self.rng.random() < 0.6:
            self.state.apply(CLAIMS, None, made)

    def _free_special(self, pod: Json) -> None:
        key = special_key(pod["metadata"]["namespace"], pod["metadata"]["uid"])
        made = self.world.devices.claims.pop(key, None)
        if made is None:
            return
        if meta.key_of(made) in self.state.objects[CLAIMS]:
            self.state.apply(CLAIMS, made, None)
        self.state.devices.give_back(key)

    def _reserve(self, claim: Json, pod: Json, allocation: Json | None) -> None:
        status = dict(claim.get("status") or {})
        if allocation is not None:
            status["allocation"] = allocation
        status["reservedFor"] = [*(status.get("reservedFor") or ()), {"uid": pod["metadata"]["uid"]}]
        self._set_status(claim, status, later=meta.name(claim) != "shared" and self.rng.random() < 0.3)

    def _set_status(self, claim: Json, status: Json, *, later: bool = False) -> None:
        new = {**claim, "status": status}
        self.world.devices.claims[meta.key_of(claim)] = new
        if not later:
            self.state.apply(CLAIMS, claim, new)

    def _free(self, pod: Json) -> None:
        """What the claim controller does when a pod is gone."""
        self._free_special(pod)
        for claim in reference_devices.claims_of(self.world.devices, pod):
            uid = pod["metadata"]["uid"]
            left = [c for c in (claim.get("status") or {}).get("reservedFor") or () if c["uid"] != uid]
            status = {**claim["status"], "reservedFor": left} if left else {}
            self.state.apply(CLAIMS, claim, claim)
            if meta.name(claim) == "shared" and self.rng.random() < 0.5 and not left:
                status = {**(claim.get("status") or {}), "reservedFor": []}
            self._set_status(claim, status)

    def end_one(self) -> None:
        """A running pod goes, or starts to go."""
        if not self.world.placed:
            return
        position = self.rng.randrange(len(self.world.placed))
        pod, node = self.world.placed[position]
        old = {**pod, "spec": {**pod["spec"], "nodeName": node}}
        if self.rng.random() < 0.5:
            self._remove(position)
        else:
            going = {**pod, "metadata": {**pod["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}
            self.world.placed[position] = (going, node)
            self.state.apply("pods", old, {**going, "spec": {**pod["spec"], "nodeName": node}})

    def schedule(self, template: Json) -> None:
        pod = self._with_claims(worlds.pod(template, self.number))
        if self.serving and self.rng.random() < 0.5:
            pod = devices.wanting(self.rng, pod)
        self.state.apply("pods", None, pod)
        if self._attempt(pod) and self.rng.random() < 0.5:
            self._attempt(pod)

    def _attempt(self, pod: Json) -> bool:
        """Whether room was made for the pod; its victims are gone then."""
        self.number += 1
        info = self.state.pods[pod["metadata"]["uid"]]
        ours = decide(self.framework, info, cycle=self.number, seed=11)
        theirs = reference_preemption.decide(self.world, pod, cycle=self.number, seed=11)
        seen = (ours.node, ours.feasible, ours.ties, ours.total)
        assert seen == (theirs.node, theirs.feasible, theirs.ties, theirs.total), pod
        if theirs.node:
            self._take_devices(pod, ours)
            self._place(pod, theirs.node)
            return False
        self._compare_failures(ours, theirs)
        for uid in theirs.victims:
            self._remove(next(n for n, (p, _) in enumerate(self.world.placed) if p["metadata"]["uid"] == uid))
        return bool(theirs.victims)

    def _compare_failures(self, ours: Decision, theirs: reference.Verdict) -> None:
        assert ours.text == theirs.text
        assert (ours.nominated or "") == theirs.nominated
        assert tuple(victim.uid for victim in ours.victims) == theirs.victims
        assert ours.pdb_violations == theirs.pdb_violations
        if self.world.nodes:
            assert ours.diagnosis is not None
            assert set(ours.diagnosis.plugins) == {plugin for plugin, _ in theirs.failures.values()}

    def _place(self, pod: Json, node: str) -> None:
        self.state.assume(pod["metadata"]["uid"], node)
        if self.rng.random() < 0.7:
            bound = {**pod, "spec": {**pod["spec"], "nodeName": node}}
            bound["status"] = {"startTime": f"2026-01-0{self.rng.randint(1, 9)}T00:00:00Z"}
            self.state.apply("pods", pod, bound)
            pod = {**pod, "status": bound["status"]}
        self.world.placed.append((pod, node))

    def _remove(self, position: int) -> None:
        pod, node = self.world.placed.pop(position)
        self._free(pod)
        self.state.apply("pods", {**pod, "spec": {**pod["spec"], "nodeName": node}}, None)


def _result(pick: reference_devices.Pick) -> tuple[Any, ...]:
    shared = pick.device.get("allowMultipleAllocations") and not pick.spec.get("adminAccess")
    takes = reference_devices.consumed(pick) if shared else None
    return pick.request, *pick.id, takes


def _shown(result: Json) -> tuple[Any, ...]:
    consumed = result.get("consumedCapacity")
    takes = {name: parse(amount) for name, amount in consumed.items()} if consumed is not None else None
    return result["request"], result["driver"], result["pool"], result["device"], takes


def run(seed: int) -> int:
    """A random cluster and what happens in it; the number of decisions that were compared."""
    rng = Random(seed)
    pair = Pair(rng)
    for name in worlds.NAMESPACES:
        pair.set_namespace(name, {"team": rng.choice(["red", "blue"])})
    names = [f"n{number}" for number in range(rng.randint(3, 12))]
    for name in names:
        pair.add_node(name)
    pair.add_extras()
    pair.add_claims(names)
    kind = worlds.plain_kind_of_pod if seed % 4 == 0 else worlds.kind_of_pod
    templates = [kind(rng) for _ in range(rng.randint(1, 6))]
    if seed % 5 == 2:
        pair.serving = rng.choice([("gpu",), ("any",), ("any", "gpu")]) if seed % 10 == 2 else ()
        pair.add_devices(names)
    preempting = seed % 3 == 0
    if preempting:
        pair.add_budgets()
    for _ in range(PODS):
        _disturb(pair, rng, names)
        template = rng.choice(templates)
        pair.schedule(worlds.with_priority(rng, template) if preempting else template)
    return pair.number


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
    elif roll < 0.30 and pair.device_kinds:
        pair.remove_slice()
    elif roll < 0.34 and pair.device_kinds:
        name = rng.choice(names)
        for made in devices.slices(rng, [name]):
            made["metadata"]["name"] += f"-{pair.number}"
            made["spec"]["pool"]["name"] += f"-{pair.number}"
            pair.add_slice(made)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """As many parts of equal size as `--decisions` asks for."""
    decisions = metafunc.config.getoption("decisions")
    metafunc.parametrize("part", range(-(-decisions // DECISIONS_PER_PART)))


def test_both_schedulers_decide_alike(part: int) -> None:
    compared, seed = 0, part * SEEDS_PER_PART
    while compared < DECISIONS_PER_PART:
        try:
            compared += run(seed)
        except AssertionError as different:
            different.add_note(f"seed {seed}")
            raise
        seed += 1
