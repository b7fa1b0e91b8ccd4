from __future__ import annotations

import pytest

from kcp.base.entropy import SeededEntropy
from kcp.client.client import Client
from kcp.client.retry import on_conflict
from kcp.client.transport import InProcessTransport
from kcp.machinery.errors import AlreadyExists, Conflict, InternalError, NotFound, TooManyRequests
from kcp.wire.http import Request, Response
from tests.client.support import client_of, pod
from tests.support.fake_api import FakeApi


@pytest.fixture(params=["in process", "bytes"])
def api(request: pytest.FixtureRequest) -> FakeApi:
    return FakeApi(in_process=request.param == "in process")


async def test_the_life_of_an_object(api: FakeApi) -> None:
    client = client_of(api)
    created = await client.create("pods", pod("web"))
    assert (created.revision, created.status) == (1, 201)
    assert created.object["metadata"]["name"] == "web"
    with pytest.raises(AlreadyExists, match='pods "web" already exists'):
        await client.create("pods", pod("web"))
    read = await client.get("pods", "web", "default")
    changed = {**read, "spec": {"nodeName": "n1"}}
    updated = await client.update("pods", changed)
    assert updated.revision == 2
    with pytest.raises(Conflict):
        await client.update("pods", changed)
    patched = await client.patch("pods", "web", {"metadata": {"labels": {"a": "b"}}}, "merge", "default")
    assert patched.object["metadata"]["labels"] == {"a": "b"}
    deleted = await client.delete("pods", "web", "default", uid="x", propagation="Foreground", grace_s=0)
    assert (deleted.object["kind"], deleted.revision) == ("Status", 4), (
        "a Status has no revision, the answer has"
    )
    with pytest.raises(NotFound, match='pods "web" not found'):
        await client.get("pods", "web", "default")


async def test_paths_and_bodies_are_kubernetes(api: FakeApi) -> None:
    client = client_of(api)
    api.put("deployments.apps", pod("d"))
    api.put("nodes", {"metadata": {"name": "n1"}})
    await client.get("deployments.apps", "d", "default", subresource="status")
    assert api.requests[-1].path == "/apis/apps/v1/namespaces/default/deployments/d/status"
    await client.get("nodes", "n1")
    assert api.requests[-1].path == "/api/v1/nodes/n1"
    await client.list("deployments.apps", label_selector="a in (b,c)", limit=5)
    assert api.requests[-1].path == "/apis/apps/v1/deployments"
    assert api.requests[-1].query == "labelSelector=a+in+%28b%2Cc%29&limit=5"
    await client.apply("deployments.apps", pod("d"), "me", force=True)
    assert api.requests[-1].headers["content-type"] == "application/apply-patch+yaml"
    assert api.requests[-1].query == "fieldManager=me&force=true"
    await client.update_status("deployments.apps", pod("d"), dry_run=True, field_validation="Strict")
    assert api.requests[-1].path.endswith("/deployments/d/status")
    assert api.requests[-1].query == "dryRun=All&fieldValidation=Strict"


async def test_lists_page_and_say_where_they_stand(api: FakeApi) -> None:
    client = client_of(api)
    for i in range(7):
        api.put("pods", pod(f"p{i}"))
    page = await client.list("pods", "default", limit=3)
    assert ([o["metadata"]["name"] for o in page.items], page.rv) == (["p0", "p1", "p2"], 7)
    page = await client.list("pods", "default", limit=3, continue_=page.continue_)
    assert page.items[0]["kind"] == "Pod"
    assert len((await client.list_all("pods")).items) == 7


async def test_watches_deliver_batches_in_order(api: FakeApi) -> None:
    client = client_of(api)
    api.put("pods", pod("a"))
    api.put("pods", pod("b"))
    seen: list[tuple[str, str, int]] = []
    async for batch in client.watch("pods", resource_version="1"):
        for event in batch:
            seen.append((event.type, event.object["metadata"]["name"], event.document.rv))
        if len(seen) == 1:
            api.remove("pods", "b", "default")
        else:
            break
    assert seen == [("ADDED", "b", 2), ("DELETED", "b", 3)]


async def test_errors_of_a_watch_are_raised(api: FakeApi) -> None:
    client = client_of(api)
    watch = client.watch("pods", resource_version="0", send_initial_events=True)
    await anext(watch)
    api.cut_watches(InternalError("gone"))
    with pytest.raises(InternalError, match="gone"):
        await anext(watch)


async def test_causes_and_fences_travel_with_writes(api: FakeApi) -> None:
    client = client_of(api)
    await client.create("pods", pod("a"), cause=7, fence="claim")
    assert (api.requests[-1].cause, api.requests[-1].fence) == (7, "claim")
    client.fence = lambda: "standing claim"
    await client.delete("pods", "a", "default", cause=8)
    assert (api.requests[-1].cause, api.requests[-1].fence) == (8, "standing claim")


@pytest.mark.sim
async def test_a_server_that_asks_for_patience_gets_it(api: FakeApi) -> None:
    client = client_of(api)
    api.put("pods", pod("a"))
    await client.get("pods", "a", "default")
    before = len(api.requests)
    api.faults.extend([TooManyRequests("wait", 3), TooManyRequests("wait", 3)])
    assert (await client.get("pods", "a", "default"))["metadata"]["name"] == "a"
    assert len(api.requests) - before == 3


async def test_answers_that_are_no_status_become_errors_too() -> None:
    async def proxy(request: Request) -> Response:
        return Response(502, [("content-type", "text/html")], b"<html>bad gateway</html>")

    client = Client(InProcessTransport(proxy, None, in_process=False))
    with pytest.raises(
        Exception, match=r"an error on the server .* has prevented the request from succeeding"
    ):
        await client.request("GET", "/version")


@pytest.mark.sim
async def test_read_change_write_until_no_one_was_in_between(api: FakeApi) -> None:
    client = client_of(api)
    api.put("pods", pod("a"))
    tries = 0

    async def attempt() -> int:
        nonlocal tries
        tries += 1
        read = await client.get("pods", "a", "default")
        if tries < 3:
            api.put("pods", pod("a", nodeName=f"n{tries}"))
        return (await client.update("pods", {**read, "spec": {"nodeName": "mine"}})).revision

    assert await on_conflict(attempt, SeededEntropy(1)) == api.rv
    assert tries == 3

    async def hopeless() -> None:
        raise Conflict("always")

    with pytest.raises(Conflict):
        await on_conflict(hopeless, SeededEntropy(1))
