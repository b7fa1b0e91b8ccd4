"""Client certificates and front proxies."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from kcp.api.auth.x509 import CertificateVerifier, ClientCertificates, FrontProxy
from kcp.base.clock import SystemClock, VirtualClock
from kcp.machinery.errors import Unauthorized
from kcp.wire.http import Request
from tests.wire.support import TestCa, make_ca

CA = make_ca("cluster")


def der(ca: TestCa, name: str, *organizations: str, server: bool = False) -> bytes:
    pem, _ = ca.issue(name, organizations, server=server)
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)


def verifier(ca: TestCa = CA, at: datetime | None = None) -> CertificateVerifier:
    clock = SystemClock() if at is None else VirtualClock(at)
    return CertificateVerifier.of([ca.pem.encode()], clock)


async def test_common_name_is_the_user_and_organizations_the_groups() -> None:
    user = await ClientCertificates(verifier()).authenticate(
        Request("GET", "/", peer_certificate=der(CA, "alice", "dev", "ops"))
    )
    assert user is not None
    assert (user.name, user.groups) == ("alice", ("dev", "ops", "system:authenticated"))
    ((key, (value,)),) = user.extra
    assert key == "authentication.kubernetes.io/credential-id"
    assert value.startswith("X509SHA256=")


async def test_no_certificate_and_foreign_ones_are_not_ours() -> None:
    certificates = ClientCertificates(verifier())
    assert await certificates.authenticate(Request("GET", "/")) is None
    foreign = Request("GET", "/", peer_certificate=der(make_ca("cluster"), "alice"))
    assert await certificates.authenticate(foreign) is None


async def test_a_serving_certificate_is_no_client_certificate() -> None:
    request = Request("GET", "/", peer_certificate=der(CA, "alice", server=True))
    assert await ClientCertificates(verifier()).authenticate(request) is None


async def test_an_expired_certificate_is_refused_also_when_it_was_seen_before() -> None:
    certificates = verifier(at=datetime.now(UTC))
    request = Request("GET", "/", peer_certificate=der(CA, "alice"))
    assert await ClientCertificates(certificates).authenticate(request) is not None
    assert isinstance(certificates.clock, VirtualClock)
    certificates.clock.advance(timedelta(hours=2).total_seconds())
    with pytest.raises(Unauthorized):
        await ClientCertificates(certificates).authenticate(request)


async def test_a_front_proxy_speaks_for_others() -> None:
    proxy = FrontProxy(verifier(), ("front-proxy-client",))
    headers = {
        "x-remote-user": "bob",
        "x-remote-group": "dev\nops",
        "x-remote-extra-example.com%2fscope": "a",
    }
    trusted = Request("GET", "/", headers=headers, peer_certificate=der(CA, "front-proxy-client"))
    user = await proxy.authenticate(trusted)
    assert user is not None
    assert (user.name, user.groups) == ("bob", ("dev", "ops", "system:authenticated"))
    assert user.extra == (("example.com/scope", ("a",)),)
    other = Request("GET", "/", headers=headers, peer_certificate=der(CA, "somebody"))
    assert await proxy.authenticate(other) is None
    assert await proxy.authenticate(Request("GET", "/", headers=headers)) is None
