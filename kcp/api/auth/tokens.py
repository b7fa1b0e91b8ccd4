"""Bearer tokens: who can make sense of one, and the file of static tokens.

Source: k8s v1.36 apiserver/pkg/authentication/request/bearertoken, apiserver/pkg/authentication/token/tokenfile.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import attrs

from kcp.api.auth.protocol import ALL_AUTHENTICATED, UserInfo
from kcp.base.values import frozen
from kcp.machinery.errors import Unauthorized
from kcp.wire.http import Request

INVALID = "invalid bearer token"


@frozen
class TokenIdentity:
    """Whom a token stands for, and for which of the asked audiences it is meant."""

    user: UserInfo
    audiences: tuple[str, ...] = ()


class TokenAuthenticator(Protocol):
    def authenticate_token(self, token: str, audiences: tuple[str, ...]) -> TokenIdentity | None:
        """None when the token is not of this kind. Raises Unauthorized with the reason when it is, and is bad."""
        ...


@frozen
class TokenUnion:
    """Asks in order; the first that knows the token answers."""

    authenticators: tuple[TokenAuthenticator, ...] = ()

    def authenticate_token(self, token: str, audiences: tuple[str, ...]) -> TokenIdentity:
        """Raises Unauthorized; its message lists what each one said."""
        problems: list[str] = [INVALID]
        for authenticator in self.authenticators:
            try:
                identity = authenticator.authenticate_token(token, audiences)
            except Unauthorized as error:
                problems.append(error.message)
                continue
            if identity is not None:
                return identity
        raise Unauthorized(problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")


@frozen
class BearerTokens:
    """Authenticates `Authorization: Bearer …`, and tokens in the WebSocket subprotocol that browsers use."""

    tokens: TokenUnion
    audiences: tuple[str, ...]

    async def authenticate(self, request: Request) -> UserInfo | None:
        token = bearer_token(request)
        if not token:
            return None
        try:
            user = self.tokens.authenticate_token(token, self.audiences).user
        except Unauthorized:
            raise Unauthorized() from None  # clients learn that it was refused, not why
        return _with_authenticated(user)


@lru_cache(maxsize=4096)
def _with_authenticated(user: UserInfo) -> UserInfo:
    if ALL_AUTHENTICATED in user.groups:
        return user
    return attrs.evolve(user, groups=(*user.groups, ALL_AUTHENTICATED))


def bearer_token(request: Request) -> str:
    scheme, _, token = request.header("authorization").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


@frozen
class StaticTokens:
    """The file of `token,user,uid,"group1,group2"` lines. Compared by hash, so timing tells nothing."""

    users: dict[bytes, UserInfo]

    @classmethod
    def parse(cls, text: str) -> StaticTokens:
        """Raises ValueError naming the line that has too few columns."""
        users: dict[bytes, UserInfo] = {}
        for number, row in enumerate(csv.reader(text.splitlines()), 1):
            if not row or row[0].startswith("#"):
                continue
            if len(row) < 3:
                raise ValueError(f"token file line {number}: expected at least 3 columns, found {len(row)}")
            groups = tuple(name.strip() for name in row[3].split(",")) if len(row) > 3 and row[3] else ()
            users[_digest(row[0])] = UserInfo(row[1].strip(), row[2].strip(), groups)
        return cls(users)

    def authenticate_token(self, token: str, audiences: tuple[str, ...]) -> TokenIdentity | None:
        user = self.users.get(_digest(token))
        return None if user is None else TokenIdentity(user, audiences)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def go_list(values: Sequence[str]) -> str:
    """As Go prints a list of strings with %q."""
    return "[" + " ".join(f'"{value}"' for value in values) + "]"


def intersect(wanted: Sequence[str], offered: Sequence[str]) -> tuple[str, ...]:
    """The wanted audiences that are offered, in the order wanted."""
    return tuple(name for name in wanted if name in offered)
