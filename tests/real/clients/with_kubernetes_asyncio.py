"""kubernetes_asyncio, unmodified: requests, watches and the dynamic client on one event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.real.daemon import Daemon

kubernetes = pytest.importorskip(
    "kubernetes_asyncio", reason="the PyPI package kubernetes_asyncio is not installed"
)

pytestmark = pytest.mark.real
Json = dict[str, Any]


@asynccontextmanager
async def connected(daemon: Daemon) -> AsyncIterator[Any]:
    client = await kubernetes.config.new_client_from_config(str(daemon.kubeconfig))
    try:
        yield client
    finally:
        await client.close()


def config_map(name: str, **data: str) -> Json:
    return {"metadata": {"name": name, "labels": {"made-by": "test"}}, "data": data}


async def test_create_read_update_patch_delete(daemon: Daemon, namespace: str) -> None:
    async with connected(daemon) as client:
        core = kubernetes.client.CoreV1Api(client)
        made = await core.create_namespaced_config_map(namespace, config_map("a", x="1"))
        made.data["y"] = "2"
        replaced = await core.replace_namespaced_config_map("a", namespace, made)
        assert replaced.data == {"x": "1", "y": "2"}
        patched = await core.patch_namespaced_config_map("a", namespace, {"data": {"x": None}})
        assert patched.data == {"y": "2"}
        operations = [{"op": "add", "path": "/data/z", "value": "3"}]
        assert (await core.patch_namespaced_config_map("a", namespace, operations)).data == {
            "y": "2",
            "z": "3",
        }
        assert (await core.delete_namespaced_config_map("a", namespace)).status == "Success"


async def test_many_requests_at_once_and_pages(daemon: Daemon, namespace: str) -> None:
    async with connected(daemon) as client:
        core = kubernetes.client.CoreV1Api(client)
        await asyncio.gather(
            *(core.create_namespaced_config_map(namespace, config_map(f"m-{n:02}")) for n in range(25))
        )
        seen, token = [], None
        while token != "":
            page = await core.list_namespaced_config_map(
                namespace, label_selector="made-by=test", limit=10, _continue=token
            )
            seen += [item.metadata.name for item in page.items]
            token = page.metadata._continue or ""
        assert seen == [f"m-{n:02}" for n in range(25)]


async def test_a_watch_with_resume(daemon: Daemon, namespace: str) -> None:
    async with connected(daemon) as client:
        core = kubernetes.client.CoreV1Api(client)
        rv = (await core.list_namespaced_config_map(namespace)).metadata.resource_version
        seen: list[tuple[str, str]] = []

        async def follow(rv: str, count: int) -> str:
            last = rv
            async with kubernetes.watch.Watch().stream(
                core.list_namespaced_config_map, namespace, label_selector="made-by=test", resource_version=rv
            ) as stream:
                async for event in stream:
                    seen.append((event["type"], event["object"].metadata.name))
                    last = event["object"].metadata.resource_version
                    if len(seen) == count:
                        break
            return last

        async with asyncio.timeout(30):
            first = asyncio.create_task(follow(rv, 1))
            await core.create_namespaced_config_map(namespace, config_map("a"))
            rv = await first
            await core.patch_namespaced_config_map("a", namespace, {"data": {"x": "1"}})
            await core.delete_namespaced_config_map("a", namespace)
            await follow(rv, 3)
        assert seen == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]


async def test_the_dynamic_client(daemon: Daemon, namespace: str) -> None:
    from kubernetes_asyncio.dynamic import DynamicClient

    async with connected(daemon) as client:
        dynamic = await DynamicClient(client)
        deployments = await dynamic.resources.get(api_version="apps/v1", kind="Deployment")
        assert (await deployments.get(namespace=namespace)).items == []
        template = {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "registry.example/web:1"}]},
        }
        spec = {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": template}
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}
        made = await deployments.create(body=body, namespace=namespace)
        assert made.spec.strategy.type == "RollingUpdate"
        await deployments.delete(name="web", namespace=namespace)


async def test_errors(daemon: Daemon, namespace: str) -> None:
    async with connected(daemon) as client:
        core = kubernetes.client.CoreV1Api(client)

        async def refused(call: Any) -> tuple[int, str]:
            with pytest.raises(kubernetes.client.ApiException) as error:
                await call
            return error.value.status, json.loads(error.value.body)["reason"]

        assert await refused(core.read_namespaced_config_map("nope", namespace)) == (404, "NotFound")
        await core.create_namespaced_config_map(namespace, config_map("a"))
        again = core.create_namespaced_config_map(namespace, config_map("a"))
        assert await refused(again) == (409, "AlreadyExists")
        assert await refused(core.create_namespaced_config_map(namespace, config_map("A_B"))) == (
            422,
            "Invalid",
        )


async def test_a_token(daemon: Daemon, namespace: str) -> None:
    async with connected(daemon) as client:
        core = kubernetes.client.CoreV1Api(client)
        await core.create_namespaced_service_account(namespace, {"metadata": {"name": "robot"}})
        request = await core.create_namespaced_service_account_token("robot", namespace, {"spec": {}})
        configuration = kubernetes.client.Configuration()
        configuration.host, configuration.ssl_ca_cert = (
            client.configuration.host,
            client.configuration.ssl_ca_cert,
        )
        configuration.api_key = {"BearerToken": f"Bearer {request.status.token}"}
        async with kubernetes.client.ApiClient(configuration) as robot:
            me = await kubernetes.client.AuthenticationV1Api(robot).create_self_subject_review({})
        assert me.status.user_info.username == f"system:serviceaccount:{namespace}:robot"
        assert "system:serviceaccounts" in me.status.user_info.groups
