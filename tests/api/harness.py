"""An API server without its filter chain: requests go straight to their verb, as one trusted user."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import attrs
import orjson

from kcp.api import bootstrap
from kcp.api.admission.order import default_chain
from kcp.api.allocation import Allocator
from kcp.api.auth.protocol import ALL_AUTHENTICATED, MASTERS, Attributes, UserInfo, Verdict
from kcp.api.context import Call, Server, ServerSettings
from kcp.api.request_info import parse_query, request_info
from kcp.api.results import ListResult, ObjectResult, StatusResult, WatchResult
from kcp.api.routes import handler_for
from kcp.api.upkeep.service_ranges import default_range
from kcp.api.watch_cache import WatchCaches
from kcp.apis.catalog import build_catalog
from kcp.base.clock import VirtualClock
from kcp.base.entropy import SeededEntropy
from kcp.machinery.watch import WatchEvent
from kcp.store.log import EventLog
from kcp.store.open import open_store
from kcp.store.protocol import Key
from kcp.wire.http import Request

Json = dict[str, Any]
ADMIN = UserInfo("admin", "", (MASTERS, ALL_AUTHENTICATED))

PODS = "/api/v1/namespaces/default/pods"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
RANGES = "/apis/networking.k8s.io/v1/servicecidrs"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


@attrs.define
class Allowing:
    """Allows everything but what is listed as (verb, resource)."""

    denied: set[tuple[str, str]] = attrs.field(factory=set)

    def authorize(self, attributes: Attributes) -> tuple[Verdict, str]:
        if (attributes.verb, attributes.resource) in self.denied:
            return "no opinion", ""
        return "allow", ""


@attrs.define
class Answer:
    """What a verb answered: the value, its status, and the whole result."""

    value: Any
    status: int
    result: Any
    warnings: list[str]

    @property
    def items(self) -> list[Json]:
        return [document.value for document in self.result.documents]

    @property
    def names(self) -> list[str]:
        return [item["metadata"]["name"] for item in self.items]


def _answer(result: Any, call: Call) -> Answer:
    if isinstance(result, ObjectResult):
        return Answer(result.document.value, result.status, result, call.warnings)
    if isinstance(result, StatusResult):
        return Answer(result.value, result.status, result, call.warnings)
    if isinstance(result, (ListResult, WatchResult)):
        return Answer(None, 200, result, call.warnings)
    return Answer(result.body, result.status, result, call.warnings)


@attrs.define
class Api:
    server: Server
    store: EventLog
    clock: VirtualClock
    authorizer: Allowing
    user: UserInfo = ADMIN

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        user: UserInfo | None = None,
        document: bool = False,
    ) -> Answer:
        """Raw bytes go as they are, anything else as JSON; `document` hands the object over undecoded."""
        raw = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        request = Request(
            method, path, urlencode(params or {}), {"content-type": content_type, "user-agent": "tester/1.0"},
            b"" if document else raw, document=body if document else None,
        )  # fmt: skip
        values, repeated = parse_query(request.query)
        info = request_info(request, values)
        call = Call(request, info, user or self.user, params=values, repeated=repeated)
        if document:
            request.identity = call.user
        if info.is_resource:
            call.kind = self.server.catalog.by_resource(info.group, info.version, info.resource)
        return _answer(await handler_for(call)(self.server, call), call)

    async def create(self, path: str, obj: Json | bytes, **more: Any) -> Json:
        value: Json = (await self.call("POST", path, obj, **more)).value
        return value

    async def get(self, path: str, **params: str) -> Json:
        value: Json = (await self.call("GET", path, params=params)).value
        return value

    async def list(self, path: str, **params: str) -> Answer:
        return await self.call("GET", path, params=params)

    async def watch(self, path: str, **params: str) -> AsyncIterator[Sequence[WatchEvent]]:
        answer = await self.call("GET", path, params={"watch": "true", **params})
        events: AsyncIterator[Sequence[WatchEvent]] = answer.result.events
        return events

    async def update(self, path: str, obj: Json, **more: Any) -> Json:
        value: Json = (await self.call("PUT", path, obj, **more)).value
        return value

    async def patch(self, path: str, patch: Any, kind: str = "merge-patch+json", **more: Any) -> Json:
        value: Json = (
            await self.call("PATCH", path, patch, content_type=f"application/{kind}", **more)
        ).value
        return value

    async def delete(self, path: str, **options: Any) -> Answer:
        return await self.call("DELETE", path, options or None)

    def stored(self, resource: str, name: str, namespace: str = "default") -> Json | None:
        record = self.store.get(Key(resource, namespace, name))
        return None if record is None else record.value


@asynccontextmanager
async def running_api(
    *, bootstrapped: bool = False, settings: ServerSettings | None = None
) -> AsyncIterator[Api]:
    """A server on a memory store, with the namespaces `default` and its account, or with all of the bootstrap."""
    clock, entropy, authorizer = VirtualClock(), SeededEntropy(1), Allowing()
    settings = settings or ServerSettings()
    async with open_store("memory:", clock=clock, entropy=entropy, api_history_s=0) as store:
        catalog = build_catalog()
        store.register(bootstrap.kind_rows(catalog.kinds()))
        server = Server(
            store=store,
            catalog=catalog,
            clock=clock,
            entropy=entropy,
            caches=WatchCaches(store, catalog, clock, settings, entropy),
            admission=default_chain(store, entropy, authorizer),
            allocator=Allocator(store, entropy, [settings.service_cidr], settings.node_port_range),
            authenticator=None,  # type: ignore[arg-type]
            authorizer=authorizer,
            settings=settings,
        )
        api = Api(server, store, clock, authorizer)
        if bootstrapped:
            await bootstrap.ensure(server)
        else:
            await api.create(RANGES, default_range(server.allocator.cidrs))
            await api.create("/api/v1/namespaces", {"metadata": {"name": "default"}})
            await api.create("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
        try:
            yield api
        finally:
            server.caches.close()
            server.allocator.close()


def pod(name: str = "web", **spec: Any) -> Json:
    """A small valid pod; `spec` adds to its spec."""
    metadata = {"name": name} if not name.endswith("-") else {"generateName": name}
    containers = [{"name": "web", "image": "registry.example/web:1"}]
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers, **spec},
    }  # fmt: skip


def config_map(name: str = "settings", **data: str) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def deployment(name: str = "web", replicas: int = 3) -> Json:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
