"""certificates.k8s.io: CertificateSigningRequest.

Source: k8s v1.36 pkg/apis/certificates/validation/validation.go, pkg/registry/certificates/certificates/strategy.go.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors
from kcp.apis.kind import Json, Printer, Strategy
from kcp.apis.printing import AGE, NAME, NONE, age, columns, name_of, or_none
from kcp.machinery import names
from kcp.machinery.errors import (
    FieldError,
    duplicate,
    forbidden,
    go_quote,
    invalid,
    required,
    too_long,
    unsupported,
)
from kcp.machinery.times import format_time, human_duration

LEGACY_UNKNOWN_SIGNER = "kubernetes.io/legacy-unknown"
MIN_EXPIRATION_S = 600
USAGES = (
    "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment",
    "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel",
    "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime",
    "server auth", "signing", "timestamping",
)  # fmt: skip
_TRUE_ONLY = ("Approved", "Denied", "Failed")
_STATUSES = ("False", "True", "Unknown")
_EXCLUSIVE = "Approved and Denied conditions are mutually exclusive"
_PEM_BEGIN = "-----BEGIN "
_DOMAIN_LENGTH = 253
_SIGNER_LENGTH = 571


def pem_of(text: str | None) -> bytes:
    """The bytes behind a base64 field; b"" when it is absent or malformed."""
    try:
        return base64.b64decode(text or "", validate=True)
    except (binascii.Error, ValueError):
        return b""


def request_fault(text: str | None) -> str:
    """Why spec.request is no signed PKCS#10 request; empty when it is."""
    pem = pem_of(text)
    if b"-----BEGIN CERTIFICATE REQUEST-----" not in pem:
        return "PEM block type must be CERTIFICATE REQUEST"
    try:
        request = x509.load_pem_x509_csr(pem)
        valid = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        return str(error) or "asn1: structure error"
    return "" if valid else "x509: signature verification failed"


def certificate_fault(text: str | None) -> str:
    """Why status.certificate is no chain of PEM certificates; empty when it is, or when nothing is issued."""
    if not text:
        return ""
    pem = pem_of(text)
    blocks = [line for line in pem.decode("ascii", "replace").splitlines() if line.startswith(_PEM_BEGIN)]
    if not blocks:
        return "must contain at least one CERTIFICATE PEM block"
    for line in blocks:
        kind = line.removeprefix(_PEM_BEGIN).removesuffix("-----")
        if kind != "CERTIFICATE":
            return f"only CERTIFICATE PEM blocks are allowed, found {go_quote(kind)}"
    try:
        x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        return str(error)
    return ""


def check_signer_name(errors: Errors, signer: str, path: str) -> None:
    """`example.com/name`: a domain of at least two labels and one segment of labels.

    Source: pkg/apis/core/validation ValidateSignerName.
    """
    if not signer:
        errors.append(required(path))
        return
    segments = signer.split("/")
    if len(segments) != 2:
        text = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        errors.append(invalid(path, signer, text))
        return
    domain, name = segments
    if len(domain) > _DOMAIN_LENGTH:
        errors.append(too_long(path, _DOMAIN_LENGTH))
    _check_labels(errors, domain, names.is_dns1123_label, path)
    if "." not in domain:
        text = "should be a domain with at least two segments separated by dots"
        errors.append(invalid(path, domain, text))
    _check_labels(errors, name, names.is_dns1123_subdomain, path)
    if len(signer) > _SIGNER_LENGTH:
        errors.append(too_long(path, _SIGNER_LENGTH))


def _check_labels(errors: Errors, segment: str, check: Callable[[str], list[str]], path: str) -> None:
    """The first malformed label of a segment."""
    for label in segment.split("."):
        if faults := check(label):
            texts = (f"validating label {go_quote(label)}: {fault}" for fault in faults)
            checks.texts(errors, texts, segment, path)
            return


def _conditions(request: Json) -> list[Json]:
    found: list[Json] = (request.get("status") or {}).get("conditions") or []
    return found


def _types(request: Json) -> list[str]:
    return [entry.get("type") or "" for entry in _conditions(request)]


def _of_type(request: Json, kind: str) -> list[Json]:
    return [entry for entry in _conditions(request) if entry.get("type") == kind]


def _check_conditions(errors: Errors, request: Json, old: Json | None) -> None:
    """What the stored object already did wrong may stay."""
    before = _types(old) if old is not None else []
    both_allowed = "Approved" in before and "Denied" in before
    duplicates_allowed = len(set(before)) < len(before)
    seen: set[str] = set()
    for index, entry in enumerate(_conditions(request)):
        path, kind, status = f"status.conditions[{index}]", entry.get("type") or "", entry.get("status") or ""
        if not kind and "" not in before:
            errors.append(required(f"{path}.type"))
        checks.one_of(errors, status, ("True",) if kind in _TRUE_ONLY else _STATUSES, f"{path}.status")
        other = {"Approved": "Denied", "Denied": "Approved"}.get(kind)
        if other in seen and not both_allowed:
            errors.append(invalid(f"{path}.type", kind, _EXCLUSIVE))
        if kind in seen and not duplicates_allowed:
            errors.append(duplicate(f"{path}.type", kind))
        seen.add(kind)


def _check_usages(errors: Errors, usages: list[str], old: list[str] | None) -> None:
    if not usages:
        errors.append(required("spec.usages"))
    if old is None or all(usage in USAGES for usage in old):
        for index, usage in enumerate(usages):
            if usage not in USAGES:
                errors.append(unsupported(f"spec.usages[{index}]", usage, USAGES))
    if old is None or len(set(old)) == len(old):
        for index, usage in enumerate(usages):
            if usage in usages[:index]:
                errors.append(duplicate(f"spec.usages[{index}]", usage))


def _check_request(errors: Errors, request: Json, old: Json | None) -> None:
    spec, old_spec = request.get("spec") or {}, (old or {}).get("spec") or {}
    fault = request_fault(spec.get("request"))
    if fault:
        errors.append(invalid("spec.request", spec.get("request"), fault))
    _check_usages(errors, spec.get("usages") or [], None if old is None else old_spec.get("usages") or [])
    signer = spec.get("signerName") or ""
    if signer == LEGACY_UNKNOWN_SIGNER and old_spec.get("signerName") != LEGACY_UNKNOWN_SIGNER:
        text = "the legacy signerName is not allowed via this API version"
        errors.append(invalid("spec.signerName", signer, text))
    else:
        check_signer_name(errors, signer, "spec.signerName")
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < MIN_EXPIRATION_S:
        text = "may not specify a duration less than 600 seconds (10 minutes)"
        errors.append(invalid("spec.expirationSeconds", seconds, text))
    _check_conditions(errors, request, old)
    _check_certificate(errors, request, old)


def _certificate(request: Json | None) -> str:
    return ((request or {}).get("status") or {}).get("certificate") or ""


def _check_certificate(errors: Errors, request: Json, old: Json | None) -> None:
    new = _certificate(request)
    if old is not None and (new == _certificate(old) or certificate_fault(_certificate(old))):
        return
    fault = certificate_fault(new)
    if fault:
        errors.append(invalid("status.certificate", "<certificate data>", fault))


def _check_kept(errors: Errors, new: Json, old: Json, *, may_approve: bool) -> None:
    path = "status.conditions"
    for kind in _TRUE_ONLY:
        if len(_of_type(new, kind)) < len(_of_type(old, kind)):
            errors.append(forbidden(path, f"updates may not remove a condition of type {go_quote(kind)}"))
    if may_approve:
        return
    for kind in ("Approved", "Denied"):
        after, before = _of_type(new, kind), _of_type(old, kind)
        if len(after) > len(before):
            errors.append(forbidden(path, f"updates may not add a condition of type {go_quote(kind)}"))
        elif len(after) == len(before) and not checks.semantic_equal(after, before):
            text = (
                f"updates may not modify a condition of type {go_quote(kind)}\n{checks.diff(before, after)}"
            )
            errors.append(forbidden(path, text))


def _check_update(new: Json, old: Json, *, may_approve: bool, may_issue: bool) -> list[FieldError]:
    errors: Errors = []
    _check_request(errors, new, old)
    _check_kept(errors, new, old, may_approve=may_approve)
    if _certificate(new) != _certificate(old):
        if not may_issue:
            errors.append(forbidden("status.certificate", "updates may not set certificate content"))
        elif _certificate(old):
            errors.append(
                forbidden("status.certificate", "updates may not modify existing certificate content")
            )
    return errors


def validate_request(request: Json) -> list[FieldError]:
    errors: Errors = []
    _check_request(errors, request, None)
    return errors


def validate_request_update(new: Json, old: Json) -> list[FieldError]:
    return _check_update(new, old, may_approve=False, may_issue=False)


def validate_request_status(new: Json, old: Json) -> list[FieldError]:
    return _check_update(new, old, may_approve=False, may_issue=True)


def validate_request_approval(new: Json, old: Json) -> list[FieldError]:
    """For the /approval subresource."""
    return _check_update(new, old, may_approve=True, may_issue=False)


def set_requestor(request: Json, user: Mapping[str, Any]) -> None:
    """Who asks, as the server knows it: username, uid, groups, extra; what the client says does not count."""
    spec = request.setdefault("spec", {})
    for field in ("username", "uid", "groups", "extra"):
        spec.pop(field, None)
        if user.get(field):
            spec[field] = user[field]


def prepare_request_update(new: Json, old: Json) -> None:
    """The spec is what was asked for, for good."""
    new["spec"] = old.get("spec") or {}


def prepare_request_status(new: Json, old: Json) -> None:
    """Approved and Denied stay as they are; adding or removing one of them is left for validation to refuse."""
    status = new.get("status") or {}
    conditions = list(status.get("conditions") or ())
    for kind in ("Approved", "Denied"):
        before = _of_type(old, kind)
        places = [index for index, entry in enumerate(conditions) if entry.get("type") == kind]
        if len(places) == len(before):
            for place, entry in zip(places, before, strict=True):
                conditions[place] = entry
    if conditions:
        new["status"] = {**status, "conditions": conditions}


def prepare_request_approval(new: Json, old: Json) -> None:
    """For /approval: of the new object only the conditions count."""
    new["spec"] = old.get("spec") or {}
    status = {key: value for key, value in (old.get("status") or {}).items() if key != "conditions"}
    conditions = (new.get("status") or {}).get("conditions")
    new["status"] = status if conditions is None else {**status, "conditions": conditions}


def populate_condition_times(new: Json, old: Json, now: datetime) -> None:
    """For /status and /approval: when a condition was written and when its status last changed."""
    stamp = format_time(now)
    before = {entry.get("type"): entry for entry in _conditions(old)}
    for entry in _conditions(new):
        if not entry.get("lastUpdateTime"):
            entry["lastUpdateTime"] = stamp
        if not entry.get("lastTransitionTime"):
            known = before.get(entry.get("type"))
            same = known is not None and known.get("status") == entry.get("status")
            entry["lastTransitionTime"] = (known or {}).get("lastTransitionTime") if same else stamp


def _state(request: Json) -> str:
    kinds = _types(request)
    text = "Denied" if "Denied" in kinds else "Approved" if "Approved" in kinds else "Pending"
    text += ",Failed" if "Failed" in kinds else ""
    return f"{text},Issued" if _certificate(request) else text


def _request_cells(request: Json, now: datetime) -> list[Any]:
    spec = request.get("spec") or {}
    seconds = spec.get("expirationSeconds")
    return [
        name_of(request),
        age(request, now),
        or_none(spec.get("signerName")),
        spec.get("username", ""),
        NONE if seconds is None else human_duration(seconds),
        _state(request),
    ]


STRATEGIES: Mapping[str, Strategy] = {
    "CertificateSigningRequest": Strategy(
        prepare_update=prepare_request_update,
        prepare_status=prepare_request_status,
        validate_create=validate_request,
        validate_update=validate_request_update,
        validate_status=validate_request_status,
        selectable={"spec.signerName": lambda request: (request.get("spec") or {}).get("signerName", "")},
        name_rule="path_segment",
        has_generation=False,
        reset_fields={
            "": (("spec",), ("status",)),
            "status": (("spec",), ("status", "conditions")),
            "approval": (("spec",), ("status", "certificate")),
        },
    ),
}
PRINTERS: Mapping[str, Printer] = {
    "CertificateSigningRequest": Printer(
        columns(NAME, AGE, "SignerName", "Requestor", "RequestedDuration", "Condition"), _request_cells
    ),
}
