"""CertificateSigningRequests: approving kubelets' own, signing what is approved, removing what is done with."""

from kcp.controllers.certificates.approving import CONTROLLER as APPROVING
from kcp.controllers.certificates.cleaner import CONTROLLER as CLEANER
from kcp.controllers.certificates.signing import CONTROLLER as SIGNING

__all__ = ["APPROVING", "CLEANER", "SIGNING"]
