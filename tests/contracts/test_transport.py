"""What every Transport does, over a handler in this process and over TLS to a real socket."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import pytest_asyncio
from anyio.abc import TaskStatus

from kcp.base.certs import Authority
from kcp.base.clock import SystemClock
from kcp.base.entropy import SeededEntropy
from kcp.client.cache.shared_informer import SharedInformer
from kcp.client.client import Client
from kcp.client.credentials import StaticCredentials
from kcp.client.https import HttpsTransport, target_of
from kcp.client.transport import InProcessTransport, Transport, Unreachable
from kcp.machinery import fence
from kcp.machinery.errors import NotFound, Timeout
from kcp.machinery.fence import LeaseFence
from kcp.wire.connect import client_tls
from kcp.wire.http import Request, Response
from kcp.wire.server import ServerTls, serve
from tests.client.support import Told, pod
from tests.support.background import in_background, running
from tests.support.fake_api import FakeApi

CA = Authority.create("kubernetes", SystemClock(), SeededEntropy(1))


def serving_tls(directory: Path) -> ServerTls:
    certificate, key = CA.issue("kube-apiserver", [], server=True, client=False, ips=["127.0.0.1"])
    (directory / "ca.crt").write_bytes(CA.certificate_pem)
    (directory / "tls.crt").write_bytes(certificate)
    (directory / "tls.key").write_bytes(key)
    return ServerTls(str(directory / "tls.crt"), str(directory / "tls.key"), (str(directory / "ca.crt"),))


def calling_tls() -> ssl.SSLContext:
    certificate, key = CA.issue("alice", ["dev"])
    return client_tls(
        ca_pem=CA.certificate_pem.decode(), certificate_pem=certificate.decode(), key_pem=key.decode()
    )


@asynccontextmanager
async def over_https(handler: Any, directory: Path) -> AsyncIterator[HttpsTransport]:
    async def service(*, task_status: TaskStatus[int]) -> None:
        def ready(addresses: list[tuple[str, int]]) -> None:
            task_status.started(addresses[0][1])

        await serve(handler, tls=serving_tls(directory), on_ready=ready, drain_timeout_s=0.1)

    async with in_background(service) as port:
        target = target_of(f"https://127.0.0.1:{port}", calling_tls())
        transport = HttpsTransport(target, StaticCredentials("Bearer secret"), user_agent="tests")
        try:
            yield transport
        finally:
            await transport.close()


@pytest.fixture
def api() -> FakeApi:
    return FakeApi(in_process=False, rv=10)


@pytest_asyncio.fixture(params=["in process", "https"])
async def transport(request: pytest.FixtureRequest, api: FakeApi, tmp_path: Path) -> AsyncIterator[Transport]:
    if request.param == "in process":
        yield InProcessTransport(api, identity="alice", user_agent="tests", in_process=False)
        return
    async with over_https(api, tmp_path) as https:
        yield https


async def test_a_request_gets_its_answer(transport: Transport, api: FakeApi) -> None:
    api.put("pods", pod("web"))
    response = await transport.request(Request("GET", "/api/v1/namespaces/default/pods/web"), 5)
    assert response.status == 200
    assert b'"name":"web"' in response.body
    assert api.requests[-1].header("user-agent") == "tests"


async def test_failures_of_the_api_are_answers(transport: Transport) -> None:
    response = await transport.request(Request("GET", "/api/v1/namespaces/default/pods/none"), 5)
    assert response.status == 404
    response = await transport.request(Request("GET", "/api/v1/pods", "watch=true&resourceVersion=1"), 5)
    assert response.status == 200
    await _close(response)


async def test_paths_and_queries_arrive_as_they_are(transport: Transport, api: FakeApi) -> None:
    client = Client(transport)
    with pytest.raises(NotFound, match='pods "a:b c%2F" not found'):
        await client.get("pods", "a:b c%2F", "default")
    await client.list("pods", label_selector="a=b,c in (d, é)")
    assert api.requests[-1].query == "labelSelector=a%3Db%2Cc+in+%28d%2C+%C3%A9%29"


async def test_writes_carry_bodies_and_say_their_revision(transport: Transport) -> None:
    client = Client(transport)
    created = await client.create("pods", pod("web", image="é" * 100_000))
    assert (created.revision, created.status) == (11, 201)
    assert (await client.get("pods", "web", "default"))["spec"]["image"] == "é" * 100_000
    deleted = await client.delete("pods", "web", "default")
    assert (deleted.object["kind"], deleted.revision) == ("Status", 12)


async def test_streams_arrive_as_they_are_sent_and_end_when_they_are_closed(
    transport: Transport, api: FakeApi
) -> None:
    client = Client(transport)
    with anyio.fail_after(10):
        watch = await client.open_watch("pods", resource_version="10")
        api.put("pods", pod("a"))
        batch = await anext(watch)
        assert [(event.type, event.document.rv) for event in batch] == [("ADDED", 11)]
        assert batch[0].document.encoded == api.objects["pods"]["default/a"].encoded
        await watch.aclose()  # type: ignore[attr-defined]
        while api.watchers:
            api.put("pods", pod("a"))
            await anyio.sleep(0.01)


async def test_many_requests_at_once(transport: Transport, api: FakeApi) -> None:
    client = Client(transport)
    api.put("pods", pod("a"))
    names: list[str] = []

    async def read() -> None:
        names.append((await client.get("pods", "a", "default"))["metadata"]["name"])

    async with anyio.create_task_group() as group:
        for _ in range(30):
            group.start_soon(read)
    assert names == ["a"] * 30


async def test_an_informer_works_over_every_transport(transport: Transport, api: FakeApi) -> None:
    api.put("pods", pod("a"))
    informer, told = SharedInformer(Client(transport), "pods"), Told()
    informer.add_handler(told)
    async with running(informer.run):
        assert await informer.wait_for_sync(10)
        for i in range(200):
            api.put("pods", pod(f"p{i:03}"))
        assert await informer.wait_for_rv(api.rv, 10)
    assert told.take() == ["+a", *(f"+p{i:03}" for i in range(200))]


async def test_a_server_that_is_not_there_is_unreachable(tmp_path: Path, api: FakeApi) -> None:
    async with over_https(api, tmp_path) as transport:
        gone = HttpsTransport(transport.target)
    with pytest.raises(Unreachable, match="cannot connect"):
        await gone.request(Request("GET", "/version"), 5)
    await gone.close()


async def test_an_answer_that_does_not_come_is_a_timeout(tmp_path: Path) -> None:
    async def silent(request: Request) -> Response:
        await anyio.sleep(30)
        return Response(200)

    async with over_https(silent, tmp_path) as transport:
        with pytest.raises(Timeout, match="the server was unable to return a response in the time allotted"):
            await transport.request(Request("GET", "/version"), 0.2)


async def test_credentials_and_client_certificate_reach_the_server(tmp_path: Path, api: FakeApi) -> None:
    from kcp.base.certs import identity_of_der

    async with over_https(api, tmp_path) as transport:
        await transport.request(Request("GET", "/api"), 5)
    assert api.requests[-1].header("authorization") == "Bearer secret"
    assert identity_of_der(api.requests[-1].peer_certificate) == ("alice", ("dev",))


async def test_a_server_of_another_authority_is_refused(tmp_path: Path, api: FakeApi) -> None:
    other = Authority.create("other", SystemClock(), SeededEntropy(2))
    async with over_https(api, tmp_path) as transport:
        tls = client_tls(ca_pem=other.certificate_pem.decode())
        stranger = HttpsTransport(target_of(f"https://127.0.0.1:{transport.target.port}", tls))
        with pytest.raises(Unreachable, match="TLS"):
            await stranger.request(Request("GET", "/version"), 5)
        await stranger.close()


async def test_an_in_process_caller_keeps_its_identity() -> None:
    api = FakeApi()
    transport = InProcessTransport(api, identity="alice")
    await transport.request(Request("GET", "/api"), 5)
    assert api.requests[-1].identity == "alice"
    await transport.request(Request("GET", "/api", identity="bob"), 5)
    assert api.requests[-1].identity == "bob"


async def _close(response: Response) -> None:
    assert response.stream is not None
    await response.stream.aclose()  # type: ignore[attr-defined]


async def test_a_leaders_claim_goes_along_with_its_writes(tmp_path: Path, api: FakeApi) -> None:
    claim = LeaseFence("kube-system", "kube-scheduler", "u-1", "alpha 1", 3)
    async with over_https(api, tmp_path) as transport:
        client = Client(transport, fence=lambda: claim)
        await client.create("pods", pod("web"))
        assert fence.parse(api.requests[-1].header(fence.HEADER)) == claim
        await client.get("pods", "web", "default")
        assert api.requests[-1].header(fence.HEADER) == ""


async def test_so_many_requests_are_under_way_at_once_and_watches_do_not_count(tmp_path: Path) -> None:
    under_way, most = 0, 0

    async def slow(request: Request) -> Response:
        nonlocal under_way, most
        if "watch" in request.query:
            return Response(200, stream=_forever())
        under_way += 1
        most = max(most, under_way)
        await anyio.sleep(0.02)
        under_way -= 1
        return Response(200, [("content-type", "application/json")], b"{}")

    async with over_https(slow, tmp_path) as made:
        transport = HttpsTransport(made.target, concurrency=3)
        watches = [await transport.request(Request("GET", "/api/v1/pods", "watch=1"), 5) for _ in range(4)]
        async with anyio.create_task_group() as group:
            for _ in range(12):
                group.start_soon(transport.request, Request("GET", "/version"), 5)
        assert most == 3
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(transport.request, Request("GET", "/version"), 5)
            await anyio.sleep(0)
            with pytest.raises(Timeout):
                await transport.request(Request("GET", "/version"), 0.001)
        for watch in watches:
            await _close(watch)
        await transport.close()


async def _forever() -> AsyncIterator[bytes]:
    yield b"\n"
    await anyio.sleep_forever()
