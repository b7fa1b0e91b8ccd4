"""Certificate requests: who is approved, what is signed for how long, what is removed when."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from cryptography import x509

from kcp.base.certs import (
    Authority,
    alternative_names,
    create_request,
    generate_key,
    load_certificate,
    subject,
)
from kcp.base.clock import VirtualClock
from kcp.base.entropy import SeededEntropy
from kcp.controllers import effects as fx
from kcp.controllers.certificates import APPROVING, CLEANER, SIGNING
from kcp.controllers.certificates.requests import (
    API_CLIENT,
    KUBELET_CLIENT,
    KUBELET_SERVING,
    LEGACY_UNKNOWN,
    REQUESTS,
)
from kcp.controllers.certificates.signing import lifetime_s
from kcp.controlplane.providers import Certificates
from tests.support.planning import START, World, of_type

Json = dict[str, Any]
KEY = generate_key(SeededEntropy(3))
NODE = "system:node:n1"
REVIEW = "POST /apis/authorization.k8s.io/v1/subjectaccessreviews"


def kubelet_pem(name: str = NODE, groups: tuple[str, ...] = ("system:nodes",), **names: Any) -> bytes:
    return create_request(KEY, name, groups, **names)


def request(
    signer: str,
    usages: list[str],
    pem: bytes | None = None,
    *,
    username: str = NODE,
    conditions: list[Json] | None = None,
    **spec: Any,
) -> Json:
    status = {"conditions": conditions} if conditions else {}
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "csr"},
        "spec": {
            "request": base64.b64encode(pem or kubelet_pem()).decode(),
            "signerName": signer,
            "usages": usages,
            "username": username,
            "groups": ["system:nodes"],
            **spec,
        },
        "status": status,
    }


def condition(kind: str, at: datetime = START, **more: Any) -> Json:
    return {"type": kind, "status": "True", "lastUpdateTime": at.strftime("%Y-%m-%dT%H:%M:%SZ"), **more}


CLIENT = ["digital signature", "client auth"]
SERVING = ["digital signature", "key encipherment", "server auth"]


def sign(world: World) -> Json:
    world.answers["certificates/sign"] = {"certificate": "-----PEM-----"}
    world.plan(SIGNING, "csr")
    found: Json = world.get(REQUESTS, "csr")["status"]
    return found


@pytest.mark.parametrize(
    ("signer", "usages", "pem"),
    [
        (KUBELET_CLIENT, CLIENT, kubelet_pem()),
        (KUBELET_CLIENT, [*CLIENT, "key encipherment"], kubelet_pem()),
        (KUBELET_SERVING, SERVING, kubelet_pem(dns_names=["n1"])),
        (KUBELET_SERVING, SERVING[::2], kubelet_pem(ips=["10.0.0.1"])),
        (API_CLIENT, ["client auth"], kubelet_pem("jane", ("dev",))),
        (LEGACY_UNKNOWN, ["code signing"], kubelet_pem("anything", ())),
    ],
)
def test_approved_requests_are_signed(signer: str, usages: list[str], pem: bytes) -> None:
    world = World(request(signer, usages, pem, conditions=[condition("Approved")]))
    assert base64.b64decode(sign(world)["certificate"]) == b"-----PEM-----"
    assert world.plan(SIGNING, "csr") == []


def with_email() -> bytes:
    names = x509.SubjectAlternativeName([x509.RFC822Name("a@example.com")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject(NODE, ["system:nodes"]))
    from cryptography.hazmat.primitives import hashes, serialization

    built = builder.add_extension(names, critical=False).sign(KEY, hashes.SHA256())
    return built.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    ("signer", "usages", "pem", "fault"),
    [
        (KUBELET_CLIENT, CLIENT, kubelet_pem(groups=("a",)), "subject organization is not system:nodes"),
        (
            KUBELET_CLIENT,
            CLIENT,
            kubelet_pem("n1"),
            "subject common name does not begin with system:node:",
        ),
        (KUBELET_CLIENT, CLIENT, kubelet_pem(dns_names=["x"]), "DNS subjectAltNames are not allowed"),
        (KUBELET_CLIENT, CLIENT, kubelet_pem(ips=["10.0.0.1"]), "IP subjectAltNames are not allowed"),
        (KUBELET_CLIENT, CLIENT, with_email(), "Email subjectAltNames are not allowed"),
        (
            KUBELET_CLIENT,
            SERVING,
            kubelet_pem(),
            "usages did not match [client auth digital signature key encipherment]",
        ),
        (KUBELET_SERVING, SERVING, kubelet_pem(), "DNS or IP subjectAltName is required"),
        (
            KUBELET_SERVING,
            CLIENT,
            kubelet_pem(dns_names=["n1"]),
            "usages did not match [digital signature key encipherment server auth]",
        ),
        (
            API_CLIENT,
            ["client auth", "server auth"],
            None,
            "invalid usage for client certificate: server auth",
        ),
        (
            API_CLIENT,
            ["digital signature"],
            None,
            "missing required usage for client certificate: client auth",
        ),
    ],
)
def test_requests_that_break_the_rule_fail(
    signer: str, usages: list[str], pem: bytes | None, fault: str
) -> None:
    world = World(request(signer, usages, pem, conditions=[condition("Approved")]))
    failed = sign(world)["conditions"][-1]
    assert (failed["type"], failed["reason"]) == ("Failed", "SignerValidationFailure")
    assert failed["message"] == fault
    assert world.plan(SIGNING, "csr") == []


@pytest.mark.parametrize(
    ("signer", "conditions"),
    [
        (KUBELET_CLIENT, []),
        (KUBELET_CLIENT, [condition("Denied")]),
        (KUBELET_CLIENT, [condition("Approved"), condition("Denied")]),
        (KUBELET_CLIENT, [condition("Approved"), condition("Failed")]),
        ("example.com/other", [condition("Approved")]),
    ],
)
def test_requests_that_are_not_to_be_signed(signer: str, conditions: list[Json]) -> None:
    assert World(request(signer, CLIENT, conditions=conditions)).plan(SIGNING, "csr") == []


@pytest.mark.parametrize(("asked", "given"), [(None, 1000), (700, 700), (10, 600), (5000, 1000)])
def test_lifetimes_are_kept_in_bounds(asked: int | None, given: int) -> None:
    spec = {} if asked is None else {"expirationSeconds": asked}
    assert lifetime_s({"spec": spec}, 1000) == given


# The authority behind the provider.


def issue(lifetime: timedelta, usages: list[str] = CLIENT, pem: bytes | None = None) -> x509.Certificate:
    clock = VirtualClock(START)
    authority = Authority.create("kubernetes", clock, SeededEntropy(5), lifetime=timedelta(days=30))
    args = {
        "request": base64.b64encode(pem or kubelet_pem()).decode(),
        "usages": usages,
        "lifetime_s": lifetime.total_seconds(),
    }
    provider = Certificates(authority)

    async def call() -> Json:
        return await provider("sign", args)

    return load_certificate(anyio.run(call)["certificate"].encode())


def test_validity_is_moved_back_but_not_for_short_certificates() -> None:
    long, short, beyond = issue(timedelta(days=1)), issue(timedelta(hours=7)), issue(timedelta(days=365))
    assert long.not_valid_before_utc == START - timedelta(minutes=5)
    assert long.not_valid_after_utc == START + timedelta(days=1) - timedelta(minutes=5)
    assert short.not_valid_after_utc == START + timedelta(hours=7)
    assert beyond.not_valid_after_utc == START + timedelta(days=30)


def test_a_certificate_says_what_was_asked_for_and_that_it_is_no_authority() -> None:
    made = issue(timedelta(days=1), SERVING, kubelet_pem(dns_names=["n1"], ips=["10.0.0.1"]))
    extensions = made.extensions
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_encipherment, usage.key_cert_sign) == (True, True, False)
    purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [oid.dotted_string for oid in purposes] == ["1.3.6.1.5.5.7.3.1"]
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names == alternative_names(["n1"], ["10.0.0.1"])
    assert made.subject == subject(NODE, ["system:nodes"])


# Approving.


def test_a_kubelet_that_may_approves_itself() -> None:
    world = World(request(KUBELET_CLIENT, CLIENT))
    world.answers[REVIEW] = {"status": {"allowed": True}}
    effects = world.plan(APPROVING, "csr")
    asked, approved = effects
    assert isinstance(asked, fx.Request) and asked.body is not None
    assert asked.body["spec"] == {
        "user": NODE,
        "groups": ["system:nodes"],
        "resourceAttributes": {
            "group": "certificates.k8s.io",
            "resource": "certificatesigningrequests",
            "verb": "create",
            "subresource": "selfnodeclient",
            "version": "*",
        },
    }
    assert isinstance(approved, fx.Update) and approved.subresource == "approval"
    (made,) = approved.object["status"]["conditions"]
    assert (made["type"], made["reason"]) == ("Approved", "AutoApproved")
    assert made["message"] == "Auto approving self kubelet client certificate after SubjectAccessReview."


def test_somebody_else_asks_for_a_kubelet() -> None:
    world = World(request(KUBELET_CLIENT, CLIENT, username="bootstrapper"))
    world.answers[REVIEW] = {"status": {"allowed": True}}
    asked, approved = world.plan(APPROVING, "csr")
    assert isinstance(asked, fx.Request) and asked.body is not None and isinstance(approved, fx.Update)
    assert asked.body["spec"]["resourceAttributes"]["subresource"] == "nodeclient"
    (made,) = approved.object["status"]["conditions"]
    assert made["message"] == "Auto approving kubelet client certificate after SubjectAccessReview."


def test_a_refusal_is_asked_again_ever_more_seldom() -> None:
    world = World(request(KUBELET_CLIENT, CLIENT))
    world.answers[REVIEW] = {"status": {"allowed": False}}
    waits = [of_type(world.plan(APPROVING, "csr"), fx.RequeueAfter)[0].seconds for _ in range(3)]
    assert waits == [0.2, 0.4, 0.8]
    assert len(of_type(world.plan(APPROVING, "csr"), fx.Request)) == 2


@pytest.mark.parametrize(
    "asked",
    [
        request(KUBELET_SERVING, SERVING, kubelet_pem(dns_names=["n1"])),
        request(API_CLIENT, ["client auth"]),
        request(KUBELET_CLIENT, CLIENT, kubelet_pem(groups=("a",))),
        request(KUBELET_CLIENT, CLIENT, conditions=[condition("Denied")]),
    ],
)
def test_nothing_else_is_approved(asked: Json) -> None:
    assert World(asked).plan(APPROVING, "csr") == []


# Cleaning.


def issued_at(moment: datetime) -> str:
    clock = VirtualClock(moment)
    authority = Authority.create("kubernetes", clock, SeededEntropy(5))
    pem = authority.sign_for(kubelet_pem(), CLIENT, timedelta(hours=1))
    return base64.b64encode(pem).decode()


@pytest.mark.parametrize(
    ("conditions", "issued", "hours"),
    [
        ([], False, 24),
        ([condition("Approved")], False, 24),
        ([condition("Approved")], True, 1),
        ([condition("Denied")], False, 1),
        ([condition("Failed"), condition("Approved")], False, 1),
    ],
)
def test_requests_are_removed_in_time(conditions: list[Json], issued: bool, hours: int) -> None:
    asked = request(KUBELET_CLIENT, CLIENT, conditions=conditions)
    if issued:
        asked["status"]["certificate"] = issued_at(START + timedelta(hours=1))
    world = World(asked)
    world.sleep(hours * 3600 - 60)
    assert world.plan(CLEANER, "tick") == []
    world.sleep(120)
    assert [e.name for e in of_type(world.plan(CLEANER, "tick"), fx.Delete)] == ["csr"]


def test_an_expired_certificate_needs_no_request_any_more() -> None:
    asked = request(KUBELET_CLIENT, CLIENT, conditions=[condition("Approved", START)])
    asked["status"]["certificate"] = issued_at(datetime(2025, 1, 1, tzinfo=UTC))
    world = World(asked)
    assert [e.name for e in of_type(world.plan(CLEANER, "tick"), fx.Delete)] == ["csr"]
