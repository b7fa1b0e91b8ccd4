"""Which function serves a request: tables of verbs and subresources.

Source: k8s v1.36 apiserver/pkg/endpoints/installer.go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from kcp.api import component_status
from kcp.api.context import Call, RequestInfo, Server
from kcp.api.subresources import (
    binding,
    bulk,
    bulk_deletes,
    eviction,
    finalize,
    pod_changes,
    pod_streams,
    proxy,
    renewals,
    scale,
    status,
    token,
)
from kcp.api.subresources.approval import approval_rules
from kcp.api.transaction import Rules
from kcp.api.verbs import connect, create, delete, get, list, patch, update, watch
from kcp.apis.kind import Kind
from kcp.machinery.errors import MethodNotAllowed, NotFound

Handler = Callable[[Server, Call], Awaitable[Any]]
"""Answers a Result, or a Response for streams and logs."""

VERBS: Mapping[str, Handler] = {
    "create": create.handle,
    "get": get.handle,
    "list": list.handle,
    "watch": watch.handle,
    "update": update.handle,
    "patch": patch.handle,
    "delete": delete.handle,
    "deletecollection": delete.handle_collection,
}

_OF_A_NAMESPACE = frozenset({"create", "get", "update", "patch", "delete", "deletecollection"})
"""Verbs that a namespaced resource serves only below a namespace."""

_OF_ONE = frozenset({"update", "patch"})


async def _put_approval(server: Server, call: Call) -> Any:
    return await update.handle(server, call, subresource="approval", rules=_approval(server))


async def _patch_approval(server: Server, call: Call) -> Any:
    return await patch.handle(server, call, subresource="approval", rules=_approval(server))


def _approval(server: Server) -> Rules:
    return approval_rules(server.clock.now)


_PROXIED = dict.fromkeys(("get", "create", "update", "patch", "delete"), proxy.handle)

SUBRESOURCES: Mapping[str, Mapping[str, Handler]] = {
    "status": {"get": get.handle, "update": status.put, "patch": status.apply_patch},
    "scale": {"get": scale.read, "update": scale.put, "patch": scale.apply_patch},
    "approval": {"get": get.handle, "update": _put_approval, "patch": _patch_approval},
    "finalize": {"update": finalize.put},
    "binding": {"create": binding.create},
    "eviction": {"create": eviction.create},
    "token": {"create": token.create},
    "ephemeralcontainers": {
        "get": get.handle,
        "update": pod_changes.put_ephemeral_containers,
        "patch": pod_changes.patch_ephemeral_containers,
    },
    "resize": {"get": get.handle, "update": pod_changes.put_resize, "patch": pod_changes.patch_resize},
    "log": {"get": pod_streams.log},
    "exec": {"get": pod_streams.stream, "create": pod_streams.stream},
    "attach": {"get": pod_streams.stream, "create": pod_streams.stream},
    "portforward": {"get": pod_streams.stream, "create": pod_streams.stream},
    "proxy": _PROXIED,
}

PATHS: Mapping[tuple[str, str], Handler] = {
    ("POST", "/kcp/v1/bindings"): binding.batch,
    ("POST", "/kcp/v1/creates"): bulk.creates,
    ("POST", "/kcp/v1/deletes"): bulk_deletes.deletes,
    ("POST", "/kcp/v1/renewals"): renewals.renewals,
}
"""Paths that are no resources, by method: what the components inside the process have among themselves."""


def path_handler(call: Call) -> Handler | None:
    """The function for a path that is no resource; None when it is not one of ours."""
    return PATHS.get((call.request.method, call.info.path))


def handler_for(call: Call) -> Handler:
    """The function that serves a resource request. Raises NotFound or MethodNotAllowed."""
    kind, info = call.kind, call.info
    if not info.is_resource:
        handler = path_handler(call)
        if handler is None:
            raise NotFound.path()
        return handler
    if kind is None:
        raise NotFound.path()
    if info.subresource:
        return _subresource_handler(call)
    if (
        info.verb not in kind.verbs
        or _is_misplaced(info)
        or (kind.namespaced and not info.namespace and info.verb in _OF_A_NAMESPACE)
    ):
        raise MethodNotAllowed.http()
    if not kind.stored:
        return _virtual_handler(kind)
    return VERBS[info.verb]


def _virtual_handler(kind: Kind) -> Handler:
    """For kinds of which nothing is stored."""
    if kind.kind == "ComponentStatus":
        return component_status.handle
    return binding.create if kind.kind == "Binding" else connect.review


def _is_misplaced(info: RequestInfo) -> bool:
    """Whether one object is meant and not named, or named though it is only to be made."""
    return bool(info.name) if info.verb == "create" else not info.name and info.verb in _OF_ONE


def _subresource_handler(call: Call) -> Handler:
    kind, info = call.kind, call.info
    assert kind is not None
    declared = kind.subresource(info.subresource)
    if declared is None or not info.name or (info.subpath.strip("/") and info.subresource != "proxy"):
        raise NotFound.path()
    handler = SUBRESOURCES.get(info.subresource, {}).get(info.verb)
    if handler is None or info.verb not in declared.verbs:
        raise MethodNotAllowed.http()
    return handler
