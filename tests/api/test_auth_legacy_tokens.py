"""Tokens of Secrets: good while their Secret holds them and their account is there, for whatever reason they end."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from kcp.api.auth import legacy_tokens
from kcp.api.auth.legacy_tokens import INVALID_SINCE, LegacyTokens
from kcp.api.auth.service_account import SigningKey
from kcp.base.certs import generate_key, private_key_pem
from kcp.base.clock import VirtualClock
from kcp.base.entropy import SeededEntropy
from kcp.machinery.errors import Unauthorized

Json = dict[str, Any]
KEY = SigningKey.load(private_key_pem(generate_key(SeededEntropy(1))))
OTHER = SigningKey.load(private_key_pem(generate_key(SeededEntropy(2))))
CLAIMS = {"namespace": "team", "account": "robot", "uid": "sa-1", "secret": "robot-token"}
GONE = {"deletionTimestamp": "2020-01-01T00:00:00Z"}


class Objects:
    def __init__(self, token: str) -> None:
        data = {"token": base64.b64encode(token.encode()).decode()}
        self.secret: Json | None = {"metadata": {"namespace": "team", "name": "robot-token"}, "data": data}
        self.account: Json | None = {"metadata": {"namespace": "team", "name": "robot", "uid": "sa-1"}}

    def get(self, resource: str, namespace: str, name: str) -> Json | None:
        found = {"secrets": self.secret, "serviceaccounts": self.account}[resource]
        if found is None or (namespace, name) != (found["metadata"]["namespace"], found["metadata"]["name"]):
            return None
        return found


def verifier(objects: Objects, used: list[Json] | None = None) -> LegacyTokens:
    note = (lambda secret: None) if used is None else used.append
    return LegacyTokens((KEY,), VirtualClock(), objects.get, ("https://kubernetes.default.svc",), note)


def issued(key: SigningKey = KEY) -> str:
    return legacy_tokens.issue(key, **CLAIMS)


def test_a_good_token_is_its_account_and_its_use_is_noted() -> None:
    used: list[Json] = []
    objects = Objects(issued())
    identity = verifier(objects, used).authenticate_token(issued_in(objects), ())
    assert identity is not None
    assert (identity.user.name, identity.user.uid) == ("system:serviceaccount:team:robot", "sa-1")
    assert identity.user.groups == ("system:serviceaccounts", "system:serviceaccounts:team")
    assert used == [objects.secret]


def issued_in(objects: Objects) -> str:
    assert objects.secret is not None
    return base64.b64decode(objects.secret["data"]["token"]).decode()


def test_other_tokens_are_left_to_others() -> None:
    assert verifier(Objects("x")).authenticate_token("abc", ()) is None
    assert verifier(Objects("x")).authenticate_token("a.b.c", ()) is None


def change(objects: Objects, how: str) -> None:
    assert objects.secret is not None and objects.account is not None
    if how == "secret gone":
        objects.secret = None
    elif how == "secret going":
        objects.secret["metadata"] |= GONE
    elif how == "replaced":
        objects.secret["data"] = {"token": ""}
    elif how == "retired":
        objects.secret["metadata"]["labels"] = {INVALID_SINCE: "2026-01-01"}
    elif how == "account gone":
        objects.account = None
    elif how == "account going":
        objects.account["metadata"] |= GONE
    else:
        objects.account["metadata"]["uid"] = "sa-2"


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("secret gone", "Token has been invalidated"),
        ("secret going", "Token has been invalidated"),
        ("replaced", "Token does not match server's copy"),
        (
            "retired",
            "the token in secret team/robot-token for service account team/robot has been marked invalid. Use tokens "
            "from the TokenRequest API or manually created secret-based tokens, or remove the "
            "'kubernetes.io/legacy-token-invalid-since' label from the secret to temporarily allow use of this token",
        ),
        ("account gone", 'serviceaccounts "robot" not found'),
        ("account going", "ServiceAccount team/robot has been deleted"),
        ("another account", "ServiceAccount UID (sa-2) does not match claim (sa-1)"),
    ],
)
def test_how_a_token_ends(how: str, why: str) -> None:
    objects = Objects(issued())
    token = issued_in(objects)
    change(objects, how)
    with pytest.raises(Unauthorized) as refused:
        verifier(objects).authenticate_token(token, ())
    assert refused.value.message == why


def test_a_token_of_another_key_and_for_others_is_refused() -> None:
    foreign = issued(OTHER)
    with pytest.raises(Unauthorized, match="invalid signature"):
        verifier(Objects(foreign)).authenticate_token(foreign, ())
    objects = Objects(issued())
    with pytest.raises(Unauthorized, match="is invalid for the target audiences"):
        verifier(objects).authenticate_token(issued_in(objects), ("vault",))
