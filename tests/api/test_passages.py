"""Gets that are answered at once, and those that need not walk the chain again: the answer is that of the whole walk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from kcp.api.app import Application
from kcp.api.auth.rbac import CLUSTER_ROLE_BINDINGS
from kcp.api.auth.setup import setup
from kcp.api.context import Server
from kcp.api.passages import LIFE_S
from kcp.base.clock import VirtualClock
from kcp.store.protocol import Key, Operation, Remove, Store
from kcp.wire.http import Request, Response
from tests.api.support import api, binding, cluster_role, rule
from tests.wire.support import make_ca

Json = dict[str, Any]
CA = make_ca("cluster")
MAPS = "/api/v1/namespaces/d/configmaps"
FRESH = ("audit-id",)


def certificate(name: str) -> bytes:
    pem, _ = CA.issue(name, ())
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)


ALICE = certificate("alice")


def config_map(name: str) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "d"}}


def with_certificates(store: Store) -> Any:
    return setup(store, VirtualClock(datetime.now(UTC)), client_ca_pems=[CA.pem.encode()])


@asynccontextmanager
async def cluster(**options: Any) -> AsyncIterator[tuple[Server, Application]]:
    objects = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "d"}},
        *(config_map(name) for name in "abc"),
        *(
            {"apiVersion": "rbac.authorization.k8s.io/v1", **obj}
            for obj in (
                cluster_role("reader", rule("get", "configmaps"), rule("get", "secrets", names="a")),
                binding("reads", "reader", "User:alice"),
                cluster_role("actor", rule("impersonate", "users", names="alice")),
                binding("acts", "actor", "User:bob"),
            )
        ),
    ]
    async with api(*objects, auth=with_certificates, **options) as (server, handler):
        assert isinstance(handler, Application)
        yield server, handler


def get(path: str, headers: Mapping[str, str], query: str = "", peer: bytes = ALICE) -> Request:
    return Request("GET", path, query, headers, peer_certificate=peer)


def seen(response: Response | None) -> tuple[int, bytes, list[tuple[str, str]]]:
    assert response is not None
    return response.status, response.whole, sorted(h for h in response.headers if h[0] not in FRESH)


def audit_id(response: Response | None) -> str:
    assert response is not None
    return response.header("audit-id")


async def test_the_second_get_says_what_the_whole_walk_says() -> None:
    async with cluster() as (_, handler):
        headers = {"accept": "application/json", "user-agent": "kubectl"}
        for name in "abcab":
            request = get(f"{MAPS}/{name}", headers)
            assert seen(handler.at_once(request)) == seen(await handler(attrs.evolve(request)))
        assert handler.passages._known, "or this test compares the walk with itself"
        ids = {audit_id(handler.at_once(get(f"{MAPS}/{name}", headers))) for name in "aab"}
        assert len(ids) == 3


@pytest.mark.parametrize(
    ("path", "query", "changed"),
    [
        (f"{MAPS}/none", "", {}),
        (f"{MAPS}/a/", "", {}),
        (f"{MAPS}/", "", {}),
        ("/api/v1/namespaces/e/configmaps/a", "", {}),
        ("/api/v1/namespaces/d/secrets/b", "", {}),
        (f"{MAPS}/a", "pretty=true", {}),
        (f"{MAPS}/a", "resourceVersion=999999999", {}),
        (f"{MAPS}/a", "", {"accept": "application/yaml"}),
        (f"{MAPS}/a", "", {"accept": "text/plain"}),
        (f"{MAPS}/a", "", {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}),
        (f"{MAPS}/a", "", {"user-agent": "curl/8"}),
        (f"{MAPS}/a", "", {"impersonate-user": "bob"}),
        (f"{MAPS}/a", "", {"audit-id": "mine"}),
    ],
)
async def test_other_gets_are_not_mistaken_for_it(path: str, query: str, changed: Json) -> None:
    async with cluster() as (_, handler):
        plain = {"accept": "application/json", "user-agent": "kubectl"}
        headers = {**plain, **changed} if changed else plain
        for each in (plain, headers, headers):
            handler.at_once(get(f"{MAPS}/a", each))
        request = get(path, headers, query)
        answer = handler.at_once(request)
        walked = asyncio.create_task(handler(attrs.evolve(request)))
        if answer is not None:
            assert seen(answer) == seen(await walked)
        walked.cancel()


async def test_the_right_to_impersonate_is_asked_each_time() -> None:
    async with cluster() as (server, handler):
        headers, bob = {"accept": "application/json", "impersonate-user": "alice"}, certificate("bob")
        assert seen(handler.at_once(get(f"{MAPS}/a", headers, peer=bob)))[0] == 200
        key = Key(CLUSTER_ROLE_BINDINGS, "", "acts")
        await server.store.append(Operation(key, lambda current, head: Remove()))
        assert seen(handler.at_once(get(f"{MAPS}/b", headers, peer=bob)))[0] == 403


async def test_a_right_that_is_taken_away_is_gone_at_once() -> None:
    async with cluster() as (server, handler):
        headers = {"accept": "application/json"}
        assert seen(handler.at_once(get(f"{MAPS}/a", headers)))[0] == 200
        assert seen(handler.at_once(get(f"{MAPS}/b", headers)))[0] == 200
        key = Key(CLUSTER_ROLE_BINDINGS, "", "reads")
        await server.store.append(Operation(key, lambda current, head: Remove()))
        assert seen(handler.at_once(get(f"{MAPS}/b", headers)))[0] == 403


async def test_another_certificate_with_the_same_headers_is_another_client() -> None:
    async with cluster() as (_, handler):
        headers = {"accept": "application/json"}
        assert seen(handler.at_once(get(f"{MAPS}/a", headers)))[0] == 200
        assert seen(handler.at_once(get(f"{MAPS}/a", headers, peer=certificate("bob"))))[0] == 403


async def test_it_is_remembered_for_a_second() -> None:
    async with cluster() as (server, handler):
        headers = {"accept": "application/json"}
        handler.at_once(get(f"{MAPS}/a", headers))
        assert handler.passages.answer(get(f"{MAPS}/b", headers)) is not None
        assert isinstance(server.clock, VirtualClock)
        server.clock.advance(LIFE_S * 1.01)
        assert handler.passages.answer(get(f"{MAPS}/b", headers)) is None
        assert seen(handler.at_once(get(f"{MAPS}/b", headers)))[0] == 200


async def test_every_get_is_counted() -> None:
    async with cluster() as (server, handler):
        headers = {"accept": "application/json"}
        for name in "abcabc":
            handler.at_once(get(f"{MAPS}/{name}", headers))
        text = server.extras["metrics"].exposition().decode()
        counts = [line for line in text.splitlines() if 'resource="configmaps"' in line and "_total{" in line]
        assert [float(line.rpartition(" ")[2]) for line in counts] == [6.0]


async def test_an_open_request_is_told_apart_by_its_namespace() -> None:
    """A namespace is in the path once, as the name: gets of others ask for rights in others."""
    async with cluster() as (_, handler):
        headers = {"accept": "application/json"}
        for name in ("d", "default"):
            answer = handler.at_once(get(f"/api/v1/namespaces/{name}", headers))
            assert seen(answer)[0] == 403
        assert not handler.passages._known
