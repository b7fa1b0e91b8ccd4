"""Client certificates: CN is the user, each O a group. Front proxies vouch for users in headers.

TLS has checked the chain against all trusted authorities together; which of them signed is checked here, because the
front proxy's authority may speak for anybody and must not be confused with the clients'. A client certificate is
signed by the authority directly, without intermediates.
Source: k8s v1.36 apiserver/pkg/authentication/request/x509, apiserver/pkg/authentication/request/headerrequest.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from urllib.parse import unquote

import attrs
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID

from kcp.api.auth.protocol import ALL_AUTHENTICATED, UserInfo
from kcp.base.certs import identity_of
from kcp.base.clock import Clock
from kcp.base.values import frozen
from kcp.machinery.errors import Unauthorized
from kcp.wire.http import Request

CACHE_SIZE = 4096
CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"
_CLIENT_USAGES = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)


@frozen
class Verified:
    """What a certificate says and how long it says so."""

    common_name: str
    organizations: tuple[str, ...]
    fingerprint: str
    not_before: datetime
    not_after: datetime


@attrs.define
class CertificateVerifier:
    """Certificates of one set of authorities, each examined once."""

    authorities: Sequence[x509.Certificate]
    clock: Clock
    _cache: OrderedDict[bytes, Verified | None] = attrs.field(factory=OrderedDict)
    """By the certificate itself: a connection passes the same bytes again and again, which hash themselves once."""

    @classmethod
    def of(cls, authority_pems: Sequence[bytes], clock: Clock) -> CertificateVerifier:
        """From PEM files, each with one or more certificates."""
        found = [
            certificate for pem in authority_pems for certificate in x509.load_pem_x509_certificates(pem)
        ]
        return cls(found, clock)

    def verify(self, der: bytes) -> Verified | None:
        """What the certificate says; None when another authority signed it.

        Raises Unauthorized when it has expired or is not valid yet.
        """
        if der not in self._cache:
            self._cache[der] = self._examine(der)
            if len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)
        verified = self._cache[der]
        if verified is not None and not verified.not_before <= self.clock.now() <= verified.not_after:
            raise Unauthorized()
        return verified

    def _examine(self, der: bytes) -> Verified | None:
        certificate = x509.load_der_x509_certificate(der)
        if not any(_issued_by(certificate, authority) for authority in self.authorities):
            return None
        if not _for_clients(certificate):
            return None
        name, organizations = identity_of(certificate)
        return Verified(
            name,
            organizations,
            hashlib.sha256(der).hexdigest(),
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
        )


def _issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _for_clients(certificate: x509.Certificate) -> bool:
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return any(usage in usages for usage in _CLIENT_USAGES)


@lru_cache(maxsize=CACHE_SIZE)
def _user(verified: Verified) -> UserInfo:
    extra = ((CREDENTIAL_ID, (f"X509SHA256={verified.fingerprint}",)),)
    return UserInfo(verified.common_name, "", (*verified.organizations, ALL_AUTHENTICATED), extra)


@frozen
class ClientCertificates:
    """Authenticates the certificate of the connection."""

    verifier: CertificateVerifier

    async def authenticate(self, request: Request) -> UserInfo | None:
        if not request.peer_certificate:
            return None
        verified = self.verifier.verify(request.peer_certificate)
        if verified is None:
            return None
        return _user(verified)


@frozen
class FrontProxy:
    """Trusts X-Remote-User, -Uid, -Group and -Extra-* from proxies with a certificate of their own authority."""

    verifier: CertificateVerifier
    allowed_names: tuple[str, ...] = ()
    """Common names of the proxies; empty means any."""

    async def authenticate(self, request: Request) -> UserInfo | None:
        name = request.header("x-remote-user")
        if not name or not request.peer_certificate:
            return None
        verified = self.verifier.verify(request.peer_certificate)
        if verified is None or (self.allowed_names and verified.common_name not in self.allowed_names):
            return None
        prefix = "x-remote-extra-"
        extra = tuple(
            sorted(
                (unquote(header.removeprefix(prefix)), tuple(request.values(header)))
                for header in request.headers
                if header.startswith(prefix)
            )
        )
        groups = (*request.values("x-remote-group"), ALL_AUTHENTICATED)
        return UserInfo(name, request.header("x-remote-uid"), groups, extra)
