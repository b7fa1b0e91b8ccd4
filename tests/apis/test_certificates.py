"""CertificateSigningRequests: what may be asked, who may say yes, what stays."""

import base64
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from kcp.apis import certificates

Json = dict[str, Any]
STRATEGY = certificates.STRATEGIES["CertificateSigningRequest"]
APPROVED: Json = {"type": "Approved", "status": "True", "reason": "ok"}
DENIED: Json = {"type": "Denied", "status": "True", "reason": "no"}


def _pem() -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "system:node:n1")])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    return base64.b64encode(request.public_bytes(Encoding.PEM)).decode()


PEM = _pem()


def _request(*conditions: Json, **spec: Any) -> Json:
    full = {
        "request": PEM,
        "signerName": "kubernetes.io/kube-apiserver-client",
        "usages": ["client auth"],
        **spec,
    }
    request: Json = {"metadata": {"name": "r"}, "spec": full}
    if conditions:
        request["status"] = {"conditions": list(conditions)}
    return request


def _texts(errors: list[Any]) -> list[str]:
    return [str(error) for error in errors]


def test_a_proper_request_passes() -> None:
    assert certificates.validate_request(_request()) == []


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"usages": []}, "spec.usages: Required value"),
        ({"usages": ["client auth", "client auth"]}, 'spec.usages[1]: Duplicate value: "client auth"'),
        ({"signerName": ""}, "spec.signerName: Required value"),
        (
            {"signerName": "nosuchpath"},
            'spec.signerName: Invalid value: "nosuchpath": must be a fully qualified domain and path of the form'
            " 'example.com/signer-name'",
        ),
        (
            {"signerName": "single/x"},
            'spec.signerName: Invalid value: "single": should be a domain with at least two segments separated by dots',
        ),
        (
            {"signerName": "kubernetes.io/legacy-unknown"},
            'spec.signerName: Invalid value: "kubernetes.io/legacy-unknown":'
            " the legacy signerName is not allowed via this API version",
        ),
        (
            {"expirationSeconds": 599},
            "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)",
        ),
        (
            {"request": "aGVsbG8="},
            'spec.request: Invalid value: "aGVsbG8=": PEM block type must be CERTIFICATE REQUEST',
        ),
    ],
)
def test_what_is_wrong_with_a_request(spec: Json, text: str) -> None:
    assert _texts(certificates.validate_request(_request(**spec))) == [text]


def test_a_forged_signature_is_refused() -> None:
    raw = bytearray(base64.b64decode(PEM))
    lines = raw.decode().splitlines()
    body = bytearray(base64.b64decode("".join(lines[1:-1])))
    body[-1] ^= 1
    encoded = base64.b64encode(body).decode()
    forged = "\n".join([lines[0], encoded, lines[-1], ""])
    assert certificates.request_fault(base64.b64encode(forged.encode()).decode())


def test_only_approval_may_add_approved() -> None:
    new, old = _request(APPROVED), _request()
    assert certificates.validate_request_approval(new, old) == []
    assert _texts(certificates.validate_request_status(new, old)) == [
        'status.conditions: Forbidden: updates may not add a condition of type "Approved"'
    ]


def test_nobody_may_take_a_decision_back() -> None:
    assert _texts(certificates.validate_request_approval(_request(), _request(APPROVED))) == [
        'status.conditions: Forbidden: updates may not remove a condition of type "Approved"'
    ]


def test_approved_and_denied_exclude_each_other() -> None:
    errors = certificates.validate_request_approval(_request(APPROVED, DENIED), _request(APPROVED))
    assert _texts(errors) == [
        'status.conditions[1].type: Invalid value: "Denied": Approved and Denied conditions are mutually exclusive'
    ]


def test_a_certificate_is_set_once_and_by_status() -> None:
    old, new = _request(APPROVED), _request(APPROVED)
    new["status"]["certificate"] = "bm90IGEgY2VydA=="
    assert _texts(certificates.validate_request_status(new, old)) == [
        'status.certificate: Invalid value: "<certificate data>": must contain at least one CERTIFICATE PEM block'
    ]
    assert "status.certificate: Forbidden: updates may not set certificate content" in _texts(
        certificates.validate_request_approval(new, old)
    )
    other = _request(APPROVED)
    other["status"]["certificate"] = "b3RoZXI="
    assert _texts(certificates.validate_request_status(other, new)) == [
        "status.certificate: Forbidden: updates may not modify existing certificate content"
    ]


def test_a_status_update_leaves_decisions_untouched() -> None:
    old, new = (
        _request(APPROVED),
        _request({**APPROVED, "reason": "changed"}, {"type": "Failed", "status": "True"}),
    )
    STRATEGY.prepare_status(new, old)
    assert new["status"]["conditions"] == [APPROVED, {"type": "Failed", "status": "True"}]


def test_an_approval_brings_conditions_only() -> None:
    old, new = _request(), _request(APPROVED, signerName="other.example/x")
    new["status"]["certificate"] = "eA=="
    certificates.prepare_request_approval(new, old)
    assert new["spec"] == old["spec"]
    assert new["status"] == {"conditions": [APPROVED]}


def test_condition_times_are_filled_in() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    earlier = "2025-01-01T00:00:00Z"
    old = _request({**APPROVED, "lastTransitionTime": earlier})
    new = _request(dict(APPROVED), dict(DENIED))
    certificates.populate_condition_times(new, old, now)
    approved, denied = new["status"]["conditions"]
    assert (approved["lastTransitionTime"], approved["lastUpdateTime"]) == (earlier, "2026-01-01T00:00:00Z")
    assert denied["lastTransitionTime"] == "2026-01-01T00:00:00Z"


def test_the_server_says_who_asks() -> None:
    request = _request(username="forged", groups=["system:masters"])
    certificates.set_requestor(request, {"username": "ann", "uid": "", "groups": ["ops"], "extra": {}})
    assert request["spec"]["username"] == "ann"
    assert request["spec"]["groups"] == ["ops"]
    assert "extra" not in request["spec"]


@pytest.mark.parametrize(
    ("conditions", "certificate", "state"),
    [
        ((), "", "Pending"),
        ((APPROVED,), "", "Approved"),
        ((APPROVED,), "eA==", "Approved,Issued"),
        ((DENIED,), "", "Denied"),
        ((APPROVED, {"type": "Failed", "status": "True"}), "", "Approved,Failed"),
    ],
)
def test_printed_state(conditions: tuple[Json, ...], certificate: str, state: str) -> None:
    request = _request(*conditions, expirationSeconds=3600, username="ann")
    request.setdefault("status", {})["certificate"] = certificate
    request["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    cells = certificates.PRINTERS["CertificateSigningRequest"].cells(
        request, datetime(2026, 1, 1, 1, tzinfo=UTC)
    )
    assert cells == ["r", "60m", "kubernetes.io/kube-apiserver-client", "ann", "60m", state]


def test_requests_are_selected_by_signer() -> None:
    assert STRATEGY.selectable["spec.signerName"](_request()) == "kubernetes.io/kube-apiserver-client"
