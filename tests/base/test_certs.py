from __future__ import annotations

import asyncio
import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from kcp.base import certs
from kcp.base.certs import Authority, CertificateError
from kcp.base.clock import SystemClock, VirtualClock
from kcp.base.entropy import SeededEntropy


def authority(seed: int = 1) -> Authority:
    return Authority.create("kubernetes", VirtualClock(), SeededEntropy(seed))


def test_the_same_seed_makes_the_same_certificates() -> None:
    assert authority().certificate_pem == authority().certificate_pem
    assert authority().issue("u", ["g"]) == authority().issue("u", ["g"])
    assert authority(1).key_pem != authority(2).key_pem


def test_subjects_are_users_and_groups() -> None:
    pem, _ = authority().issue("alice", ["dev", "ops"])
    certificate = certs.load_certificate(pem)
    assert certs.identity_of(certificate) == ("alice", ("dev", "ops"))
    certificate.verify_directly_issued_by(authority().certificate)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert authority().certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_validity_follows_the_clock() -> None:
    clock = VirtualClock()
    pem, _ = authority().issue("u", [], lifetime=timedelta(hours=1))
    certificate = certs.load_certificate(pem)
    assert certificate.not_valid_after_utc == clock.now() + timedelta(hours=1)
    assert certificate.not_valid_before_utc == clock.now() - certs.BACKDATE


def test_requests_are_signed_as_asked() -> None:
    key = certs.generate_key(SeededEntropy(5))
    csr = certs.create_request(
        key, "system:node:n1", ["system:nodes"], dns_names=["n1"], ips=["10.0.0.1", "fd00::1"]
    )
    asked = certs.parse_request(csr)
    assert (asked.common_name, asked.organizations) == ("system:node:n1", ("system:nodes",))
    assert (asked.dns_names, asked.ips) == (("n1",), ("10.0.0.1", "fd00::1"))
    signed = certs.load_certificate(authority().sign_request(csr, server=True, client=False))
    assert signed.public_key() == key.public_key()
    names = signed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["n1"]
    usage = signed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_loading_checks_that_key_and_certificate_belong_together() -> None:
    one, two = authority(1), authority(2)
    loaded = Authority.load(one.certificate_pem, one.key_pem, VirtualClock())
    assert loaded.certificate == one.certificate
    with pytest.raises(CertificateError, match="do not belong together"):
        Authority.load(one.certificate_pem, two.key_pem, VirtualClock())
    for bad in (b"", b"nonsense"):
        with pytest.raises(CertificateError):
            certs.load_certificate(bad)
        with pytest.raises(CertificateError):
            certs.load_private_key(bad)
        with pytest.raises(CertificateError):
            certs.parse_request(bad)


async def test_openssl_accepts_them_on_both_sides(tmp_path: Path) -> None:
    ca = Authority.create("kubernetes", SystemClock(), SeededEntropy(1))
    paths = {}
    for name, pair in (
        (
            "server",
            ca.issue(
                "kube-apiserver", [], server=True, client=False, dns_names=["localhost"], ips=["127.0.0.1"]
            ),
        ),
        ("client", ca.issue("alice", ["dev"])),
    ):
        paths[name] = tmp_path / f"{name}.pem"
        paths[name].write_bytes(pair[0] + pair[1])
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(paths["server"])
    serving.load_verify_locations(cadata=ca.certificate_pem.decode())
    serving.verify_mode = ssl.CERT_REQUIRED
    calling = ssl.create_default_context(cadata=ca.certificate_pem.decode())
    calling.load_cert_chain(paths["client"])
    who: list[tuple[str, tuple[str, ...]]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        who.append(certs.identity_of_der(der))
        writer.write(await reader.readline())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=serving)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=calling)
    writer.write(b"hello\n")
    assert await reader.readline() == b"hello\n"
    writer.close()
    server.close()
    assert who == [("alice", ("dev",))]
