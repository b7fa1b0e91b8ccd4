"""From a group resource to the path that serves it.

`CatalogMapper` answers from the catalog of the server in this process, custom resources included; `DiscoveryMapper`
asks any Kubernetes API server. Both give the preferred version: the first one that discovery lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import quote

import attrs
import orjson

from kcp.apis.kind import Catalog
from kcp.base.clock import Clock, SystemClock
from kcp.base.values import frozen
from kcp.client.answers import raise_for_status, value_of
from kcp.client.transport import Transport
from kcp.machinery.errors import ApiError, NotFound
from kcp.machinery.gvk import group_resource
from kcp.wire.http import Request

Json = dict[str, Any]

_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_REDISCOVER_AFTER_S = 1.0


@frozen
class Mapping:
    """How one resource is reached. `prefix` is `/api/v1` or `/apis/<group>/<version>`."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    verbs: tuple[str, ...] = ()
    prefix: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        prefix = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        object.__setattr__(self, "prefix", prefix)

    @property
    def resource(self) -> str:
        return group_resource(self.group, self.plural)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Percent-decoded, as `Request.path` is."""
        path = self.prefix
        if self.namespaced and namespace:
            path = f"{path}/namespaces/{namespace}"
        path = f"{path}/{self.plural}"
        if name:
            path = f"{path}/{name}"
        return f"{path}/{subresource}" if subresource else path


class Mapper(Protocol):
    async def resolve(self, resource: str) -> Mapping:
        """The mapping of `pods` or `deployments.apps`. Raises NotFound when no server knows it."""
        ...

    async def mappings(self) -> Sequence[Mapping]:
        """Every resource in its preferred version, in discovery's order."""
        ...


class CatalogMapper:
    """Follows a live catalog; a resource that was added or removed is noticed by the catalog's revision."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._revision = -1
        self._by_resource: dict[str, Mapping] = {}

    def _current(self) -> dict[str, Mapping]:
        if self._revision != self._catalog.revision:
            self._revision = self._catalog.revision
            self._by_resource = {}
            for kind in self._catalog.kinds():
                gvk = kind.gvk
                mapping = Mapping(gvk.group, gvk.version, kind.plural, gvk.kind, kind.namespaced, kind.verbs)
                self._by_resource.setdefault(mapping.resource, mapping)
        return self._by_resource

    async def resolve(self, resource: str) -> Mapping:
        mapping = self._current().get(resource)
        if mapping is None:
            raise NotFound.path()
        return mapping

    async def mappings(self) -> Sequence[Mapping]:
        return list(self._current().values())


class DiscoveryMapper:
    """Reads the aggregated discovery documents, or the legacy ones of servers without them."""

    def __init__(self, transport: Transport, clock: Clock | None = None, timeout_s: float = 30.0) -> None:
        self._transport = transport
        self._clock = clock or SystemClock()
        self._timeout_s = timeout_s
        self._by_resource: dict[str, Mapping] = {}
        self._discovered_at_s: float | None = None

    async def resolve(self, resource: str) -> Mapping:
        mapping = self._by_resource.get(resource)
        if mapping is None and self._stale():
            await self.discover()
            mapping = self._by_resource.get(resource)
        if mapping is None:
            raise NotFound.path()
        return mapping

    async def mappings(self) -> Sequence[Mapping]:
        if self._discovered_at_s is None:
            await self.discover()
        return list(self._by_resource.values())

    def _stale(self) -> bool:
        at = self._discovered_at_s
        return at is None or self._clock.monotonic() - at >= _REDISCOVER_AFTER_S

    async def discover(self) -> None:
        """Read everything anew."""
        found: dict[str, Mapping] = {}
        for path in ("/api", "/apis"):
            document = await self._get(path, f"{_AGGREGATED},application/json")
            if document.get("kind") == "APIGroupDiscoveryList":
                rows = _aggregated(document)
            else:
                rows = await self._legacy(path, document)
            for mapping in rows:
                found.setdefault(mapping.resource, mapping)
        self._by_resource = found
        self._discovered_at_s = self._clock.monotonic()

    async def _get(self, path: str, accept: str = "application/json") -> Json:
        response = await self._transport.request(
            Request("GET", path, headers={"accept": accept}), self._timeout_s
        )
        raise_for_status(response)
        value = value_of(response)
        return value if isinstance(value, dict) else orjson.loads(value)

    async def _legacy(self, path: str, document: Json) -> list[Mapping]:
        if path == "/api":
            group_versions = [("", version) for version in document.get("versions", ())]
        else:
            group_versions = [
                pair for group in document.get("groups", ()) for pair in _preferred_first(group)
            ]
        rows: list[Mapping] = []
        for group, version in group_versions:
            prefix = f"/apis/{quote(group)}/{version}" if group else f"/api/{version}"
            try:
                rows += _legacy_rows(group, version, await self._get(prefix))
            except ApiError:
                continue  # one aggregated API that is down must not hide all others
        return rows


def _aggregated(document: Json) -> list[Mapping]:
    return [
        Mapping(
            (group.get("metadata") or {}).get("name", ""),
            version["version"],
            row["resource"],
            (row.get("responseKind") or {}).get("kind", ""),
            row.get("scope") == "Namespaced",
            tuple(row.get("verbs", ())),
        )
        for group in document.get("items", ())
        for version in group.get("versions", ())
        for row in version.get("resources", ())
    ]


def _preferred_first(group: Json) -> list[tuple[str, str]]:
    preferred = (group.get("preferredVersion") or {}).get("version", "")
    versions = [entry["version"] for entry in group.get("versions", ())]
    ordered = sorted(versions, key=lambda version: version != preferred)
    return [(group["name"], version) for version in ordered]


def _legacy_rows(group: str, version: str, document: Json) -> list[Mapping]:
    return [
        Mapping(group, version, row["name"], row["kind"], row["namespaced"], tuple(row.get("verbs", ())))
        for row in document.get("resources", ())
        if "/" not in row["name"]
    ]
