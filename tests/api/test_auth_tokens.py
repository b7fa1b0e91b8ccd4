"""Bearer tokens: static ones, service accounts', and what happens to bad ones."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jws

from kcp.api.auth.protocol import ANONYMOUS
from kcp.api.auth.service_account import (
    Reference,
    ServiceAccountTokens,
    SigningKey,
    TokenIssuer,
    split_username,
)
from kcp.api.auth.tokens import BearerTokens, StaticTokens, TokenUnion
from kcp.api.auth.union import UnionAuthenticator
from kcp.base.certs import generate_key, private_key_pem, public_key_pem
from kcp.base.clock import VirtualClock
from kcp.base.entropy import SeededEntropy
from kcp.machinery.errors import Unauthorized
from kcp.machinery.times import format_time
from kcp.wire.http import Request

ISSUER = "https://kubernetes.default.svc.cluster.local"
AUDIENCES = (ISSUER,)
CURVES: dict[str, ec.EllipticCurve] = {
    "ES256": ec.SECP256R1(),
    "ES384": ec.SECP384R1(),
    "ES512": ec.SECP521R1(),
}
Json = dict[str, Any]


def account(namespace: str = "d", name: str = "web", uid: str = "uid-1") -> Json:
    return {"metadata": {"namespace": namespace, "name": name, "uid": uid}}


class World:
    """A clock, a key, live objects, an issuer and a verifier over them."""

    def __init__(self) -> None:
        key = generate_key(SeededEntropy(7))
        self.clock = VirtualClock()
        self.objects: dict[tuple[str, str, str], Json] = {("serviceaccounts", "d", "web"): account()}
        private = SigningKey.load(private_key_pem(key))
        self.issuer = TokenIssuer(ISSUER, private, self.clock, SeededEntropy(1))
        public = SigningKey.load(public_key_pem(key))
        self.verifier = ServiceAccountTokens(
            (ISSUER,), (public,), self.clock, lambda *key: self.objects.get(key)
        )

    def issue(self, **options: Any) -> str:
        return self.issuer.issue(account(), AUDIENCES, 3600, **options)[0]


@pytest.fixture
def world() -> World:
    return World()


def payload(token: str) -> Json:
    part = token.split(".")[1]
    claims: Json = orjson.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


def test_claims_are_those_of_kubernetes(world: World) -> None:
    token, expires = world.issuer.issue(
        account(),
        AUDIENCES,
        3600,
        bound=Reference("Pod", "p", "uid-p"),
        node=Reference("Node", "n", "uid-n"),
        warn_after_s=3000,
    )
    claims = payload(token)
    now = int(world.clock.now().timestamp())
    assert expires == world.clock.now() + timedelta(hours=1)
    assert (claims["iss"], claims["aud"], claims["sub"]) == (
        ISSUER,
        [ISSUER],
        "system:serviceaccount:d:web",
    )
    assert (claims["iat"], claims["nbf"], claims["exp"]) == (now, now, now + 3600)
    assert claims["kubernetes.io"] == {
        "namespace": "d",
        "node": {"name": "n", "uid": "uid-n"},
        "pod": {"name": "p", "uid": "uid-p"},
        "serviceaccount": {"name": "web", "uid": "uid-1"},
        "warnafter": now + 3000,
    }
    assert orjson.loads(base64.urlsafe_b64decode(token.split(".")[0] + "==")) == {
        "alg": "ES256",
        "kid": world.issuer.key.id,
    }


def test_a_token_stands_for_its_account(world: World) -> None:
    identity = world.verifier.authenticate_token(world.issue(), AUDIENCES)
    assert identity is not None
    assert identity.audiences == AUDIENCES
    assert identity.user.name == "system:serviceaccount:d:web"
    assert identity.user.uid == "uid-1"
    assert identity.user.groups == ("system:serviceaccounts", "system:serviceaccounts:d")
    assert dict(identity.user.extra)["authentication.kubernetes.io/credential-id"][0].startswith("JTI=")


def test_a_pod_bound_token_tells_the_pod_and_its_node(world: World) -> None:
    world.objects["pods", "d", "p"] = {"metadata": {"uid": "uid-p"}}
    token = world.issue(bound=Reference("Pod", "p", "uid-p"), node=Reference("Node", "n", "uid-n"))
    identity = world.verifier.authenticate_token(token, AUDIENCES)
    assert identity is not None
    extra = {key.split("/")[1]: values for key, values in identity.user.extra}
    assert extra["pod-name"] == ("p",)
    assert extra["node-uid"] == ("uid-n",)


def _refused(world: World, token: str, text: str, audiences: tuple[str, ...] = AUDIENCES) -> None:
    with pytest.raises(Unauthorized) as caught:
        world.verifier.authenticate_token(token, audiences)
    assert caught.value.message == text


def test_expiry_ends_a_token(world: World) -> None:
    token = world.issue()
    world.verifier.authenticate_token(token, AUDIENCES)
    world.clock.advance(3600 + 61)
    _refused(world, token, "service account token has expired")


def test_other_audiences_are_refused(world: World) -> None:
    _refused(
        world,
        world.issue(),
        f'token audiences ["{ISSUER}"] is invalid for the target audiences ["vault"]',
        ("vault",),
    )


def test_a_token_dies_with_its_account(world: World) -> None:
    token = world.issue()
    world.verifier.authenticate_token(token, AUDIENCES)
    world.objects["serviceaccounts", "d", "web"] = account(uid="uid-2")
    _refused(world, token, "service account UID (uid-2) does not match claim (uid-1)")
    del world.objects["serviceaccounts", "d", "web"]
    _refused(world, token, 'serviceaccounts "web" not found')


def test_a_token_dies_with_what_it_is_bound_to(world: World) -> None:
    pod = {"metadata": {"uid": "uid-p"}}
    world.objects["pods", "d", "p"] = pod
    token = world.issue(bound=Reference("Pod", "p", "uid-p"))
    world.verifier.authenticate_token(token, AUDIENCES)
    deleted = {"metadata": {"uid": "uid-p", "deletionTimestamp": format_time(world.clock.now())}}
    world.objects["pods", "d", "p"] = deleted
    world.verifier.authenticate_token(token, AUDIENCES)
    world.clock.advance(61)
    _refused(world, token, "service account token has been invalidated")
    world.objects["pods", "d", "p"] = {"metadata": {"uid": "other"}}
    _refused(world, token, "pod UID (other) does not match service account pod ref claim (uid-p)")


def test_a_forged_token_is_refused(world: World) -> None:
    forger = SigningKey.load(private_key_pem(generate_key(SeededEntropy(8))))
    forged = TokenIssuer(ISSUER, forger, world.clock, SeededEntropy(1)).issue(account(), AUDIENCES, 60)[0]
    _refused(world, forged, "invalid signature, no keys found")
    head, body, _ = world.issue().split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    _refused(world, f"{none}.{body}.", "invalid signature, no keys found")
    assert head


def test_other_issuers_and_non_tokens_are_not_ours(world: World) -> None:
    other = TokenIssuer("https://other", world.issuer.key, world.clock, SeededEntropy(1))
    assert world.verifier.authenticate_token(other.issue(account(), AUDIENCES, 60)[0], AUDIENCES) is None
    for junk in ("abc", "a.b.c", "..", "a.W10.c"):
        assert world.verifier.authenticate_token(junk, AUDIENCES) is None


def test_the_issuer_publishes_its_public_key_only(world: World) -> None:
    (key,) = world.issuer.key_set()["keys"]
    assert (key["kid"], key["alg"], key["use"]) == (world.issuer.key.id, "ES256", "sig")
    assert "d" not in key
    document = world.issuer.configuration("https://x/openid/v1/jwks")
    assert (document["issuer"], document["jwks_uri"]) == (ISSUER, "https://x/openid/v1/jwks")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("system:serviceaccount:ns:x", ("ns", "x")),
        ("system:serviceaccount:ns", None),
        ("system:serviceaccount:ns:x:y", None),
        ("alice", None),
    ],
)
def test_split_username(name: str, expected: tuple[str, str] | None) -> None:
    assert split_username(name) == expected


STATIC = StaticTokens.parse('secret,alice,1,"dev,ops"\nother,bob,2\n# comment\n')


async def test_static_tokens() -> None:
    bearer = BearerTokens(TokenUnion((STATIC,)), AUDIENCES)
    user = await bearer.authenticate(Request("GET", "/", headers={"authorization": "Bearer secret"}))
    assert user is not None
    assert (user.name, user.uid, user.groups) == ("alice", "1", ("dev", "ops", "system:authenticated"))
    assert await bearer.authenticate(Request("GET", "/", headers={"authorization": "Basic eA=="})) is None
    with pytest.raises(ValueError, match="line 1"):
        StaticTokens.parse("only,two")


async def test_bad_tokens_are_refused_even_where_anonymous_requests_are_not() -> None:
    tokens = TokenUnion((STATIC,))
    union = UnionAuthenticator((BearerTokens(tokens, AUDIENCES),), True, tokens)
    nobody = await union.authenticate(Request("GET", "/"))
    assert nobody is not None
    assert (nobody.name, nobody.groups) == (ANONYMOUS, ("system:unauthenticated",))
    with pytest.raises(Unauthorized, match=r"^Unauthorized$"):
        await union.authenticate(Request("GET", "/", headers={"authorization": "Bearer wrong"}))
    assert await UnionAuthenticator((), anonymous=False).authenticate(Request("GET", "/")) is None


def pem_of(kind: str) -> bytes:
    key = rsa.generate_private_key(65537, 2048) if kind == "RS256" else ec.generate_private_key(CURVES[kind])
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "ES512", "RS256"])
def test_the_same_claims_make_the_same_token_which_others_can_verify(algorithm: str) -> None:
    key = SigningKey.load(pem_of(algorithm))
    token = key.sign({"sub": "somebody"})
    assert token == key.sign({"sub": "somebody"}) != key.sign({"sub": "else"})
    verified = jws.deserialize_compact(token, key.key, algorithms=[algorithm])
    assert verified.headers() == {"alg": algorithm, "kid": key.id}
    assert orjson.loads(verified.payload) == {"sub": "somebody"}
