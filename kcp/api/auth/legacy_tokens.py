"""Tokens that live in Secrets: without end, valid as long as the Secret holds them and the account is there.

Source: k8s v1.36 pkg/serviceaccount/legacy.go.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from kcp.api.auth.protocol import UserInfo
from kcp.api.auth.service_account import (
    LEEWAY,
    GetObject,
    SigningKey,
    group_names,
    split_username,
    username,
    verified_claims,
)
from kcp.api.auth.tokens import TokenIdentity, go_list, intersect
from kcp.base.clock import Clock
from kcp.base.values import frozen
from kcp.machinery.errors import Unauthorized
from kcp.machinery.times import parse_time

Json = dict[str, Any]
ISSUER = "kubernetes/serviceaccount"
INVALID_SINCE = "kubernetes.io/legacy-token-invalid-since"
_NAMESPACE = "kubernetes.io/serviceaccount/namespace"
_SECRET = "kubernetes.io/serviceaccount/secret.name"
_ACCOUNT = "kubernetes.io/serviceaccount/service-account.name"
_UID = "kubernetes.io/serviceaccount/service-account.uid"
_REQUIRED: Mapping[str, str] = {
    _NAMESPACE: "namespace",
    _SECRET: "secretName",
    _ACCOUNT: "serviceAccountName",
    _UID: "serviceAccountUID",
}


def issue(key: SigningKey, *, namespace: str, account: str, uid: str, secret: str) -> str:
    """The token that a Secret of that name holds for the account."""
    claims = {
        "iss": ISSUER,
        _NAMESPACE: namespace,
        _SECRET: secret,
        _ACCOUNT: account,
        _UID: uid,
        "sub": username(namespace, account),
    }
    return key.sign(claims)


@frozen
class LegacyTokens:
    """Verifies tokens of Secrets. They are meant for the API server's own audiences."""

    keys: tuple[SigningKey, ...]
    clock: Clock
    get: GetObject
    audiences: tuple[str, ...] = ()
    used: Callable[[Json], None] = lambda secret: None
    """Called with the Secret of each token that was found good."""

    def authenticate_token(self, token: str, audiences: tuple[str, ...]) -> TokenIdentity | None:
        """None when the token is none of these. Raises Unauthorized."""
        if not _ours(token):
            return None
        claims = verified_claims(self.keys, token)
        for claim, name in _REQUIRED.items():
            if not claims.get(claim):
                raise Unauthorized(f"{name} claim is missing")
        namespace, account = claims[_NAMESPACE], claims[_ACCOUNT]
        if split_username(claims.get("sub", "")) != (namespace, account):
            raise Unauthorized("sub claim is invalid")
        secret = self._check_secret(namespace, account, claims[_SECRET], token)
        self._check_account(namespace, account, claims[_UID])
        meant_for = intersect(audiences, self.audiences)
        if audiences and not meant_for:
            raise Unauthorized(
                f"token audiences {go_list(self.audiences)} is invalid for the target audiences "
                f"{go_list(audiences)}"
            )
        self.used(secret)
        user = UserInfo(username(namespace, account), claims[_UID], group_names(namespace), ())
        return TokenIdentity(user, meant_for)

    def _check_secret(self, namespace: str, account: str, name: str, token: str) -> Json:
        secret = self.get("secrets", namespace, name)
        if secret is None or self._gone(secret):
            raise Unauthorized("Token has been invalidated")
        if base64.b64decode((secret.get("data") or {}).get("token") or "") != token.encode():
            raise Unauthorized("Token does not match server's copy")
        if (secret["metadata"].get("labels") or {}).get(INVALID_SINCE):
            raise Unauthorized(
                f"the token in secret {namespace}/{name} for service account {namespace}/{account} has been marked "
                "invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove "
                f"the '{INVALID_SINCE}' label from the secret to temporarily allow use of this token"
            )
        return secret

    def _check_account(self, namespace: str, name: str, uid: str) -> None:
        account = self.get("serviceaccounts", namespace, name)
        if account is None:
            raise Unauthorized(f'serviceaccounts "{name}" not found')
        if self._gone(account):
            raise Unauthorized(f"ServiceAccount {namespace}/{name} has been deleted")
        found = account["metadata"]["uid"]
        if found != uid:
            raise Unauthorized(f"ServiceAccount UID ({found}) does not match claim ({uid})")

    def _gone(self, obj: Json) -> bool:
        deleted = obj["metadata"].get("deletionTimestamp")
        return bool(deleted) and parse_time(deleted) < self.clock.now() - LEEWAY


def _ours(token: str) -> bool:
    """Whether it looks like a JWT of this kind; nothing is verified yet."""
    parts = token.split(".")
    if len(parts) != 3:
        return False
    try:
        payload = orjson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return False
    return isinstance(payload, dict) and payload.get("iss") == ISSUER
