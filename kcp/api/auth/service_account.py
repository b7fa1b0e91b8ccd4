"""Service-account tokens: signed JWTs bound to an account, and to a pod, secret or node.

A token is valid as long as what it is bound to exists with the same uid, which is looked up on every request; the
signature is checked once per token.
Source: k8s v1.36 pkg/serviceaccount/{claims,jwt}.go, apiserver/pkg/authentication/serviceaccount/util.go.
"""

from __future__ import annotations

import base64
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import attrs
import orjson
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from kcp.api.auth.protocol import UserInfo
from kcp.api.auth.tokens import TokenIdentity, go_list, intersect
from kcp.base.clock import Clock
from kcp.base.entropy import Entropy
from kcp.base.values import frozen
from kcp.machinery.errors import Unauthorized
from kcp.machinery.times import parse_time

Json = dict[str, Any]
GetObject = Callable[[str, str, str], "Json | None"]
"""(resource, namespace, name) -> the live object."""

USER_PREFIX = "system:serviceaccount:"
ALL_GROUP = "system:serviceaccounts"
LEEWAY = timedelta(seconds=60)
"""How long after its deletion an object still counts as there, and how far clocks may differ."""
CACHE_SIZE = 8192
_EXTRA = "authentication.kubernetes.io/"
_ALGORITHMS = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_HASHES: dict[str, Callable[[], hashes.HashAlgorithm]] = {
    "ES256": hashes.SHA256,
    "ES384": hashes.SHA384,
    "ES512": hashes.SHA512,
    "RS256": hashes.SHA256,
}
BoundKind = Literal["Pod", "Secret", "Node"]
_RESOURCES: dict[str, str] = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}


def username(namespace: str, name: str) -> str:
    return f"{USER_PREFIX}{namespace}:{name}"


def group_names(namespace: str) -> tuple[str, str]:
    return ALL_GROUP, f"{ALL_GROUP}:{namespace}"


def split_username(name: str) -> tuple[str, str] | None:
    """(namespace, name) of a service account's user name; None for any other user."""
    if not name.startswith(USER_PREFIX):
        return None
    namespace, colon, account = name.removeprefix(USER_PREFIX).partition(":")
    return (namespace, account) if colon and namespace and account and ":" not in account else None


@frozen
class Reference:
    """What a token is bound to besides its account."""

    kind: BoundKind
    name: str
    uid: str


@frozen
class SigningKey:
    """A private or public key with the id that Kubernetes gives it."""

    id: str
    algorithm: str
    key: ECKey | RSAKey

    @classmethod
    def load(cls, pem: bytes) -> SigningKey:
        """From a PEM of an EC or RSA key, private or public. Raises ValueError."""
        text = pem.decode()
        key: ECKey | RSAKey
        try:
            key = ECKey.import_key(text)
            algorithm = _ALGORITHMS[str(key.curve_name)]
        except (JoseError, ValueError, TypeError, AttributeError):
            key, algorithm = RSAKey.import_key(text), "RS256"
        der = key.public_key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return cls(_base64url(hashlib.sha256(der).digest()), algorithm, key)

    def public(self) -> dict[str, Any]:
        """The JWK of the public half."""
        return {"use": "sig", "kid": self.id, "alg": self.algorithm, **self.key.as_dict(private=False)}

    def sign(self, claims: Json) -> str:
        """The claims as a JWT; the same claims give the same bytes, so that a seeded run makes the same tokens."""
        header = orjson.dumps({"alg": self.algorithm, "kid": self.id})
        signed = f"{_base64url(header)}.{_base64url(orjson.dumps(claims))}"
        return f"{signed}.{_base64url(self._signature(signed.encode()))}"

    def _signature(self, message: bytes) -> bytes:
        """Source: RFC 7518 section 3; deterministic for elliptic curves by RFC 6979."""
        digest = _HASHES[self.algorithm]()
        key = self.key.private_key
        assert key is not None, "a public key signs nothing"
        if isinstance(key, ec.EllipticCurvePrivateKey):
            encoded = key.sign(message, ec.ECDSA(digest, deterministic_signing=True))
            size = (key.key_size + 7) // 8
            return b"".join(number.to_bytes(size) for number in decode_dss_signature(encoded))
        return key.sign(message, padding.PKCS1v15(), digest)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@frozen
class TokenIssuer:
    """Signs tokens. The extra `token_issuer` of the server."""

    issuer: str
    key: SigningKey
    clock: Clock
    entropy: Entropy
    other_keys: tuple[SigningKey, ...] = ()
    """Public keys of former issuers, published so that others can still verify their tokens."""

    def issue(
        self,
        account: Json,
        audiences: Sequence[str],
        lifetime_s: int,
        *,
        bound: Reference | None = None,
        node: Reference | None = None,
        warn_after_s: int = 0,
    ) -> tuple[str, datetime]:
        """(token, when it expires). `node` is where a bound pod runs."""
        now = self.clock.now().replace(microsecond=0)
        expires = now + timedelta(seconds=lifetime_s)
        claims: Json = {
            "aud": list(audiences),
            "exp": _seconds(expires),
            "iat": _seconds(now),
            "iss": self.issuer,
            "jti": self.entropy.uid(),
            "kubernetes.io": _private_claims(account, bound, node),
            "nbf": _seconds(now),
            "sub": username(account["metadata"]["namespace"], account["metadata"]["name"]),
        }
        if warn_after_s:
            claims["kubernetes.io"]["warnafter"] = _seconds(now) + warn_after_s
        return self.key.sign(claims), expires

    def key_set(self) -> Json:
        """The JWKS document."""
        return {"keys": [key.public() for key in (self.key, *self.other_keys)]}

    def configuration(self, keys_url: str) -> Json:
        """The OpenID discovery document."""
        algorithms = sorted({key.algorithm for key in (self.key, *self.other_keys)})
        return {
            "issuer": self.issuer,
            "jwks_uri": keys_url,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
        }


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def verified_claims(keys: Sequence[SigningKey], token: str) -> Json:
    """The claims that one of the keys signed. Raises Unauthorized.

    Each key is tried with its own algorithm only, so that a token cannot choose how it is checked.
    """
    for key in keys:
        try:
            verified = jws.deserialize_compact(token, key.key, algorithms=[key.algorithm])
        except (JoseError, ValueError):
            continue
        claims = orjson.loads(verified.payload)
        assert isinstance(claims, dict)
        return claims
    raise Unauthorized("invalid signature, no keys found")


def _private_claims(account: Json, bound: Reference | None, node: Reference | None) -> Json:
    metadata = account["metadata"]
    claims: Json = {"namespace": metadata["namespace"]}
    if node is not None:
        claims["node"] = {"name": node.name, "uid": node.uid}
    if bound is not None:
        claims[bound.kind.lower()] = {"name": bound.name, "uid": bound.uid}
    claims["serviceaccount"] = {"name": metadata["name"], "uid": metadata["uid"]}
    return claims


@attrs.define
class ServiceAccountTokens:
    """Verifies the tokens of one or more issuers."""

    issuers: tuple[str, ...]
    keys: tuple[SigningKey, ...]
    clock: Clock
    get: GetObject
    _verified: OrderedDict[bytes, Json] = attrs.field(factory=OrderedDict)

    def authenticate_token(self, token: str, audiences: tuple[str, ...]) -> TokenIdentity | None:
        """None when the token is no JWT of these issuers. Raises Unauthorized."""
        if not self._ours(token):
            return None
        claims = self._claims(token)
        meant_for = intersect(audiences, claims.get("aud") or ())
        if audiences and not meant_for:
            raise Unauthorized(
                f"token audiences {go_list(claims.get('aud') or ())} is invalid for the target audiences "
                f"{go_list(audiences)}"
            )
        self._check_time(claims)
        private = claims.get("kubernetes.io") or {}
        self._check_bound(private)
        return TokenIdentity(_user(claims, private), meant_for)

    def _ours(self, token: str) -> bool:
        """Whether it looks like a JWT whose issuer is one of ours; nothing is verified yet."""
        parts = token.split(".")
        if len(parts) != 3:
            return False
        try:
            payload = orjson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        except ValueError:
            return False
        return isinstance(payload, dict) and payload.get("iss") in self.issuers

    def _claims(self, token: str) -> Json:
        digest = hashlib.sha256(token.encode()).digest()
        claims = self._verified.get(digest)
        if claims is None:
            claims = self._verified[digest] = verified_claims(self.keys, token)
            if len(self._verified) > CACHE_SIZE:
                self._verified.popitem(last=False)
        return claims

    def _check_time(self, claims: Json) -> None:
        now = _seconds(self.clock.now())
        leeway = LEEWAY.total_seconds()
        if now - leeway > claims.get("exp", 0):
            raise Unauthorized("service account token has expired")
        if now + leeway < claims.get("nbf", 0):
            raise Unauthorized("service account token is not valid yet")

    def _check_bound(self, private: Json) -> None:
        namespace, account = private.get("namespace", ""), private.get("serviceaccount") or {}
        name = account.get("name", "")
        found = self.get("serviceaccounts", namespace, name)
        if found is None:
            raise Unauthorized(f'serviceaccounts "{name}" not found')
        if self._gone(found):
            raise Unauthorized(f"service account {namespace}/{name} has been deleted")
        if found["metadata"]["uid"] != account.get("uid"):
            raise Unauthorized(
                f"service account UID ({found['metadata']['uid']}) does not match claim ({account.get('uid')})"
            )
        for kind, resource in _RESOURCES.items():
            claim = private.get(kind.lower())
            # the node of a pod-bound token is information; only a token bound to the node dies with it
            if claim and not (kind == "Node" and "pod" in private):
                self._check_object(kind, resource, "" if kind == "Node" else namespace, claim)

    def _check_object(self, kind: str, resource: str, namespace: str, claim: Json) -> None:
        found = self.get(resource, namespace, claim.get("name", ""))
        if found is None or self._gone(found):
            raise Unauthorized("service account token has been invalidated")
        uid = found["metadata"]["uid"]
        if uid != claim.get("uid"):
            raise Unauthorized(
                f"{kind.lower()} UID ({uid}) does not match service account {kind.lower()} ref claim "
                f"({claim.get('uid')})"
            )

    def _gone(self, obj: Json) -> bool:
        deleted = obj["metadata"].get("deletionTimestamp")
        return bool(deleted) and parse_time(deleted) < self.clock.now().astimezone(UTC) - LEEWAY


def _user(claims: Json, private: Json) -> UserInfo:
    account = private["serviceaccount"]
    namespace = private["namespace"]
    extra: dict[str, str] = {}
    if jti := claims.get("jti"):
        extra[f"{_EXTRA}credential-id"] = f"JTI={jti}"
    for kind in ("node", "pod"):
        if reference := private.get(kind):
            extra[f"{_EXTRA}{kind}-name"] = reference["name"]
            extra[f"{_EXTRA}{kind}-uid"] = reference.get("uid", "")
    pairs = tuple((key, (value,)) for key, value in sorted(extra.items()) if value)
    return UserInfo(
        username(namespace, account["name"]), account.get("uid", ""), group_names(namespace), pairs
    )
