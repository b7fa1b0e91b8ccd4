"""Acting as somebody else: Impersonate-User, -Group, -Uid, -Extra-*.

Each thing asked for is authorized with the verb `impersonate`, as the user who really asks.
Source: k8s v1.36 apiserver/pkg/endpoints/filters/impersonation/impersonation.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote

import attrs

from kcp.api.auth.protocol import (
    ALL_AUTHENTICATED,
    ALL_UNAUTHENTICATED,
    ANONYMOUS,
    Attributes,
    Authorizer,
    UserInfo,
)
from kcp.api.auth.service_account import group_names, split_username
from kcp.api.context import Call, Server
from kcp.api.filters.authorization import forbidden
from kcp.base.values import frozen
from kcp.machinery.errors import BadRequest
from kcp.wire.http import Request

_PREFIX = "impersonate-"
_KINDS = {"groups": "Group", "userextras": "UserExtra", "uids": "UID"}
_EXTRA_PREFIX = "impersonate-extra-"


@frozen
class Wanted:
    """Whom a request wants to be: one resource of authentication.k8s.io or core that `impersonate` is asked for."""

    resource: str
    name: str
    group: str = ""
    version: str = ""
    namespace: str = ""
    subresource: str = ""

    def __str__(self) -> str:
        return f"{self.resource}/{self.name}"


@attrs.define
class Impersonation:
    authorizer: Authorizer

    @classmethod
    def of(cls, server: Server) -> Impersonation:
        return cls(server.authorizer)

    def enter(self, call: Call) -> None:
        """Raises BadRequest for groups without a user, Forbidden for what the user may not be."""
        headers = call.request.headers
        for name in headers:
            if name.startswith(_PREFIX):
                break
        else:
            return
        wanted = list(wanted_by(call.request))
        if not wanted:
            return
        for item in wanted:
            self._authorize(call.user, item)
        original = call.user
        call.user = impersonated(call.request, wanted)
        call.annotations["authorization.kcp.io/impersonator"] = original.name

    def _authorize(self, user: UserInfo, item: Wanted) -> None:
        question = Attributes(
            user,
            "impersonate",
            item.group,
            item.version,
            item.resource,
            item.subresource,
            item.namespace,
            item.name,
        )
        verdict, reason = self.authorizer.authorize(question)
        if verdict != "allow":
            raise forbidden(question, reason)


def wanted_by(request: Request) -> Iterator[Wanted]:
    """What has to be allowed, in Kubernetes' order: user, groups, extras, uid."""
    user = request.header("impersonate-user")
    others = [*_groups(request), *_extras(request), *_uid(request)]
    if others and not user:
        asked = " ".join(map(_go_reference, others))
        raise BadRequest(f"requested [{asked}] without impersonating a user")
    if user:
        account = split_username(user)
        if account is not None:
            yield Wanted("serviceaccounts", account[1], namespace=account[0])
        else:
            yield Wanted("users", user)
    yield from others


def _go_reference(item: Wanted) -> str:
    """How Go prints the ObjectReference that stands for it: kind, namespace, name, uid, version, revision, path."""
    version = f"{item.group}/{item.version}" if item.group else ""
    return f"{{{_KINDS[item.resource]}  {item.name}  {version}  {item.subresource}}}"


def _groups(request: Request) -> list[Wanted]:
    return [Wanted("groups", group) for group in request.values("impersonate-group")]


def _extras(request: Request) -> Iterator[Wanted]:
    for header in request.headers:
        if header.startswith(_EXTRA_PREFIX):
            key = unquote(header.removeprefix(_EXTRA_PREFIX).lower())
            for value in request.values(header):
                yield Wanted("userextras", value, "authentication.k8s.io", "v1", subresource=key)


def _uid(request: Request) -> list[Wanted]:
    uid = request.header("impersonate-uid")
    return [Wanted("uids", uid, "authentication.k8s.io", "v1")] if uid else []


def impersonated(request: Request, wanted: list[Wanted]) -> UserInfo:
    """The user to act as. Service accounts get their groups when none were asked for."""
    name = request.header("impersonate-user")
    groups = [item.name for item in wanted if item.resource == "groups"]
    account = split_username(name)
    if not groups and account is not None:
        groups = list(group_names(account[0]))
    default = ALL_UNAUTHENTICATED if name == ANONYMOUS else ALL_AUTHENTICATED
    settled = (default,) if name == ANONYMOUS else (ALL_AUTHENTICATED, ALL_UNAUTHENTICATED)
    if not any(group in settled for group in groups):
        groups.append(default)
    extra: dict[str, list[str]] = {}
    for item in wanted:
        if item.resource == "userextras":
            extra.setdefault(item.subresource, []).append(item.name)
    pairs = tuple((key, tuple(values)) for key, values in sorted(extra.items()))
    return UserInfo(name, request.header("impersonate-uid"), tuple(groups), pairs)
