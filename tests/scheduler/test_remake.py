"""Every recorded decision, made again from the log alone, is the same decision."""

from __future__ import annotations

from random import Random
from typing import Any

import anyio
import attrs

from kcp.machinery.errors import ApiError, NotFound
from kcp.scheduler.profiles import Configuration, Profile
from kcp.scheduler.remake import Remaker
from kcp.store.protocol import Event, Op
from tests.scheduler.harness import Bench, scheduled

Json = dict[str, Any]


@attrs.define
class Cursor:
    """The events of one resource, applied up to a revision."""

    events: list[Event]
    at: int = 0
    objects: dict[str, Json] = attrs.field(factory=dict)

    def move(self, resource: str, rv: int, again: Remaker) -> None:
        while self.at < len(self.events) and self.events[self.at].rv <= rv:
            event = self.events[self.at]
            self.at += 1
            key = str(event.key)
            old, value = self.objects.pop(key, None), event.record.value
            if event.op == Op.DELETED:
                again.move(resource, old if old is not None else value, None)
            else:
                self.objects[key] = value
                again.move(resource, old, value)


async def remade(bench: Bench) -> list[tuple[Json, Json]]:
    """(ours, theirs) of every row, in the order in which they were taken, each by the profile that took it."""
    events = await bench.cluster.store.events_since(0, limit=100_000)
    cursors = {r: Cursor([e for e in events if e.key.resource == r]) for r in bench.scheduler.watched}
    configuration = bench.scheduler.configuration
    again, pairs = Remaker(configuration.profiles[0]), []
    frontiers: dict[str, dict[str, int]] = {}
    for row in bench.sink.rows:
        frontier = frontiers.setdefault(row.controller, {})
        frontier.update(row.frontier)
        for resource, cursor in cursors.items():
            cursor.move(resource, frontier[resource], again)
        again.use(configuration.profile(row.controller))
        pairs.append(again.remake(row.key, row.frontier, row.effects))
    return pairs


async def busy_hour(bench: Bench, seed: int) -> None:
    """Nodes and pods of three priorities come and go, too many for the room there is."""
    rng = Random(seed)
    for name, value in (("high", 1000), ("middle", 100)):
        await bench.client.create(
            "priorityclasses.scheduling.k8s.io",
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": name},
                "value": value,
            },
        )
    for number in range(4):
        await bench.node(f"n{number}", cpu="2")
    for number in range(60):
        important: Json = {"priorityClassName": rng.choice(["high", "middle"])} if rng.random() < 0.4 else {}
        await bench.pod(f"p{number}", cpu=rng.choice(["200m", "400m", "900m"]), **important)
        if rng.random() < 0.3:
            await anyio.sleep(rng.uniform(0, 2))
        if rng.random() < 0.3:
            await _remove(bench, f"p{rng.randint(0, number)}")
        if rng.random() < 0.05:
            await _remove(bench, f"n{rng.randint(0, 3)}", "nodes", "")
            await bench.node(f"m{number}", cpu="2")
        await _finish_deletions(bench)


async def _remove(bench: Bench, name: str, resource: str = "pods", namespace: str = "default") -> None:
    try:
        await bench.client.delete(resource, name, namespace)
    except NotFound:
        return


async def _finish_deletions(bench: Bench) -> None:
    """What a kubelet does with pods that must end."""
    for pod in (await bench.client.list("pods", "default")).items:
        if "deletionTimestamp" in pod["metadata"]:
            await bench.client.delete("pods", pod["metadata"]["name"], "default", grace_s=0)


def test_decisions_are_remade_from_the_log() -> None:
    found: list[tuple[Json, Json]] = []

    async def check(bench: Bench) -> None:
        await busy_hour(bench, 5)
        await anyio.sleep(30)
        found.extend(await remade(bench))

    scheduled(check, seed=5)
    assert [pair for pair in found if pair[0] != pair[1]] == []
    kinds = {theirs["kind"] for _, theirs in found}
    assert kinds == {"Bind", "Status", "Preempt"} and len(found) > 100


def test_several_profiles_on_one_state_are_remade_too() -> None:
    found: list[tuple[Json, Json]] = []
    packing = {"NodeResourcesFit": {"scoringStrategy": {"type": "MostAllocated"}}}
    configuration = Configuration((Profile(), Profile(name="packing", args=packing)))

    async def check(bench: Bench) -> None:
        for number in range(3):
            await bench.node(f"n{number}", cpu="2")
        for number in range(40):
            name = "packing" if number % 3 else "default-scheduler"
            await bench.pod(f"p{number}", cpu="300m", schedulerName=name)
            if number % 7 == 0:
                await anyio.sleep(1)
        await anyio.sleep(3)
        found.extend(await remade(bench))
        assert {row.controller for row in bench.sink.rows} == {"packing", "default-scheduler"}

    scheduled(check, configuration=configuration)
    assert len(found) >= 40 and [pair for pair in found if pair[0] != pair[1]] == []


def test_a_binding_that_is_refused_is_taken_back_and_tried_again() -> None:
    found: list[tuple[Json, Json]] = []

    async def check(bench: Bench) -> None:
        await bench.node("n")
        await bench.pod("web")
        client = bench.scheduler.client
        send = client.request
        refused: list[str] = []

        async def refuse_once(method: str, path: str, **options: Any) -> Any:
            if not refused:
                refused.append(path)
                raise ApiError("the disk is full")
            return await send(method, path, **options)

        client.request = refuse_once  # type: ignore[method-assign]
        await anyio.sleep(5)
        assert await bench.node_of("web") == "n"
        assert refused and bench.scheduler.errors == 1
        await bench.pod("other")
        await anyio.sleep(1)
        found.extend(await remade(bench))

    scheduled(check)
    assert [theirs["kind"] for _, theirs in found] == ["Bind", "Bind", "Bind"]
    assert all(ours == theirs for ours, theirs in found)
