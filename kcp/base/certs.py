"""X.509 for a cluster: authorities, serving and client certificates, signing requests, token signing keys.

Keys are EC P-256, derived from entropy bytes and signed deterministically, so a seeded run makes the same
certificates byte for byte. Subjects are Kubernetes': CN is the user, each O a group.
Source: k8s v1.36 client-go/util/cert/cert.go, cmd/kubeadm/app/util/pkiutil.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kcp.base.clock import Clock
from kcp.base.entropy import Entropy, SystemEntropy
from kcp.base.values import frozen

_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
BACKDATE = timedelta(minutes=5)
"""Certificates are valid from a little before now, for peers whose clocks run behind."""
CA_LIFETIME = timedelta(days=3650)
LEAF_LIFETIME = timedelta(days=365)


SHORT_LIFETIME = timedelta(hours=8)
"""The end of so short a certificate is not moved back along with its beginning."""

_KEY_USAGES = {
    "signing": "digital_signature",
    "digital signature": "digital_signature",
    "content commitment": "content_commitment",
    "key encipherment": "key_encipherment",
    "key agreement": "key_agreement",
    "data encipherment": "data_encipherment",
    "cert sign": "key_cert_sign",
    "crl sign": "crl_sign",
    "encipher only": "encipher_only",
    "decipher only": "decipher_only",
}
_KEY_USAGE_BITS = tuple(dict.fromkeys(_KEY_USAGES.values()))
_EXTENDED_USAGES = {
    "any": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    "server auth": ExtendedKeyUsageOID.SERVER_AUTH,
    "client auth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "code signing": ExtendedKeyUsageOID.CODE_SIGNING,
    "email protection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "s/mime": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "ipsec end system": x509.ObjectIdentifier("1.3.6.1.5.5.7.3.5"),
    "ipsec tunnel": x509.ObjectIdentifier("1.3.6.1.5.5.7.3.6"),
    "ipsec user": x509.ObjectIdentifier("1.3.6.1.5.5.7.3.7"),
    "timestamping": ExtendedKeyUsageOID.TIME_STAMPING,
    "ocsp signing": ExtendedKeyUsageOID.OCSP_SIGNING,
    "microsoft sgc": x509.ObjectIdentifier("1.3.6.1.4.1.311.10.3.3"),
    "netscape sgc": x509.ObjectIdentifier("2.16.840.1.113730.4.1"),
}
"""The usages of a CertificateSigningRequest. Source: k8s.io/api/certificates/v1, client-go/util/certificate/csr."""


class CertificateError(ValueError):
    """Raised when PEM data cannot be read as what it should be."""


def generate_key(entropy: Entropy | None = None) -> ec.EllipticCurvePrivateKey:
    """An EC P-256 key: the same for the same entropy stream."""
    seed = int.from_bytes((entropy or SystemEntropy()).token_bytes(48), "big")
    return ec.derive_private_key(seed % (_P256_ORDER - 1) + 1, ec.SECP256R1())


def private_key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def load_private_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Raises CertificateError for anything but an unencrypted EC key."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise CertificateError(f"private key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError("private key: not an EC key")
    return key


def load_certificate(pem: bytes) -> x509.Certificate:
    """The first certificate of a PEM file. Raises CertificateError."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise CertificateError(f"certificate: {error}") from error


def identity_of(certificate: x509.Certificate) -> tuple[str, tuple[str, ...]]:
    """(common name, organizations) of the subject: the user and groups that a client certificate stands for."""
    return _common_name(certificate.subject), _organizations(certificate.subject)


def identity_of_der(der: bytes) -> tuple[str, tuple[str, ...]]:
    return identity_of(x509.load_der_x509_certificate(der))


def _common_name(name: x509.Name) -> str:
    return next((str(a.value) for a in name.get_attributes_for_oid(NameOID.COMMON_NAME)), "")


def _organizations(name: x509.Name) -> tuple[str, ...]:
    return tuple(str(a.value) for a in name.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))


def subject(common_name: str, organizations: Sequence[str] = ()) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in organizations]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def alternative_names(dns_names: Iterable[str], ips: Iterable[str]) -> x509.SubjectAlternativeName | None:
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns_names]
    names += [x509.IPAddress(ipaddress.ip_address(ip)) for ip in ips]
    return x509.SubjectAlternativeName(names) if names else None


@attrs.frozen(kw_only=True)
class SigningRequest:
    """What a certificate request asks for. `usages` are not in the request itself: the API object carries them."""

    request: x509.CertificateSigningRequest
    common_name: str
    organizations: tuple[str, ...]
    dns_names: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()

    @property
    def public_key(self) -> CertificatePublicKeyTypes:
        return self.request.public_key()


def create_request(
    key: ec.EllipticCurvePrivateKey,
    common_name: str,
    organizations: Sequence[str] = (),
    *,
    dns_names: Sequence[str] = (),
    ips: Sequence[str] = (),
) -> bytes:
    """A PEM certificate request signed by `key`."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject(common_name, organizations))
    names = alternative_names(dns_names, ips)
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    request = builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    return request.public_bytes(serialization.Encoding.PEM)


def parse_request(pem: bytes) -> SigningRequest:
    """Raises CertificateError when it is no PEM request or its signature is wrong."""
    try:
        request = x509.load_pem_x509_csr(pem)
    except ValueError as error:
        raise CertificateError("PEM block type must be CERTIFICATE REQUEST") from error
    if not request.is_signature_valid:
        raise CertificateError("certificate request: signature is not valid")
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    return SigningRequest(
        request=request,
        common_name=_common_name(request.subject),
        organizations=_organizations(request.subject),
        dns_names=tuple(names.get_values_for_type(x509.DNSName)),
        ips=tuple(str(ip) for ip in names.get_values_for_type(x509.IPAddress)),
        emails=tuple(names.get_values_for_type(x509.RFC822Name)),
        uris=tuple(names.get_values_for_type(x509.UniformResourceIdentifier)),
    )


@frozen
class Authority:
    """A certificate authority: a key and its self-signed certificate, with the clock and chance it issues by."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    clock: Clock
    entropy: Entropy

    @classmethod
    def create(
        cls,
        common_name: str,
        clock: Clock,
        entropy: Entropy | None = None,
        *,
        lifetime: timedelta = CA_LIFETIME,
    ) -> Authority:
        entropy = entropy or SystemEntropy()
        key = generate_key(entropy)
        name = subject(common_name)
        builder = _builder(clock.now(), lifetime, name, name, key.public_key(), entropy)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        return cls(builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True), key, clock, entropy)

    @classmethod
    def load(
        cls, certificate_pem: bytes, key_pem: bytes, clock: Clock, entropy: Entropy | None = None
    ) -> Authority:
        """From files. Raises CertificateError when they are unreadable or do not belong together."""
        certificate, key = load_certificate(certificate_pem), load_private_key(key_pem)
        if certificate.public_key() != key.public_key():
            raise CertificateError("certificate and private key do not belong together")
        return cls(certificate, key, clock, entropy or SystemEntropy())

    @property
    def certificate_pem(self) -> bytes:
        return certificate_pem(self.certificate)

    @property
    def key_pem(self) -> bytes:
        return private_key_pem(self.key)

    def issue(
        self,
        common_name: str,
        organizations: Sequence[str] = (),
        *,
        server: bool = False,
        client: bool = True,
        dns_names: Sequence[str] = (),
        ips: Sequence[str] = (),
        lifetime: timedelta = LEAF_LIFETIME,
    ) -> tuple[bytes, bytes]:
        """A new key and its certificate: (certificate PEM, key PEM)."""
        key = generate_key(self.entropy)
        usages = _extended_usages(server=server, client=client)
        certificate = self._sign(
            key.public_key(),
            subject(common_name, organizations),
            alternative_names(dns_names, ips),
            usages,
            lifetime,
        )
        return certificate_pem(certificate), private_key_pem(key)

    def sign_request(
        self,
        csr_pem: bytes,
        *,
        server: bool = False,
        client: bool = True,
        lifetime: timedelta = LEAF_LIFETIME,
    ) -> bytes:
        """The certificate PEM for a request: its subject, names and key as asked. Raises CertificateError."""
        asked = parse_request(csr_pem)
        names = _names_of(asked.request)
        usages = _extended_usages(server=server, client=client)
        signed = self._sign(asked.public_key, asked.request.subject, names, usages, lifetime)
        return certificate_pem(signed)

    def sign_for(self, csr_pem: bytes, usages: Sequence[str], lifetime: timedelta) -> bytes:
        """The certificate PEM for a request under the policy of the cluster's signers.

        `usages` are those of a CertificateSigningRequest. Of the request's own extensions only its names are kept; it
        never outlives the authority. Raises CertificateError.
        Source: k8s v1.36 pkg/controller/certificates/authority/policies.go.
        """
        asked = parse_request(csr_pem)
        now = self.clock.now().replace(microsecond=0)
        end = now + lifetime if lifetime < SHORT_LIFETIME else now + lifetime - BACKDATE
        names = _names_of(asked.request)
        builder = (
            x509.CertificateBuilder()
            .subject_name(asked.request.subject)
            .issuer_name(self.certificate.subject)
            .public_key(asked.public_key)
            .serial_number(_serial(self.entropy))
            .not_valid_before(now - BACKDATE)
            .not_valid_after(min(end, self.certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        )
        for extension, critical in _usage_extensions(usages):
            builder = builder.add_extension(extension, critical)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(identifier, critical=False)
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        return certificate_pem(builder.sign(self.key, hashes.SHA256(), ecdsa_deterministic=True))

    def _sign(
        self,
        public_key: CertificatePublicKeyTypes,
        name: x509.Name,
        names: x509.SubjectAlternativeName | None,
        usages: list[x509.ObjectIdentifier],
        lifetime: timedelta,
    ) -> x509.Certificate:
        issuer = self.certificate.subject
        builder = _builder(self.clock.now(), lifetime, name, issuer, public_key, self.entropy)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self.key, hashes.SHA256(), ecdsa_deterministic=True)


def _serial(entropy: Entropy) -> int:
    return int.from_bytes(entropy.token_bytes(19), "big") | 1


def _names_of(request: x509.CertificateSigningRequest) -> x509.SubjectAlternativeName | None:
    try:
        return request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def _usage_extensions(usages: Sequence[str]) -> list[tuple[x509.ExtensionType, bool]]:
    """(extension, critical) of KeyUsage and ExtendedKeyUsage, as far as something is asked for."""
    bits = {name: name in {_KEY_USAGES[u] for u in usages if u in _KEY_USAGES} for name in _KEY_USAGE_BITS}
    if not bits["key_agreement"]:
        bits["encipher_only"] = bits["decipher_only"] = False
    extended = list(dict.fromkeys(_EXTENDED_USAGES[u] for u in usages if u in _EXTENDED_USAGES))
    found: list[tuple[x509.ExtensionType, bool]] = []
    if any(bits.values()):
        found.append((x509.KeyUsage(**bits), True))
    if extended:
        found.append((x509.ExtendedKeyUsage(extended), False))
    return found


def _builder(
    now: datetime,
    lifetime: timedelta,
    name: x509.Name,
    issuer: x509.Name,
    public_key: CertificatePublicKeyTypes,
    entropy: Entropy,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(_serial(entropy))
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + lifetime)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _extended_usages(*, server: bool, client: bool) -> list[x509.ObjectIdentifier]:
    usages = [ExtendedKeyUsageOID.SERVER_AUTH] if server else []
    return usages + ([ExtendedKeyUsageOID.CLIENT_AUTH] if client else [])
