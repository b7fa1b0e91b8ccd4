"""Watches: what a watcher sees, in which order, and what it costs others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcp.api import watch_cache
from kcp.api.context import ServerSettings
from kcp.api.verbs import freshness
from kcp.machinery.errors import Invalid
from kcp.machinery.watch import INITIAL_EVENTS_END, WatchEvent
from tests.api.harness import CONFIG_MAPS, PODS, Api, config_map, pod, running_api

Events = AsyncIterator[Sequence[WatchEvent]]


async def take(events: Events, count: int) -> list[WatchEvent]:
    """The next `count` events; fails when they do not come."""
    found: list[WatchEvent] = []
    with anyio.fail_after(5):
        while len(found) < count:
            found += await anext(events)
    assert len(found) == count
    return found


def seen(events: Sequence[WatchEvent]) -> list[tuple[str, str]]:
    return [(event.type, event.object["metadata"].get("name", "")) for event in events]


async def joined(api: Api, path: str, **params: str) -> Any:
    """A watch from now on that has already joined the feed."""
    events: Any = await api.watch(path, resourceVersion=str(api.store.rv), **params)
    with anyio.move_on_after(0):
        await anext(events)
    return events


async def test_initial_events_then_changes() -> None:
    async with running_api() as api:
        await api.create(CONFIG_MAPS, config_map("a"))
        events = await api.watch(CONFIG_MAPS)
        assert seen(await take(events, 1)) == [("ADDED", "a")]
        await api.create(CONFIG_MAPS, config_map("b"))
        await api.patch(f"{CONFIG_MAPS}/a", {"data": {"x": "1"}})
        await api.delete(f"{CONFIG_MAPS}/b")
        changes = await take(events, 3)
        assert seen(changes) == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]
        assert changes[-1].object["metadata"]["resourceVersion"] == str(api.store.rv)
        await events.aclose()  # type: ignore[attr-defined]
        assert api.server.caches.watchers() == 0


async def test_a_watch_resumes_where_it_was() -> None:
    async with running_api() as api:
        start = str(api.store.rv)
        for name in ("a", "b", "c"):
            await api.create(CONFIG_MAPS, config_map(name))
        events = await api.watch(CONFIG_MAPS, resourceVersion=start)
        assert seen(await take(events, 3)) == [("ADDED", name) for name in ("a", "b", "c")]


async def test_a_resume_before_the_ring_reads_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_cache, "RING", 2)
    monkeypatch.setattr(watch_cache, "BATCH", 3)
    async with running_api() as api:
        start = str(api.store.rv)
        names = [f"c{number}" for number in range(8)]
        for name in names:
            await api.create(CONFIG_MAPS, config_map(name))
        events = await api.watch(CONFIG_MAPS, resourceVersion=start)
        assert seen(await take(events, 8)) == [("ADDED", name) for name in names]
        await api.create(CONFIG_MAPS, config_map("last"))
        assert seen(await take(events, 1)) == [("ADDED", "last")]


async def test_a_slow_watcher_misses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_cache, "QUEUE", 3)
    monkeypatch.setattr(watch_cache, "RING", 4)
    async with running_api() as api:
        events = await joined(api, CONFIG_MAPS)
        names = [f"c{number}" for number in range(10)]
        for name in names:
            await api.create(CONFIG_MAPS, config_map(name))
        assert seen(await take(events, 10)) == [("ADDED", name) for name in names]


async def test_before_the_horizon_the_watch_is_expired() -> None:
    async with running_api() as api:
        await api.create(CONFIG_MAPS, config_map("a"))
        await api.store.move_horizon(api.store.rv)
        events = await api.watch(CONFIG_MAPS, resourceVersion="1")
        [error] = await take(events, 1)
        assert error.type == "ERROR"
        assert (error.object["code"], error.object["reason"]) == (410, "Expired")
        assert error.object["message"] == f"too old resource version: 1 ({api.store.rv})"
        with pytest.raises(StopAsyncIteration):
            await anext(events)


async def test_from_a_revision_to_come_a_watch_shows_what_comes_after_it() -> None:
    async with running_api() as api:
        events = await api.watch(CONFIG_MAPS, resourceVersion=str(api.store.rv + 2))
        with anyio.move_on_after(0):
            await anext(events)
        for name in ("a", "b", "c"):
            await api.create(CONFIG_MAPS, config_map(name))
        assert seen(await take(events, 1)) == [("ADDED", "c")]


async def test_a_watch_list_of_a_revision_to_come_says_in_its_stream_that_it_does_not_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(freshness, "WAIT_S", 0.0)
    async with running_api() as api:
        asked = api.store.rv + 9
        more = {
            "sendInitialEvents": "true",
            "resourceVersionMatch": "NotOlderThan",
            "allowWatchBookmarks": "true",
        }
        events = await api.watch(CONFIG_MAPS, resourceVersion=str(asked), **more)
        (event,) = await take(events, 1)
        assert (event.type, event.object["code"], event.object["reason"]) == ("ERROR", 504, "Timeout")
        text = f"Too large resource version: {asked}, current: {api.store.rv}"
        assert event.object["message"] == f"Timeout: {text}"
        assert event.object["details"] == {
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        }
        with pytest.raises(StopAsyncIteration):
            await anext(events)


async def test_entering_and_leaving_a_selector() -> None:
    async with running_api() as api:
        events = await joined(api, CONFIG_MAPS, labelSelector="on=yes")
        path = f"{CONFIG_MAPS}/a"
        await api.create(CONFIG_MAPS, config_map("a"))
        await api.patch(path, {"metadata": {"labels": {"on": "yes"}}})
        await api.patch(path, {"data": {"x": "1"}})
        await api.patch(path, {"metadata": {"labels": {"on": "no"}}})
        left = str(api.store.rv)
        await api.delete(path)
        changes = await take(events, 3)
        assert [event.type for event in changes] == ["ADDED", "MODIFIED", "DELETED"]
        gone = changes[-1].object["metadata"]
        assert (gone["labels"], gone["resourceVersion"]) == ({"on": "yes"}, left)
        assert changes[-1].document.encoded.count(b'"resourceVersion":"%s"' % left.encode()) == 1


async def test_a_node_sees_its_pods_come_and_go() -> None:
    async with running_api() as api:
        mine = await joined(api, "/api/v1/pods", fieldSelector="spec.nodeName=n1")
        other = await joined(api, "/api/v1/pods", fieldSelector="spec.nodeName=n2")
        await api.create(PODS, pod())
        await api.create(f"{PODS}/web/binding", {"target": {"name": "n1"}})
        await api.delete(f"{PODS}/web", gracePeriodSeconds=0)
        assert [event.type for event in await take(mine, 2)] == ["ADDED", "DELETED"]
        with anyio.move_on_after(0.01):
            await anext(other)
            raise AssertionError("the other node must see nothing")


async def test_one_object_by_name() -> None:
    async with running_api() as api:
        events = await joined(api, CONFIG_MAPS, fieldSelector="metadata.name=b")
        for name in ("a", "b", "c"):
            await api.create(CONFIG_MAPS, config_map(name))
        assert seen(await take(events, 1)) == [("ADDED", "b")]


async def test_namespaces_are_kept_apart() -> None:
    async with running_api() as api:
        await api.create("/api/v1/namespaces", {"metadata": {"name": "other"}})
        events = await joined(api, CONFIG_MAPS)
        await api.create("/api/v1/namespaces/other/configmaps", config_map("x"))
        await api.create(CONFIG_MAPS, config_map("y"))
        assert seen(await take(events, 1)) == [("ADDED", "y")]


async def test_watchers_of_all_share_one_event() -> None:
    async with running_api() as api:
        one, two = await joined(api, CONFIG_MAPS), await joined(api, "/api/v1/configmaps")
        await api.create(CONFIG_MAPS, config_map("a"))
        [first], [second] = await take(one, 1), await take(two, 1)
        assert first is second


async def test_a_watch_list_ends_its_initial_events() -> None:
    async with running_api() as api:
        await api.create(CONFIG_MAPS, config_map("a"))
        params = {
            "sendInitialEvents": "true",
            "resourceVersionMatch": "NotOlderThan",
            "allowWatchBookmarks": "true",
        }
        added, end = await take(await api.watch(CONFIG_MAPS, **params), 2)
        assert added.type == "ADDED"
        assert end.type == "BOOKMARK"
        assert end.object["metadata"] == {
            "resourceVersion": str(api.store.rv),
            "annotations": {INITIAL_EVENTS_END: "true"},
        }


async def test_a_watch_list_needs_its_match() -> None:
    async with running_api() as api:
        with pytest.raises(Invalid) as caught:
            await api.watch(CONFIG_MAPS, sendInitialEvents="true")
        assert caught.value.message == (
            'ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires'
            " setting resourceVersionMatch to NotOlderThan"
        )


async def test_bookmarks_tell_the_published_revision_of_any_resource() -> None:
    async with running_api(settings=ServerSettings(bookmark_interval_s=10)) as api:
        events = await joined(api, CONFIG_MAPS, allowWatchBookmarks="true")
        await api.create(PODS, pod())
        api.clock.advance(11)
        [bookmark] = await take(events, 1)
        assert bookmark.type == "BOOKMARK"
        assert bookmark.document.rv == api.store.rv


async def test_the_timeout_ends_a_watch_with_a_bookmark() -> None:
    async with running_api() as api:
        events = await joined(api, CONFIG_MAPS, allowWatchBookmarks="true", timeoutSeconds="5")
        api.clock.advance(6)
        [bookmark] = await take(events, 1)
        assert bookmark.type == "BOOKMARK"
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        assert api.server.caches.watchers() == 0


async def test_draining_ends_every_watch() -> None:
    async with running_api() as api:
        events = await joined(api, CONFIG_MAPS)
        api.server.caches.drain()
        with pytest.raises(StopAsyncIteration):
            await anext(events)


async def test_waiting_may_be_cancelled_without_loss() -> None:
    async with running_api() as api:
        events = await joined(api, CONFIG_MAPS)
        for _ in range(3):
            with anyio.move_on_after(0):
                await anext(events)
        await api.create(CONFIG_MAPS, config_map("a"))
        assert seen(await take(events, 1)) == [("ADDED", "a")]


async def test_events_are_watched_in_the_version_asked_for() -> None:
    async with running_api() as api:
        events = await joined(api, "/apis/events.k8s.io/v1/namespaces/default/events")
        event = {"metadata": {"name": "e"}, "involvedObject": {"namespace": "default"}, "message": "hello"}
        await api.create("/api/v1/namespaces/default/events", event)
        [added] = await take(events, 1)
        assert (added.object["apiVersion"], added.object["note"]) == ("events.k8s.io/v1", "hello")


Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "delete", "label"]), st.integers(0, 3), st.integers(0, 1)), max_size=25
)


@given(STEPS, st.integers(0, 25), st.sampled_from([2, 100]))
@settings(max_examples=40, deadline=None)
async def test_replaying_a_watch_gives_the_list(steps: list[Step], late: int, queue: int) -> None:
    """Law: initial events plus changes, through a selector, equal what a list with that selector shows at the end."""
    async with running_api() as api:
        before, watch_cache.QUEUE = watch_cache.QUEUE, queue
        try:
            for step in steps[:late]:
                await _do(api, step)
            events = await api.watch(CONFIG_MAPS, labelSelector="l=1")
            state: dict[str, str] = {}
            with anyio.move_on_after(0):
                _apply(state, await anext(events))
            for step in steps[late:]:
                await _do(api, step)
            with anyio.move_on_after(0):
                while True:
                    _apply(state, await anext(events))
            listed = await api.list(CONFIG_MAPS, labelSelector="l=1")
            assert state == {o["metadata"]["name"]: o["metadata"]["resourceVersion"] for o in listed.items}
        finally:
            watch_cache.QUEUE = before


def _apply(state: dict[str, str], batch: Sequence[WatchEvent]) -> None:
    for event in batch:
        metadata = event.object["metadata"]
        if event.type == "DELETED":
            assert metadata["name"] in state
            del state[metadata["name"]]
        else:
            assert (event.type == "ADDED") is (metadata["name"] not in state)
            state[metadata["name"]] = metadata["resourceVersion"]


async def _do(api: Api, step: Step) -> None:
    what, number, label = step
    path = f"{CONFIG_MAPS}/c{number}"
    exists = api.stored("configmaps", f"c{number}") is not None
    if what == "delete":
        if exists:
            await api.delete(path)
    elif not exists:
        obj = config_map(f"c{number}")
        obj["metadata"]["labels"] = {"l": str(label)}
        await api.create(CONFIG_MAPS, obj)
    elif what == "label":
        await api.patch(path, {"metadata": {"labels": {"l": str(label)}}})
    else:
        await api.patch(path, {"data": {"n": str(api.store.rv)}})
