"""Identity and permission: what authenticators return and authorizers are asked.

Source: k8s v1.36 apiserver/pkg/authentication/user, apiserver/pkg/authorization/authorizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

from kcp.base.values import frozen
from kcp.wire.http import Request

ANONYMOUS = "system:anonymous"
ALL_AUTHENTICATED = "system:authenticated"
ALL_UNAUTHENTICATED = "system:unauthenticated"
MASTERS = "system:masters"


@frozen(cache_hash=True)
class UserInfo:
    """Who asks. `extra` as sorted pairs, so that the whole is hashable."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def extra_map(self) -> Mapping[str, tuple[str, ...]]:
        return dict(self.extra)


PEER = UserInfo("system:kcp:peer", groups=(ALL_AUTHENTICATED,))
"""An API server that passes a request for a node on to the one that runs it."""


@frozen(cache_hash=True)
class Attributes:
    """One question to an authorizer: may this user do this? Either a resource request or a path."""

    user: UserInfo
    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    resource_request: bool = True


Verdict = Literal["allow", "deny", "no opinion"]


class Authenticator(Protocol):
    async def authenticate(self, request: Request) -> UserInfo | None:
        """The user, or None when these credentials are not of this authenticator's kind.

        Raises Unauthorized when they are, but are wrong.
        """
        ...


class Authorizer(Protocol):
    def authorize(self, attributes: Attributes) -> tuple[Verdict, str]:
        """The verdict and the reason given to humans. Answers from memory; never waits."""
        ...
