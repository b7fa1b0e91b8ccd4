"""The decision driver, over a real control plane in virtual time: barrier, retries, deadlines, records, bulkheads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import anyio
import attrs
import pytest

from kcp.base.clock import LoopClock
from kcp.base.entropy import SeededEntropy
from kcp.client.cache.shared_informer import SharedInformer
from kcp.client.transport import InProcessTransport, Transport
from kcp.controllers import effects as fx
from kcp.controllers.decisions import Decided, DecisionSink
from kcp.controllers.driver import DECISION_BUDGET_S, SPACING_PER_READ_S, SYNC_TIMEOUT_S
from kcp.controllers.execute import DEADLINE_S
from kcp.controllers.sources import Controller, Fan, Self, Timer
from kcp.controlplane.cluster import ADMIN, Cluster, ClusterOptions
from kcp.machinery.errors import Conflict, InternalError, Timeout
from kcp.store.log import EventLog
from kcp.store.memory import MemoryDriver
from kcp.store.protocol import Decision
from kcp.wire.http import Request, Response

pytestmark = pytest.mark.sim
Json = dict[str, Any]
CHANGER, MAKER = "generic-garbage-collector", "root-ca-cert-publisher"
"""Accounts that may patch, respectively create, ConfigMaps."""


def config(name: str, **data: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": data,
    }


def controller(plan: Any, identity: str = CHANGER, **more: Any) -> Controller:
    watches = {"configs": Self("configmaps"), **more.pop("watches", {})}
    return Controller("test-controller", identity, plan, watches, **more)


@attrs.define
class Meddler:
    """Sits before the API: fails or delays the requests of the controller as a test says."""

    inner: InProcessTransport
    meddle: Callable[[Request], Any]
    agent: str
    in_process: bool = True

    async def request(self, request: Request, timeout_s: float) -> Response:
        if self.inner.user_agent != self.agent:
            return await self.inner.request(request, timeout_s)
        before = await self.meddle(request)
        if before == "lose":
            await self.inner.request(request, timeout_s)
            raise Timeout("the answer was lost")
        if before == "slow":
            answer = await self.inner.request(request, timeout_s)
            await anyio.sleep(0.9 * DEADLINE_S)
            return answer
        if isinstance(before, Exception):
            raise before
        return await self.inner.request(request, timeout_s)

    async def close(self) -> None: ...


async def leave(request: Request) -> None:
    del request


@attrs.define
class Running:
    cluster: Cluster
    driver: MemoryDriver

    async def create(self, obj: Json) -> None:
        await self.cluster.client(ADMIN).create("configmaps", obj, "default")

    async def names(self) -> list[str]:
        page = await self.cluster.client(ADMIN).list("configmaps", "default")
        return [
            obj["metadata"]["name"] for obj in page.items if not obj["metadata"]["name"].startswith("kube-")
        ]

    async def rows(self) -> list[Decision]:
        await anyio.sleep(2)  # rows ride along with a later batch
        return [row for _, row in self.driver.decisions if row.controller == "test-controller"]


@asynccontextmanager
async def running(
    tested: Controller, meddle: Callable[[Request], Any] = leave, agent: str = "test-controller"
) -> AsyncIterator[Running]:
    def wrap(inner: InProcessTransport) -> Transport:
        return Meddler(inner, meddle, agent)

    clock, entropy = LoopClock(), SeededEntropy(1)
    driver = MemoryDriver(entropy.uid())
    options = ClusterOptions(controllers=(tested,), scheduler=False, wrap_transport=wrap)
    cluster = Cluster.build(EventLog(driver, clock), clock, entropy, options)
    async with anyio.create_task_group() as group:
        await group.start(cluster.run)
        yield Running(cluster, driver)
        group.cancel_scope.cancel()


def once_per(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    """A child for every `parent`, counted in the cache: made twice if the cache were read before it has the child."""
    del env
    parent = view.configs.get(key)
    if parent is None or not parent["metadata"]["name"].startswith("parent"):
        return
    children = [c for c in view.configs.list() if c["metadata"]["name"].startswith("child")]
    if not children:
        child = config("", of=key)
        child["metadata"] = {"generateName": "child-", "namespace": "default"}
        yield fx.Create("configmaps", "default", child)
        yield fx.RequeueAfter(0)


async def test_a_key_is_not_planned_before_the_cache_has_its_own_writes() -> None:
    async with running(controller(once_per, MAKER)) as here:
        await here.create(config("parent"))
        await anyio.sleep(30)
        assert len(await here.names()) == 2
        (row,) = await here.rows()
        assert [effect["kind"] for effect in row.effects] == ["Create", "RequeueAfter"]


def three_per(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    """Three children for every `parent`, made together in one request."""
    del env
    parent = view.configs.get(key)
    if parent is None or not parent["metadata"]["name"].startswith("parent"):
        return
    missing = 3 - sum(c["metadata"]["name"].startswith("child") for c in view.configs.list())
    child = {**config("", of=key), "metadata": {"generateName": "child-", "namespace": "default"}}
    if missing > 0:
        yield fx.All([fx.Create("configmaps", "default", child) for _ in range(missing)])


@pytest.mark.parametrize(("plan", "children"), [(once_per, 1), (three_per, 3)])
async def test_a_write_whose_answer_was_lost_is_not_made_twice(plan: Any, children: int) -> None:
    """Found by simulation: with late watches every retry made one more."""
    lost: list[Request] = []
    standing: list[SharedInformer] = []

    async def meddle(request: Request) -> str | None:
        if request.method == "POST" and not lost:
            lost.append(request)
            standing[0]._reflector.drain = lambda: None  # the cache stands still from now on
            return "lose"
        return None

    async with running(controller(plan, MAKER), meddle) as here:
        cache = here.cluster.informers.informer("configmaps")
        standing.append(cache)
        drain = cache._reflector.drain
        await here.create(config("parent"))
        await anyio.sleep(5)
        assert lost and len(await here.names()) == 1 + children
        cache._reflector.drain = drain
        drain()
        await anyio.sleep(60)
        assert len(await here.names()) == 1 + children


async def test_a_failed_effect_is_retried_with_growing_waits() -> None:
    at_s: list[float] = []

    async def meddle(request: Request) -> Exception | None:
        if request.method == "PATCH":
            at_s.append(anyio.current_time())
            return Conflict("not now") if len(at_s) < 6 else None
        return None

    def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
        del env
        obj = view.configs.get(key)
        if obj is not None and obj["metadata"]["name"] == "parent" and "done" not in obj["data"]:
            yield fx.Patch("configmaps", "default", "parent", {"data": {"done": "yes"}})

    async with running(controller(plan), meddle) as here:
        await here.create(config("parent", a="b"))
        await anyio.sleep(30)
        waits = [b - a for a, b in pairwise(at_s)]
        assert waits == pytest.approx([0.005, 0.01, 0.02, 0.04, 0.08])
        rows = await here.rows()
        assert [row.trigger for row in rows] == ["event"] + ["retry"] * 5
        assert [row.effects[0]["outcome"] for row in rows] == ["Conflict"] * 5 + ["ok"]


async def test_a_key_is_given_up_after_its_retries_until_something_changes() -> None:
    tries: list[Request] = []

    async def meddle(request: Request) -> Exception | None:
        if request.method == "PATCH":
            tries.append(request)
            return InternalError("never")
        return None

    def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
        del view, env
        if key == "default/parent":
            yield fx.Patch("configmaps", "default", "parent", {"data": {"x": "y"}})

    async with running(controller(plan, max_retries=3), meddle) as here:
        await here.create(config("parent"))
        await anyio.sleep(60)
        assert len(tries) == 4


async def test_a_hung_request_costs_its_own_key_and_not_the_others() -> None:
    async def meddle(request: Request) -> None:
        if "hung" in request.path:
            await anyio.sleep_forever()

    def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
        del env
        obj = view.configs.get(key)
        if obj is None or not key.startswith("default/p-") or "seen" in obj["data"]:
            return
        name = obj["metadata"]["name"]
        yield fx.All([fx.Patch("configmaps", "default", name, {"data": {"seen": "yes"}})] * 2)

    async with running(controller(plan, workers=4), meddle) as here:
        for n in range(3):
            await here.create(config(f"p-hung-{n}", a="b"))
        for n in range(20):
            await here.create(config(f"p-{n}", a="b"))
        await anyio.sleep(1)
        page = await here.cluster.client(ADMIN).list("configmaps", "default")
        assert sum("seen" in obj.get("data", {}) for obj in page.items) == 20
        await anyio.sleep(10)
        hung = [row for row in await here.rows() if "hung" in row.key]
        outcomes = {part["outcome"] for row in hung for part in row.effects[0]["effects"]}
        assert outcomes == {"Timeout"}


async def test_a_planner_that_raises_is_recorded_and_tried_again() -> None:
    calls: list[str] = []

    def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
        del view, env
        if key == "default/parent":
            calls.append(key)
            if len(calls) == 1:
                raise ZeroDivisionError("a bug")
            yield fx.Memo({"done": True})

    async with running(controller(plan)) as here:
        await here.create(config("parent"))
        await anyio.sleep(5)
        assert len(calls) == 2
        (row,) = await here.rows()
        assert row.effects == [{"kind": "Exception", "outcome": "ZeroDivisionError('a bug')", "digest": ""}]


async def test_a_plan_that_abandons_after_a_failure_comes_back() -> None:
    tries: list[int] = []

    async def meddle(request: Request) -> Exception | None:
        if request.method == "PATCH":
            tries.append(1)
            return InternalError("once") if len(tries) == 1 else None
        return None

    def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
        del env
        obj = view.configs.get(key)
        if key != "default/parent" or obj is None or "done" in obj["data"]:
            return
        outcome = yield fx.Patch("configmaps", "default", "parent", {"data": {"seen": "yes"}})
        if not outcome.ok:
            raise fx.Abandoned
        yield fx.Patch("configmaps", "default", "parent", {"data": {"done": "yes"}})

    async with running(controller(plan), meddle) as here:
        await here.create(config("parent", a="b"))
        await anyio.sleep(5)
        rows = await here.rows()
        assert [len(row.effects) for row in rows] == [1, 2]
        assert rows[0].effects[0]["outcome"] == "InternalError"


async def test_rows_say_what_was_known_and_what_was_written() -> None:
    def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
        obj = view.configs.get(key)
        if key != "default/parent" or obj is None or "done" in obj["data"]:
            return
        yield fx.Memo({"before": env.memo})
        yield fx.Patch("configmaps", "default", "parent", {"data": {"done": "yes"}})

    async with running(controller(plan)) as here:
        await here.create(config("parent", a="b"))
        (row,) = await here.rows()
        written = await here.cluster.client(ADMIN).get("configmaps", "parent", "default")
        assert row.last_rv == int(written["metadata"]["resourceVersion"]) == row.effects[1]["rv"]
        assert row.frontier["configmaps"] < row.last_rv
        assert (row.frontier["#"], row.frontier["*"]) == (0, 1)
        event = next(e for e in here.driver._rows if e.rv == row.last_rv)
        assert event.cause.decision_id == row.id


async def test_timers_queue_their_key_for_ever() -> None:
    seen: list[float] = []

    def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
        del view, env
        if key == "tick":
            seen.append(anyio.current_time())
            yield fx.RequeueAfter(1000)

    async with running(controller(plan, watches={"timer": Timer(20.0), "nodes": Fan("nodes")})) as here:
        assert here.cluster.runs[0].controller.name == "test-controller"
        await anyio.sleep(70)
        assert [round(b - a) for a, b in pairwise(seen)] == [20, 20, 20]


async def test_rows_of_a_restarted_controller_go_on_with_their_numbers() -> None:
    def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
        del env
        obj = view.configs.get(key)
        if obj is not None and key.startswith("default/p-") and "seen" not in obj["data"]:
            yield fx.Patch("configmaps", "default", obj["metadata"]["name"], {"data": {"seen": "yes"}})

    async with running(controller(plan)) as here:
        await here.create(config("p-1", a="b"))
        await anyio.sleep(1)
        here.cluster.restart("kube-controller-manager")
        await anyio.sleep(1)
        await here.create(config("p-2", a="b"))
        rows = await here.rows()
        assert [(row.key, row.frontier["#"], row.frontier["*"]) for row in rows] == [
            ("default/p-1", 0, 1),
            ("default/p-2", 1, 1),
        ]


def counting(name: str, plans: list[tuple[float, int]]) -> Any:
    """Looks at all ConfigMaps for one key, and notes when and how many there were."""

    def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
        del env
        if key == f"default/{name}":
            plans.append((anyio.current_time(), len(view.configs.list("default"))))
        yield from ()

    return plan


async def test_a_key_with_many_objects_is_planned_at_most_so_often_and_sees_the_last_change() -> None:
    plans: list[tuple[float, int]] = []
    every = Fan("configmaps", keys=lambda old, new, readers: ["default/many"])
    async with running(controller(counting("many", plans), watches={"configs": every})) as here:
        for number in range(200):
            await here.create(config(f"config-{number}"))
        await anyio.sleep(1)
        plans.clear()
        began_s = anyio.current_time()
        for number in range(50):
            await here.create(config(f"more-{number}"))
            await anyio.sleep(0.001)
        took_s = anyio.current_time() - began_s
        await anyio.sleep(1)
        spacing_s = 200 * SPACING_PER_READ_S
        assert all(later - earlier >= spacing_s - 1e-6 for (earlier, _), (later, _) in pairwise(plans))
        assert 2 <= len(plans) <= took_s / spacing_s + 2
        assert plans[-1][1] == len(await here.names()) == 250


async def test_a_key_with_few_objects_is_planned_at_once() -> None:
    plans: list[tuple[float, int]] = []
    every = Fan("configmaps", keys=lambda old, new, readers: ["default/few"])
    async with running(controller(counting("few", plans), watches={"configs": every})) as here:
        for _ in range(3):
            began_s = anyio.current_time()
            await here.create(config(f"config-{len(plans)}"))
            await anyio.sleep(0.0001)
            assert plans and plans[-1][0] - began_s < 0.0001


async def test_an_event_soon_after_a_plan_does_not_take_away_its_timer() -> None:
    began: list[float] = []

    def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
        """Asks for a timer once; later plans count on it."""
        if key != "default/many":
            return
        began.append(anyio.current_time())
        if len(view.configs.list("default")) >= 100 and env.memo is None:
            yield fx.Memo({"timer": "set"})
            yield fx.RequeueAfter(30)

    every = Fan("configmaps", keys=lambda old, new, readers: ["default/many"])
    async with running(controller(plan, watches={"configs": every})) as here:
        for number in range(99):
            await here.create(config(f"config-{number}"))
        await anyio.sleep(1)
        began.clear()
        for name in ("sets-the-timer", "soon-after"):
            await here.create(config(name))
            await anyio.sleep(0.0001)
        await anyio.sleep(60)
        assert [round(at - began[0]) for at in began] == [0, 0, 30]


async def test_keys_that_never_come_back_leave_nothing_behind() -> None:
    def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
        """Looks at many objects, and changes something that is no reason to look again."""
        del env
        if key.startswith("once/") and len(view.configs.list("default")) > 30:
            yield fx.Patch("configmaps", "default", "config-0", {"data": {"last": key}})

    def once(old: Json | None, new: Json | None, readers: Any) -> list[str]:
        del readers
        return [f"once/{new['metadata']['uid']}"] if old is None and new is not None else []

    async with running(controller(plan, watches={"configs": Fan("configmaps", keys=once)})) as here:
        for number in range(150):
            await here.create(config(f"config-{number}"))
            await anyio.sleep(0.1)
        await anyio.sleep(1)
        (run,) = here.cluster.runs
        assert (await here.rows())[-1].key.startswith("once/")
        assert len(run._barriers) < 10
        assert len(run._not_before_s) < 10


def follows_its_owner(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    """A `child` goes with its Secret; one that the cache does not have is asked for."""
    del env
    child = view.configs.get(key)
    if child is None or "owner" not in child["data"] or view.secrets.get(child["data"]["owner"]) is not None:
        return
    name = child["data"]["owner"].partition("/")[2]
    if (yield fx.Live("secrets", "default", name)).object is None:
        yield fx.Delete("configmaps", "default", child["metadata"]["name"])


async def test_what_came_and_went_before_the_cache_saw_it_is_looked_for_again() -> None:
    """Found by simulation: a token stayed after its account had lived and died while the watch of accounts was cut."""
    watches = {"secrets": Fan("secrets")}
    async with running(controller(follows_its_owner, watches=watches)) as here:
        cache = here.cluster.informers.informer("secrets")
        drain = cache._reflector.drain
        cache._reflector.drain = lambda: None
        user = here.cluster.client(ADMIN)
        await user.create("secrets", {**config("owner"), "kind": "Secret", "data": {}}, "default")
        await here.create(config("child", owner="default/owner"))
        await anyio.sleep(5)
        assert await here.names() == ["child"]
        await user.delete("secrets", "owner", "default")
        cache._reflector.drain = drain
        drain()
        await anyio.sleep(5)
        assert await here.names() == []
        (run,) = here.cluster.runs
        assert not run._ahead


async def test_nothing_is_decided_before_every_cache_is_filled() -> None:
    planned: list[str] = []
    down = [True]

    def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
        planned.append(key)
        yield from ()

    async def meddle(request: Request) -> Exception | None:
        refused = down and request.path.endswith("/secrets")
        return InternalError("no list today") if refused else None

    tested = controller(plan, watches={"secrets": Fan("secrets")})
    async with running(tested, meddle, agent="kube-controller-manager") as here:
        await here.create(config("one"))
        await anyio.sleep(2 * SYNC_TIMEOUT_S + 60)
        assert not planned
        down.clear()
        await anyio.sleep(120)
        assert "default/one" in planned


async def test_a_write_that_was_under_way_when_its_decision_ran_out_of_time_is_not_made_twice() -> None:
    slow_s = 0.95 * DEADLINE_S
    standing: list[SharedInformer] = []

    def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
        del env
        children = [c for c in view.configs.list() if c["metadata"]["name"].startswith("child")]
        if key == "default/parent" and not children:
            for _ in range(int(2 * DECISION_BUDGET_S // slow_s)):
                yield fx.Live("configmaps", "default", "absent")
            child = {**config("", of=key), "metadata": {"generateName": "child-", "namespace": "default"}}
            yield fx.Create("configmaps", "default", child)

    async def meddle(request: Request) -> str | None:
        if request.method == "POST":
            standing[0]._reflector.drain = lambda: None
            return "slow"
        if request.path.endswith("/absent"):
            await anyio.sleep(slow_s)
        return None

    async with running(controller(plan, MAKER), meddle) as here:
        standing.append(here.cluster.informers.informer("configmaps"))
        await here.create(config("parent"))
        await anyio.sleep(20 * DECISION_BUDGET_S)
        assert len(await here.names()) == 2


@attrs.define
class FullOnce:
    """A sink that fails with its first row."""

    inner: DecisionSink
    failed: bool = False

    def next_id(self) -> int:
        return self.inner.next_id()

    def record(self, decided: Decided) -> None:
        if not self.failed:
            self.failed = True
            raise OSError("no room for rows")
        self.inner.record(decided)


async def test_a_decision_that_cannot_be_written_down_costs_its_own_key_and_no_other() -> None:
    planned: dict[str, list[float]] = {"slow": [], "broken": []}

    async def meddle(request: Request) -> None:
        if request.path.endswith("/slow"):
            await anyio.sleep(5)

    def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
        name = key.partition("/")[2]
        if name in planned:
            yield fx.Live("configmaps", "default", name)
            planned[name].append(anyio.current_time())
        if name == "broken" and len(planned[name]) == 1:
            yield fx.Event(view.configs.get(key) or {}, "Normal", "Tried", "once")

    async with running(controller(plan), meddle) as here:
        (run,) = here.cluster.runs
        run.sink = FullOnce(run.sink)
        began_s = anyio.current_time()
        await here.create(config("slow"))
        await here.create(config("broken"))
        await anyio.sleep(60)
        assert [round(at - began_s, 1) for at in planned["slow"]] == [5.0]
        assert len(planned["broken"]) == 2
