"""What an informer promises, whatever the watch does: in process and over bytes."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from kcp.base.clock import LoopClock
from kcp.base.entropy import SeededEntropy
from kcp.client.cache.shared_informer import InformerFactory
from kcp.client.transport import Unreachable
from kcp.machinery.errors import ApiError, Expired, Forbidden, InternalError, TooManyRequests
from tests.client.support import Told, client_of, informer_of, pod
from tests.support.background import running
from tests.support.fake_api import FakeApi

pytestmark = pytest.mark.sim

Json = dict[str, Any]


@pytest.fixture(params=["in process", "bytes"])
def api(request: pytest.FixtureRequest) -> FakeApi:
    return FakeApi(in_process=request.param == "in process", rv=10)


@pytest.mark.parametrize("watch_list", [True, False], ids=["watch-list", "list"])
async def test_the_store_follows_the_resource_and_handlers_are_told(api: FakeApi, watch_list: bool) -> None:
    api.watch_list = watch_list
    api.put("pods", pod("a"))
    api.put("configmaps", pod("other"))
    informer, told = informer_of(api), Told()
    informer.add_handler(told)
    assert (informer.rv, informer.synced) == (0, False)
    async with running(informer.run):
        assert await informer.wait_for_sync()
        assert (told.take(), informer.rv) == (["+a"], api.rv)
        api.put("pods", pod("b"))
        api.put("pods", pod("a", nodeName="n1"))
        api.remove("pods", "b", "default")
        assert await informer.wait_for_rv(api.rv, 5)
        assert told.take() == ["+b", "~a", "-b"]
        assert informer.indexer.keys() == ["default/a"]
        assert informer.lister.get("a", "default")["spec"] == {"nodeName": "n1"}
    assert api.count("sendInitialEvents=true") == 1
    assert api.count("limit=500") == (0 if watch_list else 1)


async def test_bookmarks_move_the_revision_without_objects(api: FakeApi) -> None:
    informer, told = informer_of(api), Told()
    informer.add_handler(told)
    async with running(informer.run):
        await informer.wait_for_sync()
        api.put("configmaps", pod("unrelated"))
        assert not await informer.wait_for_rv(api.rv, 1), "nothing moved it yet"
        api.bookmark()
        assert await informer.wait_for_rv(api.rv, 1)
    assert told.take() == []


async def test_waiters_run_in_the_step_in_which_the_store_got_there(api: FakeApi) -> None:
    informer = informer_of(api)
    seen: list[tuple[int, int]] = []
    async with running(informer.run):
        await informer.wait_for_sync()
        for ahead in (3, 1, 2):
            rv = api.rv + ahead
            informer.when_rv(rv, lambda rv=rv: seen.append((rv, len(informer.indexer))))  # type: ignore[misc]
        informer.when_rv(0, lambda: seen.append((0, 0)))
        for name in "abc":
            api.put("pods", pod(name))
        await informer.wait_for_rv(api.rv, 5)
    assert seen[0] == (0, 0), "a revision in the past is there at once"
    assert [rv for rv, _ in seen[1:]] == [api.rv - 2, api.rv - 1, api.rv]


async def test_a_broken_watch_goes_on_where_it_was_without_a_relist(api: FakeApi) -> None:
    informer, told = informer_of(api), Told()
    informer.add_handler(told)
    async with running(informer.run):
        await informer.wait_for_sync()
        await anyio.sleep(60)
        api.watch_faults.extend([Unreachable("connection refused"), TooManyRequests("slow down")])
        api.cut_watches()
        await anyio.sleep(0)
        api.put("pods", pod("a"))
        assert await informer.wait_for_rv(api.rv, 30)
        assert (told.take(), informer.relists) == (["+a"], 0)
    assert api.count("sendInitialEvents=true") == 1


@pytest.mark.parametrize("how", ["event", "request"])
async def test_after_410_it_lists_again_and_settles_what_it_missed(api: FakeApi, how: str) -> None:
    for name in ("kept", "gone", "changed"):
        api.put("pods", pod(name))
    informer, told = informer_of(api), Told()
    informer.add_handler(told)
    async with running(informer.run):
        await informer.wait_for_sync()
        told.take()
        api.cut_watches(Expired("too old resource version") if how == "event" else None)
        api.remove("pods", "gone", "default")
        api.put("pods", pod("changed", nodeName="n"))
        api.put("pods", pod("new"))
        api.compact()
        assert await informer.wait_for_rv(api.rv, 120)
        assert told.take() == ["-gone", "~changed", "+new"]
        assert informer.relists == 1
        assert informer.indexer.keys() == ["default/changed", "default/kept", "default/new"]


async def test_an_object_made_anew_in_a_gap_is_one_update_with_another_uid(api: FakeApi) -> None:
    old = api.put("pods", pod("a"))
    informer = informer_of(api)
    changes: list[tuple[Json | None, Json | None]] = []
    async with running(informer.run):
        await informer.wait_for_sync()
        informer.add_handler(lambda before, after: changes.append((before, after)))
        changes.clear()
        api.cut_watches(Expired("too old resource version"))
        api.remove("pods", "a", "default")
        new = api.put("pods", pod("a"))
        api.compact()
        await informer.wait_for_rv(api.rv, 120)
    assert [(b and b["metadata"]["uid"], a and a["metadata"]["uid"]) for b, a in changes] == [
        (old["metadata"]["uid"], new["metadata"]["uid"])
    ]


@pytest.mark.parametrize("error", [InternalError("etcd"), Forbidden("no"), ValueError("garbage")])
async def test_whatever_fails_it_recovers(api: FakeApi, error: ApiError) -> None:
    informer, told = informer_of(api), Told()
    informer.add_handler(told)
    if isinstance(error, ApiError):
        api.faults.extend([error] * 5)
    async with running(informer.run):
        assert await informer.wait_for_sync(300)
        await anyio.sleep(2)
        api.put("pods", pod("a"))
        api.cut_watches(error if isinstance(error, ApiError) else None)
        assert await informer.wait_for_rv(api.rv, 300)
    assert told.take() == ["+a"]


async def test_a_server_that_is_behind_gets_a_list_of_whatever_it_has(api: FakeApi) -> None:
    """After a restore the server's revisions may be lower than ours: "Too large resource version"."""
    api.watch_list = False
    api.put("pods", pod("a"))
    informer = informer_of(api)
    async with running(informer.run):
        await informer.wait_for_sync()
        api.rv = 1
        api.log.clear()
        informer._reflector.last_rv = "1000"
        api.cut_watches(Expired("too old resource version"))
        await anyio.sleep(60)
        assert informer.indexer.keys() == ["default/a"]
        assert informer._reflector.last_rv == "1"


async def test_a_late_handler_hears_of_everything_that_is_there(api: FakeApi) -> None:
    for name in ("b", "a"):
        api.put("pods", pod(name))
    informer = informer_of(api)
    async with running(informer.run):
        await informer.wait_for_sync()
        told = Told()
        registration = informer.add_handler(told)
        assert registration.synced
        assert told.take() == ["+a", "+b"]
        informer.remove_handler(registration)
        api.put("pods", pod("c"))
        await informer.wait_for_rv(api.rv, 5)
        assert told.take() == []


async def test_resync_tells_only_those_who_asked_and_a_relist_of_the_same_tells_no_one(api: FakeApi) -> None:
    api.put("pods", pod("a"))
    informer, periodic, plain = informer_of(api), Told(), Told()
    async with running(informer.run):
        await informer.wait_for_sync()
        informer.add_handler(plain)
        informer.add_handler(periodic, resync_s=600)
        plain.take(), periodic.take()
        await anyio.sleep(1900)
        assert (periodic.take(), plain.take()) == (["~a"] * 3, [])
        api.cut_watches(Expired("too old resource version"))
        await anyio.sleep(60)
        assert informer.relists == 1
        assert plain.take() == []


async def test_a_failing_handler_costs_nobody_else_the_event(api: FakeApi) -> None:
    informer, told = informer_of(api), Told()

    def broken(old: Json | None, new: Json | None) -> None:
        raise RuntimeError("bug")

    informer.add_handler(broken)
    informer.add_handler(told)
    async with running(informer.run):
        await informer.wait_for_sync()
        api.put("pods", pod("a"))
        await informer.wait_for_rv(api.rv, 5)
    assert told.take() == ["+a"]


async def test_an_informer_that_crashes_lists_anew_and_the_others_go_on(api: FakeApi) -> None:
    factory = InformerFactory(client_of(api), clock=LoopClock(), entropy=SeededEntropy(1))
    failures: list[Json] = []

    def fragile(obj: Json) -> list[str]:
        if obj["metadata"]["name"] == "odd" and not failures:
            failures.append(obj)
            raise KeyError("an index function that did not expect this")
        return []

    pods, nodes = factory.informer("pods", indexers={"fragile": fragile}), factory.informer("nodes")
    async with running(factory.run):
        assert await factory.wait_for_sync()
        api.put("pods", {"metadata": {"name": "odd", "namespace": "shop"}})
        api.put("nodes", {"metadata": {"name": "n"}})
        await anyio.sleep(60)
        api.put("pods", {"metadata": {"name": "even", "namespace": "shop"}})
        await anyio.sleep(1)
        assert failures
        assert [obj["metadata"]["name"] for obj in pods.indexer] == ["even", "odd"]
        assert [obj["metadata"]["name"] for obj in nodes.indexer] == ["n"]


async def test_one_namespace_sees_only_itself(api: FakeApi) -> None:
    api.put("pods", pod("a", "x"))
    api.put("pods", pod("b", "y"))
    informer = informer_of(api, namespace="x")
    async with running(informer.run):
        await informer.wait_for_sync()
        api.put("pods", pod("c", "y"))
        api.put("pods", pod("d", "x"))
        await informer.wait_for_rv(api.rv, 5)
        assert informer.indexer.keys() == ["x/a", "x/d"]


async def test_a_factory_shares_informers_and_starts_late_ones(api: FakeApi) -> None:
    api.put("pods", pod("a"))
    factory = InformerFactory(client_of(api), clock=LoopClock(), entropy=SeededEntropy(1))
    pods = factory.informer("pods")
    assert factory.informer("pods", indexers={"name": lambda o: [o["metadata"]["name"]]}) is pods
    assert factory.informer("pods", namespace="x") is not pods
    async with running(factory.run):
        assert await factory.wait_for_sync()
        assert len(pods.indexer.index("name", "a")) == 1
        nodes = factory.informer("nodes")
        assert await nodes.wait_for_sync(10)
        factory.stop(nodes)
        await anyio.sleep(1)
        assert factory.informer("nodes") is not nodes
    assert api.watchers == [], "every watch is closed at the end"


async def test_large_lists_come_in_pages() -> None:
    api = FakeApi(in_process=False, watch_list=False)
    for i in range(1200):
        api.put("pods", pod(f"p{i:04}"))
    informer = informer_of(api)
    async with running(informer.run):
        await informer.wait_for_sync()
        assert len(informer.indexer) == 1200
    assert api.count("limit=500") == 3


async def test_nothing_it_hands_out_is_ever_changed(api: FakeApi) -> None:
    """A mutation detector: what was inserted still looks the same when it is removed."""
    informer = informer_of(api)
    seen: dict[str, str] = {}

    def check(old: Json | None, new: Json | None) -> None:
        if old is not None:
            assert seen.pop(old["metadata"]["resourceVersion"], repr(old)) == repr(old)
        if new is not None:
            seen[new["metadata"]["resourceVersion"]] = repr(new)

    informer.add_handler(check)
    async with running(informer.run):
        await informer.wait_for_sync()
        for i in range(50):
            api.put("pods", pod(f"p{i % 7}", nodeName=f"n{i}"))
            await informer.wait_for_rv(api.rv, 5)
    assert len(seen) == 7
