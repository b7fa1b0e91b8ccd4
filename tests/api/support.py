"""What the API's tests share: users, RBAC objects, an RBAC authorizer over plain lists."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, cast

import attrs
import orjson

from kcp.api.admission.order import default_chain
from kcp.api.allocation import Allocator
from kcp.api.app import build
from kcp.api.auth.bootstrap_roles import bootstrap_objects
from kcp.api.auth.protocol import ALL_AUTHENTICATED, Attributes, UserInfo
from kcp.api.auth.rbac import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    ROLES,
    RbacAuthorizer,
)
from kcp.api.auth.setup import Auth, setup
from kcp.api.context import Call, Server, ServerSettings
from kcp.api.negotiation import render
from kcp.api.request_info import parse_query, request_info
from kcp.api.results import Result
from kcp.api.watch_cache import WatchCaches
from kcp.apis.catalog import build_catalog
from kcp.apis.kind import Catalog
from kcp.base.clock import VirtualClock
from kcp.base.entropy import SeededEntropy
from kcp.machinery.document import normal
from kcp.store.open import open_store
from kcp.store.protocol import Key, KindRow, Operation, Put, Store
from kcp.wire.http import Handler, Request, Response

Json = dict[str, Any]
CATALOG = build_catalog()
_RESOURCES = {
    "Role": ROLES,
    "ClusterRole": CLUSTER_ROLES,
    "RoleBinding": ROLE_BINDINGS,
    "ClusterRoleBinding": CLUSTER_ROLE_BINDINGS,
}


def user(name: str, *groups: str) -> UserInfo:
    return UserInfo(name, groups=(*groups, ALL_AUTHENTICATED))


def rule(verbs: str, resources: str = "", groups: str = "", names: str = "", urls: str = "") -> Json:
    """Words separated by blanks; `-` in groups is the core group."""
    out: Json = {"verbs": verbs.split()}
    if resources:
        out["resources"] = resources.split()
        out["apiGroups"] = [group.strip("-") for group in groups.split()] or [""]
    if names:
        out["resourceNames"] = names.split()
    if urls:
        out["nonResourceURLs"] = urls.split()
    return out


def cluster_role(name: str, *rules: Json, **more: Any) -> Json:
    labels = more.pop("labels", {})
    return {"kind": "ClusterRole", "metadata": {"name": name, "labels": labels}, "rules": list(rules), **more}


def role(namespace: str, name: str, *rules: Json) -> Json:
    return {"kind": "Role", "metadata": {"name": name, "namespace": namespace}, "rules": list(rules)}


def _subject(text: str) -> Json:
    kind, _, name = text.partition(":")
    if kind == "ServiceAccount":
        namespace, _, account = name.partition("/")
        return {"kind": kind, "name": account, "namespace": namespace}
    return {"kind": kind, "name": name, "apiGroup": "rbac.authorization.k8s.io"}


def binding(name: str, role_name: str, *subjects: str, namespace: str = "", role_kind: str = "") -> Json:
    """`subjects` as `User:x`, `Group:x`, `ServiceAccount:ns/x`."""
    metadata = {"name": name, "namespace": namespace} if namespace else {"name": name}
    return {
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "metadata": metadata,
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": role_kind or ("Role" if namespace else "ClusterRole"),
            "name": role_name,
        },
        "subjects": [_subject(subject) for subject in subjects],
    }


def rbac(*objects: Json) -> RbacAuthorizer:
    def list_objects(resource: str) -> Sequence[Json]:
        return [obj for obj in objects if _RESOURCES[obj["kind"]] == resource]

    return RbacAuthorizer(list_objects)


def asks(
    who: UserInfo,
    verb: str,
    resource: str,
    namespace: str = "",
    *,
    group: str = "",
    name: str = "",
    subresource: str = "",
) -> Attributes:
    return Attributes(who, verb, group, "v1", resource, subresource, namespace, name)


def call(method: str, target: str, accept: str = "", **headers: str) -> Call:
    """A Call as the front makes it, of an authenticated nobody; underscores in header names become hyphens."""
    path, _, query = target.partition("?")
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if accept:
        sent["accept"] = accept
    request = Request(method, path, query, sent)
    params, repeated = parse_query(query)
    info = request_info(request, params)
    made = Call(request, info, user("nobody"), params=params, repeated=repeated)
    made.kind = CATALOG.by_resource(info.group, info.version, info.resource)
    return made


@attrs.frozen
class _OnlyAClock:
    """The part of a server that rendering uses."""

    clock: VirtualClock


def rendered(call: Call, result: Result) -> Response:
    """`negotiation.render` at the start of virtual time."""
    return render(cast(Server, _OnlyAClock(VirtualClock())), call, result)


@contextlib.asynccontextmanager
async def api(
    *objects: Json,
    settings: ServerSettings | None = None,
    extras: Mapping[str, Any] | None = None,
    auth: Callable[[Store], Auth] | None = None,
) -> AsyncIterator[tuple[Server, Handler]]:
    """A whole API server over a memory store that holds the default roles and `objects`."""
    clock, entropy, catalog = VirtualClock(), SeededEntropy(1), build_catalog()
    settings = settings or ServerSettings()
    store = open_store("memory:", clock=clock, inline=True, entropy=entropy)
    store.register(kind_rows(catalog))
    running = asyncio.create_task(store.run())
    await store.append_all([_put(catalog, obj, entropy.uid()) for obj in [*bootstrap_objects(), *objects]])
    made = (auth or (lambda store: setup(store, clock)))(store)
    server = Server(
        store=store,
        catalog=catalog,
        clock=clock,
        entropy=entropy,
        caches=WatchCaches(store, catalog, clock, settings),
        admission=default_chain(store, entropy, made.authorizer),
        allocator=Allocator(store, entropy, [settings.service_cidr], settings.node_port_range),
        authenticator=made.authenticator,
        authorizer=made.authorizer,
        settings=settings,
        extras={"rbac": made.rbac, **(extras or {})},
    )
    try:
        yield server, build(server)
    finally:
        server.caches.close()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def kind_rows(catalog: Catalog) -> list[KindRow]:
    kinds = [kind for kind in catalog.kinds() if kind.stored and not kind.storage_resource]
    return [
        KindRow(kind.resource, kind.group, kind.version, kind.kind, kind.plural, kind.namespaced)
        for kind in kinds
    ]


def _put(catalog: Catalog, obj: Json, uid: str) -> Operation:
    group, _, version = obj["apiVersion"].rpartition("/")
    kind = catalog.by_kind(group, version, obj["kind"])
    assert kind is not None, obj
    metadata = {"creationTimestamp": "2026-01-01T00:00:00Z", "uid": uid, **obj["metadata"]}
    value = {**obj, "metadata": metadata}
    key = Key(kind.resource, metadata.get("namespace", ""), metadata["name"])
    return Operation(key, lambda current, head: Put(normal(value), value))


def as_json(response: Response) -> Any:
    return orjson.loads(response.body)
