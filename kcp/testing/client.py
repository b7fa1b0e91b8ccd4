"""A client for code that does not await: resources by any of their names, objects by what they say of themselves.

    client.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}})
    client.get("configmaps", "a")
    client.wait_for(lambda: client.get("Deployment", "web")["status"].get("readyReplicas") == 3)

Objects without a namespace are in `default`. Answers are copies. Failures are the classes of kcp.machinery.errors.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlencode

import anyio
import attrs
import orjson
from anyio.from_thread import BlockingPortal

from kcp.base.clock import SystemClock
from kcp.base.values import frozen
from kcp.client.client import Client, PatchType
from kcp.client.mapper import Mapping
from kcp.machinery.errors import BadRequest, NotFound

Json = dict[str, Any]
T = TypeVar("T")

WAIT_S = 30.0
FIELD_MANAGER = "kcp-testing"
_PAUSE_S = 0.02
_JSON = "application/json"
_APPLY = "application/apply-patch+yaml"


@frozen
class BlockingClient:
    """Requests of the administrator, made in the cluster's thread while the caller waits."""

    _client: Client
    _portal: BlockingPortal

    def get(self, resource: str, name: str, namespace: str = "default") -> Json:
        found = self._call(self._client.get, self._mapping(resource).resource, name, namespace)
        return _copy(found)  # type: ignore[no-any-return]

    def list(
        self, resource: str, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> Sequence[Json]:
        """Empty `namespace` means all namespaces."""
        page = self._call(
            self._client.list_all,
            self._mapping(resource).resource,
            namespace,
            label_selector=label_selector,
            field_selector=field_selector,
        )
        return [_copy(item) for item in page.items]

    def create(self, obj: Json) -> Json:
        mapping = self._mapping_of(obj)
        return self._write("POST", mapping.path(_namespace(obj)), obj, _JSON)

    def update(self, obj: Json, *, subresource: str = "") -> Json:
        """Replace the object; its resourceVersion, where it has one, is the precondition."""
        return self._write("PUT", self._path(obj, subresource), obj, _JSON)

    def apply(self, obj: Json, *, field_manager: str = FIELD_MANAGER, force: bool = False) -> Json:
        """Server-side apply. Raises Conflict when others own fields of it, unless `force`."""
        query = urlencode({"fieldManager": field_manager, "force": "true" if force else "false"})
        return self._write("PATCH", self._path(obj), obj, _APPLY, query)

    def patch(
        self,
        resource: str,
        name: str,
        patch: Any,
        namespace: str = "default",
        *,
        type: PatchType = "merge",
        subresource: str = "",
    ) -> Json:
        written = self._call(
            self._client.patch,
            self._mapping(resource).resource,
            name,
            patch,
            type,
            namespace,
            subresource=subresource,
        )
        return _copy(written.object)  # type: ignore[no-any-return]

    def delete(
        self,
        resource: str,
        name: str,
        namespace: str = "default",
        *,
        propagation: str = "",
        grace_s: int | None = None,
    ) -> None:
        """Ask for the deletion; finalizers and grace periods may keep the object for a while."""
        self._call(
            self._client.delete,
            self._mapping(resource).resource,
            name,
            namespace,
            propagation=propagation,
            grace_s=grace_s,
        )

    def wait_for(self, condition: Callable[[], T], timeout_s: float = WAIT_S) -> T:
        """The first true answer of `condition`; NotFound counts as not yet. Raises TimeoutError with the last answer."""
        clock = SystemClock()
        until_s = clock.monotonic() + timeout_s
        while True:
            last: Any
            try:
                last = condition()
            except NotFound as error:
                last = error
            else:
                if last:
                    return last  # type: ignore[no-any-return]
            if clock.monotonic() >= until_s:
                raise TimeoutError(
                    f"the condition did not hold within {timeout_s:g} s; it last gave {last!r}"
                )
            self._portal.call(anyio.sleep, _PAUSE_S)

    def _call(self, verb: Callable[..., Awaitable[T]], *args: Any, **options: Any) -> T:
        return self._portal.call(partial(verb, *args, **options))

    def _write(self, method: str, path: str, obj: Json, content_type: str, query: str = "") -> Json:
        written = self._call(
            self._client.request, method, path, body=_copy(obj), query=query, content_type=content_type
        )
        return _copy(written.object)  # type: ignore[no-any-return]

    def _path(self, obj: Json, subresource: str = "") -> str:
        return self._mapping_of(obj).path(_namespace(obj), obj["metadata"]["name"], subresource)

    def _mapping(self, name: str) -> Mapping:
        """By `deployments.apps`, `deployments`, `deployment` or `Deployment`. Raises NotFound."""
        mappings = self._portal.call(self._client.mapper.mappings)
        wanted = name.lower()
        for mapping in mappings:
            if wanted in (mapping.resource, mapping.plural, mapping.kind.lower()):
                return mapping
        raise NotFound.path()

    def _mapping_of(self, obj: Json) -> Mapping:
        """By apiVersion and kind. Raises NotFound, or BadRequest when the object lacks them."""
        if not obj.get("apiVersion") or not obj.get("kind"):
            raise BadRequest("an object needs apiVersion and kind")
        group, _, version = obj["apiVersion"].rpartition("/")
        for mapping in self._portal.call(self._client.mapper.mappings):
            if (mapping.group, mapping.kind) == (group, obj["kind"]):
                return attrs.evolve(mapping, version=version)
        raise NotFound.path()


def _namespace(obj: Json) -> str:
    return str(obj.get("metadata", {}).get("namespace") or "default")


def _copy(value: Any) -> Any:
    return orjson.loads(orjson.dumps(value))
