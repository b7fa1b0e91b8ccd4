"""Several authenticators as one, several authorizers as one, in the order given.

Source: k8s v1.36 apiserver/pkg/authentication/request/union, apiserver/pkg/authorization/union.
"""

from __future__ import annotations

import attrs

from kcp.api.auth.protocol import (
    ALL_UNAUTHENTICATED,
    ANONYMOUS,
    MASTERS,
    Attributes,
    Authenticator,
    Authorizer,
    UserInfo,
    Verdict,
)
from kcp.api.auth.tokens import TokenUnion
from kcp.base.values import frozen
from kcp.machinery.errors import Unauthorized
from kcp.wire.http import Request

_NOBODY = UserInfo(ANONYMOUS, groups=(ALL_UNAUTHENTICATED,))


@frozen
class UnionAuthenticator:
    """The first that knows the credentials decides; none: anonymous, when that is allowed.

    One that raises does not keep the others from accepting: a client may present a certificate and a token.
    """

    authenticators: tuple[Authenticator, ...]
    anonymous: bool = True
    tokens: TokenUnion = attrs.field(factory=TokenUnion)
    """For TokenReview."""

    async def authenticate(self, request: Request) -> UserInfo | None:
        failure: Unauthorized | None = None
        for authenticator in self.authenticators:
            try:
                user = await authenticator.authenticate(request)
            except Unauthorized as error:
                failure = error
                continue
            if user is not None:
                return user
        if failure is not None:
            raise failure
        return _NOBODY if self.anonymous else None


@frozen
class UnionAuthorizer:
    """The first opinion counts."""

    authorizers: tuple[Authorizer, ...]

    def authorize(self, attributes: Attributes) -> tuple[Verdict, str]:
        reasons: list[str] = []
        for authorizer in self.authorizers:
            verdict, reason = authorizer.authorize(attributes)
            if verdict != "no opinion":
                return verdict, reason
            if reason:
                reasons.append(reason)
        return "no opinion", "\n".join(reasons)


@frozen
class PrivilegedGroup:
    """Allows system:masters everything, so that a broken policy can always be repaired."""

    group: str = MASTERS

    def authorize(self, attributes: Attributes) -> tuple[Verdict, str]:
        return ("allow", "") if self.group in attributes.user.groups else ("no opinion", "")


@frozen
class AlwaysAllow:
    """Allows everything to everybody."""

    def authorize(self, attributes: Attributes) -> tuple[Verdict, str]:
        del attributes
        return "allow", ""
