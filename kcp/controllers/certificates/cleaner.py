"""Cleaner: requests are removed some time after they are done with, or when nobody cared.

Source: k8s v1.36 pkg/controller/certificates/cleaner/cleaner.go.
"""

from __future__ import annotations

import base64
from datetime import datetime, timedelta
from typing import Any

from kcp.base.certs import CertificateError, load_certificate
from kcp.controllers import effects as fx
from kcp.controllers.certificates.requests import REQUESTS, condition, is_issued
from kcp.controllers.sources import Controller, Fan, Timer
from kcp.machinery import meta
from kcp.machinery.times import parse_time

Json = dict[str, Any]
PERIOD_S = 3600.0
SETTLED = timedelta(hours=1)
"""How long an issued, denied or failed request can be looked at."""
NEGLECTED = timedelta(hours=24)
"""How long one waits for its approval, or for its certificate."""


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    del key
    done = [request for request in view.requests.list() if is_done_with(request, env.now)]
    if done:
        yield fx.All([fx.Delete(REQUESTS, "", meta.name(r), uid=meta.uid(r)) for r in done])


def is_done_with(request: Json, now: datetime) -> bool:
    if not (request.get("status") or {}).get("conditions"):
        return parse_time(request["metadata"]["creationTimestamp"]) + NEGLECTED < now
    for kind, issued, keep in (
        ("Approved", True, SETTLED),
        ("Approved", False, NEGLECTED),
        ("Denied", None, SETTLED),
        ("Failed", None, SETTLED),
    ):
        if issued in (None, is_issued(request)) and _older(condition(request, kind), keep, now):
            return True
    return condition(request, "Approved") is not None and is_issued(request) and _expired(request, now)


def _older(entry: Json | None, keep: timedelta, now: datetime) -> bool:
    if entry is None or not entry.get("lastUpdateTime"):
        return False
    return parse_time(entry["lastUpdateTime"]) + keep < now


def _expired(request: Json, now: datetime) -> bool:
    try:
        certificate = load_certificate(base64.b64decode(request["status"]["certificate"]))
    except (CertificateError, ValueError):
        return False
    return certificate.not_valid_after_utc < now


CONTROLLER = Controller(
    name="certificatesigningrequest-cleaner-controller",
    identity="certificate-controller",
    plan=plan,
    watches={"requests": Fan(REQUESTS), "pass": Timer(PERIOD_S)},
    workers=1,
)
