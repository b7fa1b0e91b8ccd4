"""CertificateApproval, CertificateSigning, CertificateSubjectRestriction: who may do what with signing requests.

Source: k8s v1.36 plugin/pkg/admission/certificates/{approval,signing,subjectrestriction}/admission.go.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from kcp.api.admission.plugin import Attributes, refused
from kcp.api.auth.protocol import MASTERS, Authorizer
from kcp.api.auth.protocol import Attributes as Question
from kcp.base.values import frozen
from kcp.machinery.errors import go_quote

REQUESTS = "certificatesigningrequests.certificates.k8s.io"
CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"

Json = dict[str, Any]


def _may(authorizer: Authorizer, attributes: Attributes, verb: str, signer: str) -> bool:
    """On the signer itself, or on all signers of its domain (`example.com/*`)."""
    for name in (signer, f"{signer.split('/', 1)[0]}/*"):
        question = Question(
            user=attributes.user,
            verb=verb,
            group="certificates.k8s.io",
            version="*",
            resource="signers",
            name=name,
        )
        if authorizer.authorize(question)[0] == "allow":
            return True
    return False


def _signer(attributes: Attributes) -> str:
    return str(((attributes.old or {}).get("spec") or {}).get("signerName", ""))


@frozen
class CertificateApproval:
    authorizer: Authorizer
    name: str = "CertificateApproval"

    def handles(self, attributes: Attributes) -> bool:
        return (
            attributes.kind.resource == REQUESTS
            and attributes.subresource == "approval"
            and attributes.operation == "UPDATE"
        )

    def validate(self, attributes: Attributes) -> None:
        signer = _signer(attributes)
        if not _may(self.authorizer, attributes, "approve", signer):
            raise refused(
                attributes, f"user not permitted to approve requests with signerName {go_quote(signer)}"
            )


@frozen
class CertificateSigning:
    authorizer: Authorizer
    name: str = "CertificateSigning"

    def handles(self, attributes: Attributes) -> bool:
        return (
            attributes.kind.resource == REQUESTS
            and attributes.subresource == "status"
            and attributes.operation == "UPDATE"
        )

    def validate(self, attributes: Attributes) -> None:
        new = (attributes.new.get("status") or {}).get("certificate")
        old = ((attributes.old or {}).get("status") or {}).get("certificate")
        signer = _signer(attributes)
        if new != old and not _may(self.authorizer, attributes, "sign", signer):
            raise refused(
                attributes, f"user not permitted to sign requests with signerName {go_quote(signer)}"
            )


def _organizations(request: str) -> list[str]:
    """The O= of a base64 PEM request; [] when it cannot be read, which validation reports."""
    try:
        csr = x509.load_pem_x509_csr(base64.b64decode(request))
    except (ValueError, binascii.Error):
        return []
    return [
        str(attribute.value) for attribute in csr.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    ]


@frozen
class CertificateSubjectRestriction:
    name: str = "CertificateSubjectRestriction"

    def handles(self, attributes: Attributes) -> bool:
        return (
            attributes.kind.resource == REQUESTS
            and attributes.subresource == ""
            and attributes.operation == "CREATE"
        )

    def validate(self, attributes: Attributes) -> None:
        spec = attributes.new.get("spec") or {}
        if spec.get("signerName") == CLIENT_SIGNER and MASTERS in _organizations(spec.get("request", "")):
            raise refused(attributes, f"use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed")
