"""What a path and a query mean.

    /api/v1/namespaces/default/pods/web/log     get log of pod web in default
    /apis/apps/v1/deployments?watch=1           watch deployments of all namespaces
    /api/v1/watch/namespaces/default/pods       the deprecated way to watch
    /version                                    no resource; the verb is the HTTP method

Source: k8s v1.36 apiserver/pkg/endpoints/request/requestinfo.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from urllib.parse import parse_qsl

from kcp.api.context import RequestInfo
from kcp.machinery.errors import InternalError
from kcp.machinery.fields import FieldSelectorError, parse_field_selector
from kcp.wire.http import Request

Params = Mapping[str, str]
Repeated = Mapping[str, list[str]]

SHORT_PATH = 256
"""Longer paths are not remembered: who asks is not known yet."""
_METHOD_VERBS = {
    "POST": "create",
    "GET": "get",
    "HEAD": "get",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
_PATH_VERBS = ("proxy", "watch")
_NAMESPACE_SUBRESOURCES = ("status", "finalize")
_LONG_RUNNING_VERBS = frozenset({"watch", "proxy"})
_LONG_RUNNING_SUBRESOURCES = frozenset({"attach", "exec", "proxy", "log", "portforward"})
_EMPTY: tuple[Params, Repeated] = (MappingProxyType({}), MappingProxyType({}))


def parse_query(query: str) -> tuple[Params, Repeated]:
    """The decoded parameters: the first value of each, and all values of each. Shared and read-only."""
    return _parse_query(query) if query else _EMPTY


@lru_cache(maxsize=1024)
def _parse_query(query: str) -> tuple[Params, Repeated]:
    params: dict[str, str] = {}
    repeated: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True, max_num_fields=1000):
        params.setdefault(name, value)
        repeated.setdefault(name, []).append(value)
    return MappingProxyType(params), MappingProxyType(repeated)


def is_long_running(info: RequestInfo) -> bool:
    """Whether a request may outlive the request timeout and is counted apart."""
    return info.is_resource and (
        info.verb in _LONG_RUNNING_VERBS or info.subresource in _LONG_RUNNING_SUBRESOURCES
    )


def request_info(request: Request, params: Params) -> RequestInfo:
    """Read the path. Raises InternalError for `/api/v1/watch` without anything to watch."""
    if request.method == "POST" and len(request.path) <= SHORT_PATH:
        return _posted(request.path)
    return _read(request.path, request.method, params)


@lru_cache(maxsize=1024)
def _posted(path: str) -> RequestInfo:
    """What is created goes to few paths, and its query says nothing about them."""
    return _read(path, "POST", {})


def _read(path: str, method: str, params: Params) -> RequestInfo:
    stripped = path.strip("/")
    parts = stripped.split("/") if stripped else []
    if len(parts) < 3 or parts[0] not in ("api", "apis") or (parts[0] == "apis" and len(parts) < 4):
        return RequestInfo(is_resource=False, path=path, verb=method.lower())
    group, rest = ("", parts[1:]) if parts[0] == "api" else (parts[1], parts[2:])
    version, rest = rest[0], rest[1:]
    verb = _METHOD_VERBS.get(method, "")
    if rest[0] in _PATH_VERBS:
        verb, rest = rest[0], rest[1:]
        if not rest:
            raise InternalError(
                f"failed to create RequestInfo: unable to determine kind and namespace from url, {path}"
            )
    namespace, rest = _namespace(rest)
    resource, name, subresource, subpath = _resource(rest, verb, path)
    if not name:
        verb, name = _collection_verb(verb, params)
    return RequestInfo(True, path, verb, group, version, namespace, resource, subresource, name, subpath)


def _namespace(rest: list[str]) -> tuple[str, list[str]]:
    """`namespaces/x` is the namespace x; `namespaces/x/pods` are pods in it; `namespaces/x/status` is x's status."""
    if rest[0] != "namespaces" or len(rest) < 2:
        return "", rest
    if len(rest) > 2 and rest[2] not in _NAMESPACE_SUBRESOURCES:
        return rest[1], rest[2:]
    return rest[1], rest


def _resource(rest: list[str], verb: str, path: str) -> tuple[str, str, str, str]:
    """(resource, name, subresource, what follows the subresource, its trailing slash kept)."""
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 and verb != "proxy" else ""
    if len(rest) <= 3 and not (subresource and path.endswith("/")):
        return rest[0], name, subresource, ""
    slash = "/" if path.endswith("/") else ""
    subpath = "/".join(rest[3:] if subresource else rest[2:])
    return rest[0], name, subresource, f"{subpath}{slash}" if subpath else slash


def _collection_verb(verb: str, params: Params) -> tuple[str, str]:
    """(verb, name) of a request without a name in its path.

    A field selector that asks for one object gives its name, so that roles with resourceNames can allow it.
    """
    if verb == "delete":
        return "deletecollection", ""
    if verb != "get":
        return verb, ""
    watch = params.get("watch")
    verb = "watch" if watch is not None and watch.lower() not in ("false", "0") else "list"
    selector = params.get("fieldSelector", "")
    return verb, _selected_name(selector) if "metadata.name" in selector else ""


def _selected_name(selector: str) -> str:
    try:
        name = parse_field_selector(selector).exact("metadata.name") or ""
    except FieldSelectorError:
        return ""
    return "" if name in (".", "..") or "/" in name or "%" in name else name
