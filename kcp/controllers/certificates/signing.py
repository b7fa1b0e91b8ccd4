"""Signing: approved requests for the signers of Kubernetes get their certificate, or condition Failed.

The provider `certificates` holds the authority; the planner only says what to sign and for how long.
Source: k8s v1.36 pkg/controller/certificates/signer/signer.go.
"""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.certificates.requests import (
    REQUESTS,
    SIGNERS,
    condition,
    is_approved,
    is_issued,
    parsed,
)
from kcp.controllers.sources import Controller, Self
from kcp.machinery.times import format_time

Json = dict[str, Any]
PROVIDER = "certificates"
MIN_LIFETIME_S = 600


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    request = view.requests.get(key)
    if request is None or is_issued(request) or not is_approved(request):
        return
    rule = SIGNERS.get(request["spec"].get("signerName", ""))
    asked = parsed(request)
    if rule is None or asked is None or condition(request, "Failed") is not None:
        return
    usages = request["spec"].get("usages") or []
    fault = rule(asked, usages)
    status = request.get("status") or {}
    if fault:
        conditions = [*(status.get("conditions") or ()), _failed(fault, env.now)]
        yield fx.Status(REQUESTS, request, {**status, "conditions": conditions})
        return
    args = {
        "request": request["spec"]["request"],
        "usages": list(usages),
        "lifetime_s": lifetime_s(request, env.settings["signing_duration_s"]),
    }
    signed = yield fx.External(PROVIDER, "sign", args)
    if signed.ok and signed.object is not None:
        certificate = base64.b64encode(signed.object["certificate"].encode()).decode()
        yield fx.Status(REQUESTS, request, {**status, "certificate": certificate})


def lifetime_s(request: Json, longest_s: int) -> int:
    """What was asked for, between ten minutes and the longest that the cluster signs for."""
    asked = request["spec"].get("expirationSeconds")
    return longest_s if asked is None else min(longest_s, max(MIN_LIFETIME_S, asked))


def _failed(fault: str, now: datetime) -> Json:
    return {
        "type": "Failed",
        "status": "True",
        "reason": "SignerValidationFailure",
        "message": fault,
        "lastUpdateTime": format_time(now),
    }


CONTROLLER = Controller(
    name="certificatesigningrequest-signing-controller",
    identity="certificate-controller",
    plan=plan,
    watches={"requests": Self(REQUESTS)},
    settings={"signing_duration_s": 365 * 24 * 3600},
    retry_base_s=0.2,
)
