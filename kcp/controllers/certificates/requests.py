"""What a CertificateSigningRequest says, and the rules of the signers of Kubernetes.

Source: k8s v1.36 pkg/apis/certificates/helpers.go, pkg/controller/certificates/{certificate_controller_utils,signer}.go.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kcp.base.certs import CertificateError, SigningRequest, parse_request

Json = dict[str, Any]
REQUESTS = "certificatesigningrequests.certificates.k8s.io"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
API_CLIENT = "kubernetes.io/kube-apiserver-client"
LEGACY_UNKNOWN = "kubernetes.io/legacy-unknown"
NODES_GROUP, NODE_PREFIX = "system:nodes", "system:node:"
_CLIENT_USAGES = ("client auth", "digital signature", "key encipherment")
_SERVING_USAGES = ("digital signature", "key encipherment", "server auth")
_NOT_OF_NODES = "subject organization is not system:nodes"
_NOT_OF_A_NODE = "subject common name does not begin with system:node:"


def condition(request: Json, kind: str) -> Json | None:
    for entry in (request.get("status") or {}).get("conditions") or ():
        if entry.get("type") == kind:
            found: Json = entry
            return found
    return None


def is_decided(request: Json) -> bool:
    return condition(request, "Approved") is not None or condition(request, "Denied") is not None


def is_approved(request: Json) -> bool:
    """Approved, and not denied as well."""
    return condition(request, "Approved") is not None and condition(request, "Denied") is None


def is_issued(request: Json) -> bool:
    return bool((request.get("status") or {}).get("certificate"))


def parsed(request: Json) -> SigningRequest | None:
    """The X.509 request inside; None when it cannot be read."""
    try:
        return parse_request(base64.b64decode(request["spec"]["request"], validate=True))
    except (CertificateError, binascii.Error, ValueError):
        return None


def kubelet_client_fault(asked: SigningRequest, usages: Sequence[str]) -> str:
    """Why this is no request of a kubelet for its client certificate; empty when it is."""
    if asked.organizations != (NODES_GROUP,):
        return _NOT_OF_NODES
    if asked.dns_names:
        return "DNS subjectAltNames are not allowed"
    if asked.emails:
        return "Email subjectAltNames are not allowed"
    if asked.ips:
        return "IP subjectAltNames are not allowed"
    if asked.uris:
        return "URI subjectAltNames are not allowed"
    if not asked.common_name.startswith(NODE_PREFIX):
        return _NOT_OF_A_NODE
    return _usages_fault(usages, _CLIENT_USAGES)


def kubelet_serving_fault(asked: SigningRequest, usages: Sequence[str]) -> str:
    """Why this is no request of a kubelet for its serving certificate; empty when it is."""
    if asked.organizations != (NODES_GROUP,):
        return _NOT_OF_NODES
    if not asked.dns_names and not asked.ips:
        return "DNS or IP subjectAltName is required"
    if asked.emails:
        return "Email subjectAltNames are not allowed"
    if asked.uris:
        return "URI subjectAltNames are not allowed"
    fault = _usages_fault(usages, _SERVING_USAGES)
    if fault:
        return fault
    return "" if asked.common_name.startswith(NODE_PREFIX) else _NOT_OF_A_NODE


def _usages_fault(usages: Sequence[str], required: Sequence[str]) -> str:
    """Key encipherment makes no sense with an elliptic curve: it may be left out."""
    given = frozenset(usages)
    if given in (frozenset(required), frozenset(required) - {"key encipherment"}):
        return ""
    return f"usages did not match [{' '.join(required)}]"


def client_fault(asked: SigningRequest, usages: Sequence[str]) -> str:
    """Why the usages are not those of a client certificate."""
    del asked
    for usage in usages:
        if usage not in _CLIENT_USAGES:
            return f"invalid usage for client certificate: {usage}"
    if "client auth" not in usages:
        return "missing required usage for client certificate: client auth"
    return ""


SIGNERS: Mapping[str, Callable[[SigningRequest, Sequence[str]], str]] = {
    KUBELET_CLIENT: kubelet_client_fault,
    KUBELET_SERVING: kubelet_serving_fault,
    API_CLIENT: client_fault,
    LEGACY_UNKNOWN: lambda asked, usages: "",
}
"""Signer -> why it does not sign a request; empty when it does."""
