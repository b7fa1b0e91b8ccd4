"""What paths and queries mean, as kube-apiserver reads them."""

from __future__ import annotations

import pytest

from kcp.api.context import RequestInfo
from kcp.api.request_info import is_long_running, parse_query, request_info
from kcp.machinery.errors import InternalError
from kcp.wire.http import Request


def info(method: str, target: str) -> RequestInfo:
    path, _, query = target.partition("?")
    return request_info(Request(method, path, query), parse_query(query)[0])


# method, target -> verb, group, version, namespace, resource, subresource, name
# Source: k8s v1.36 apiserver/pkg/endpoints/request/requestinfo_test.go
RESOURCES = [
    ("GET", "/api/v1/namespaces", "list", "", "v1", "", "namespaces", "", ""),
    ("GET", "/api/v1/namespaces/other", "get", "", "v1", "other", "namespaces", "", "other"),
    ("GET", "/api/v1/namespaces/other/pods", "list", "", "v1", "other", "pods", "", ""),
    ("GET", "/api/v1/namespaces/other/pods/foo", "get", "", "v1", "other", "pods", "", "foo"),
    ("HEAD", "/api/v1/namespaces/other/pods/foo", "get", "", "v1", "other", "pods", "", "foo"),
    ("GET", "/api/v1/pods", "list", "", "v1", "", "pods", "", ""),
    ("HEAD", "/api/v1/pods", "list", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/proxy/namespaces/other/pods/foo", "proxy", "", "v1", "other", "pods", "", "foo"),
    ("GET", "/api/v1/proxy/namespaces/other/pods/foo/sub/x", "proxy", "", "v1", "other", "pods", "", "foo"),
    ("GET", "/api/v1/watch/pods", "watch", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/pods?watch=true", "watch", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/pods?watch=", "watch", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/pods?watch=false", "list", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/pods?watch=0", "list", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/watch/namespaces/other/pods", "watch", "", "v1", "other", "pods", "", ""),
    ("GET", "/api/v1/watch/namespaces/other/pods/x", "watch", "", "v1", "other", "pods", "", "x"),
    ("GET", "/api/v1/namespaces/other/pods?watch=1", "watch", "", "v1", "other", "pods", "", ""),
    ("GET", "/api/v1/namespaces/other/pods/x?watch=1", "get", "", "v1", "other", "pods", "", "x"),
    ("GET", "/api/v1/namespaces/other/pods/foo/log", "get", "", "v1", "other", "pods", "log", "foo"),
    ("PUT", "/api/v1/namespaces/other/finalize", "update", "", "v1", "other", "namespaces", "finalize", "other"),
    ("GET", "/api/v1/namespaces/other/status", "get", "", "v1", "other", "namespaces", "status", "other"),
    ("DELETE", "/api/v1/namespaces/other/pods", "deletecollection", "", "v1", "other", "pods", "", ""),
    ("DELETE", "/api/v1/namespaces/other/pods/foo", "delete", "", "v1", "other", "pods", "", "foo"),
    ("POST", "/api/v1/namespaces/other/pods", "create", "", "v1", "other", "pods", "", ""),
    ("PUT", "/api/v1/namespaces/other/pods/foo", "update", "", "v1", "other", "pods", "", "foo"),
    ("PATCH", "/api/v1/namespaces/other/pods/foo", "patch", "", "v1", "other", "pods", "", "foo"),
    ("POST", "/apis/apps/v1/namespaces/a/deployments/d/scale", "create", "apps", "v1", "a", "deployments", "scale", "d"),
    ("GET", "/apis/storage.k8s.io/v1/storageclasses/s", "get", "storage.k8s.io", "v1", "", "storageclasses", "", "s"),
    ("OPTIONS", "/api/v1/pods", "", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dx", "list", "", "v1", "", "pods", "", "x"),
    ("GET", "/api/v1/pods?watch=1&fieldSelector=metadata.name=x,spec.nodeName=n", "watch", "", "v1", "", "pods", "", "x"),
    ("GET", "/api/v1/pods?fieldSelector=metadata.name!%3Dx", "list", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Da%2Fb", "list", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/pods?fieldSelector=metadata.name===", "list", "", "v1", "", "pods", "", ""),
]  # fmt: skip


@pytest.mark.parametrize("row", RESOURCES, ids=lambda row: f"{row[0]} {row[1]}")
def test_resource_paths(row: tuple[str, ...]) -> None:
    method, target, verb, group, version, namespace, resource, subresource, name = row
    found = info(method, target)
    assert found.is_resource
    assert (found.verb, found.group, found.version) == (verb, group, version)
    assert (found.namespace, found.resource, found.subresource, found.name) == (
        namespace,
        resource,
        subresource,
        name,
    )


@pytest.mark.parametrize(
    "path",
    ["/", "/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1", "/version", "/healthz/ping", "/a/b/c/d"],
)
def test_other_paths_keep_their_method_as_verb(path: str) -> None:
    found = info("POST", path)
    assert (found.is_resource, found.verb, found.path) == (False, "post", path)


@pytest.mark.parametrize(
    ("path", "subpath"),
    [
        ("/api/v1/namespaces/d/services/web:80/proxy", ""),
        ("/api/v1/namespaces/d/services/web:80/proxy/", "/"),
        ("/api/v1/namespaces/d/services/web:80/proxy/a/b", "a/b"),
        ("/api/v1/namespaces/d/services/web:80/proxy/a/b/", "a/b/"),
        ("/api/v1/nodes/n1/proxy/stats/summary", "stats/summary"),
    ],
)
def test_what_follows_proxy_is_kept(path: str, subpath: str) -> None:
    found = info("GET", path)
    assert (found.subresource, found.subpath) == ("proxy", subpath)


def test_a_watch_of_nothing_is_an_internal_error() -> None:
    with pytest.raises(InternalError, match="unable to determine kind and namespace from url"):
        info("GET", "/api/v1/watch")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/api/v1/pods?watch=1", True),
        ("/api/v1/namespaces/d/pods/p/log", True),
        ("/api/v1/namespaces/d/pods/p/exec", True),
        ("/api/v1/nodes/n/proxy/x", True),
        ("/api/v1/pods", False),
        ("/version", False),
    ],
)
def test_long_running_requests(target: str, expected: bool) -> None:
    assert is_long_running(info("GET", target)) is expected


def test_the_first_value_of_a_parameter_counts_and_all_are_kept() -> None:
    params, repeated = parse_query("command=a&command=b%20c&tty=")
    assert dict(params) == {"command": "a", "tty": ""}
    assert repeated["command"] == ["a", "b c"]
