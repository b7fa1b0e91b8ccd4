"""Approving: kubelets' requests for client certificates, when the requester may have one approved by itself.

Source: k8s v1.36 pkg/controller/certificates/approver/sarapprove.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kcp.base.certs import SigningRequest
from kcp.controllers import effects as fx
from kcp.controllers.certificates.requests import (
    KUBELET_CLIENT,
    REQUESTS,
    is_decided,
    is_issued,
    kubelet_client_fault,
    parsed,
)
from kcp.controllers.sources import Controller, Self
from kcp.machinery.times import format_time

Json = dict[str, Any]
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
RETRY_BASE_S, RETRY_CAP_S = 0.2, 1000.0
SELF = "Auto approving self kubelet client certificate after SubjectAccessReview."
OTHER = "Auto approving kubelet client certificate after SubjectAccessReview."


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    """The memo counts refusals: a role may be granted later, so the question is asked again, ever more seldom."""
    request = view.requests.get(key)
    if request is None or is_issued(request) or is_decided(request):
        if env.memo is not None:
            yield fx.Memo(None)
        return
    asked = parsed(request)
    permissions = recognized(request, asked) if asked is not None else []
    for subresource, message in permissions:
        review = yield fx.Request("POST", REVIEWS, body=_review(request, subresource))
        if not review.ok:
            return
        if ((review.object or {}).get("status") or {}).get("allowed"):
            yield fx.Update(REQUESTS, _approved(request, message, env.now), subresource="approval")
            return
    if permissions:
        refusals = (env.memo or {}).get("refusals", 0)
        yield fx.Memo({"refusals": refusals + 1})
        yield fx.RequeueAfter(min(RETRY_CAP_S, RETRY_BASE_S * 2 ** min(refusals, 30)))


def recognized(request: Json, asked: SigningRequest) -> list[tuple[str, str]]:
    """(subresource that the requester must be allowed to create, message), in the order to try."""
    spec = request["spec"]
    if spec.get("signerName") != KUBELET_CLIENT or kubelet_client_fault(asked, spec.get("usages") or ()):
        return []
    found = [("nodeclient", OTHER)]
    if spec.get("username") == asked.common_name:
        found.insert(0, ("selfnodeclient", SELF))
    return found


def _review(request: Json, subresource: str) -> Json:
    spec = request["spec"]
    attributes = {
        "group": "certificates.k8s.io",
        "resource": "certificatesigningrequests",
        "verb": "create",
        "subresource": subresource,
        "version": "*",
    }
    about: Json = {"user": spec.get("username", ""), "resourceAttributes": attributes}
    for field in ("uid", "groups", "extra"):
        if spec.get(field):
            about[field] = spec[field]
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": about}


def _approved(request: Json, message: str, now: datetime) -> Json:
    status = request.get("status") or {}
    condition = {
        "type": "Approved",
        "status": "True",
        "reason": "AutoApproved",
        "message": message,
        "lastUpdateTime": format_time(now),
    }
    conditions = [*(status.get("conditions") or ()), condition]
    return {**request, "status": {**status, "conditions": conditions}}


CONTROLLER = Controller(
    name="certificatesigningrequest-approving-controller",
    identity="certificate-controller",
    plan=plan,
    watches={"requests": Self(REQUESTS)},
    retry_base_s=RETRY_BASE_S,
)
