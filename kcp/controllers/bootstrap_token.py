"""Bootstrap tokens: `cluster-info` is signed with each usable one, and expired ones are removed.

Both controllers are off unless asked for, as in kube-controller-manager.
Source: k8s v1.36 pkg/controller/bootstrap/{bootstrapsigner,tokencleaner,jws}.go, cluster-bootstrap/token/util.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.sources import Controller, Fan
from kcp.machinery import meta
from kcp.machinery.times import parse_time

Json = dict[str, Any]
TYPE = "bootstrap.kubernetes.io/token"
PREFIX, SIGNATURE_PREFIX = "bootstrap-token-", "jws-kubeconfig-"
CLUSTER_INFO = "kube-public/cluster-info"
NAMESPACE = "kube-system"
_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})").fullmatch


def plan_signer(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    info = view.configmaps.get(key)
    if info is None or "kubeconfig" not in (info.get("data") or {}):
        return
    kubeconfig = info["data"]["kubeconfig"]
    tokens = [t for s in view.secrets.list(NAMESPACE) if (t := signing_token(s, env.now)) is not None]
    kept = {k: v for k, v in info["data"].items() if not k.startswith(SIGNATURE_PREFIX)}
    signatures = {f"{SIGNATURE_PREFIX}{id_}": sign(kubeconfig, id_, secret) for id_, secret in tokens}
    data = {**kept, **signatures}
    if data != info["data"]:
        yield fx.Update("configmaps", {**info, "data": data})
    waits = [w for s in view.secrets.list(NAMESPACE) if (w := left_s(s, env.now)) is not None and w > 0]
    if waits:
        yield fx.RequeueAfter(min(waits))


def sign(content: str, token_id: str, token_secret: str) -> str:
    """A detached JWS: `header..signature`, HMAC with the token's secret."""
    header = _base64url(f'{{"alg":"HS256","kid":"{token_id}"}}'.encode())
    signed = f"{header}.{_base64url(content.encode())}"
    return f"{header}..{_base64url(hmac.digest(token_secret.encode(), signed.encode(), hashlib.sha256))}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signing_token(secret: Json, now: datetime) -> tuple[str, str] | None:
    """(id, secret) of a bootstrap token that may sign now."""
    if not is_bootstrap(secret):
        return None
    token_id, token_secret = text_of(secret, "token-id"), text_of(secret, "token-secret")
    if _TOKEN(f"{token_id}.{token_secret}") is None or meta.name(secret) != PREFIX + token_id:
        return None
    remaining_s = left_s(secret, now)
    if (remaining_s is not None and remaining_s <= 0) or meta.is_deleting(secret):
        return None
    return (token_id, token_secret) if text_of(secret, "usage-bootstrap-signing") == "true" else None


def is_bootstrap(secret: Json) -> bool:
    return secret.get("type") == TYPE and meta.namespace(secret) == NAMESPACE


def text_of(secret: Json, key: str) -> str:
    try:
        return base64.b64decode((secret.get("data") or {}).get(key) or "").decode()
    except (binascii.Error, ValueError):
        return ""


def left_s(secret: Json, now: datetime) -> float | None:
    """Seconds until a token expires; None when it never does. One that nobody can read has expired."""
    expiration = text_of(secret, "expiration") if is_bootstrap(secret) else ""
    if not expiration:
        return None
    try:
        return (parse_time(expiration) - now).total_seconds()
    except ValueError:
        return 0.0


def touched_info(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    return [CLUSTER_INFO] if new is not None and meta.key_of(new) == CLUSTER_INFO else []


def touched_token(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    return [CLUSTER_INFO] if any(s is not None and is_bootstrap(s) for s in (old, new)) else []


SIGNER = Controller(
    name="bootstrap-signer-controller",
    identity="bootstrap-signer",
    plan=plan_signer,
    watches={
        "configmaps": Fan("configmaps", keys=touched_info),
        "secrets": Fan("secrets", keys=touched_token),
    },
    workers=1,
)


def plan_cleaner(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    secret = view.secrets.get(key)
    remaining_s = left_s(secret, env.now) if secret is not None else None
    if secret is None or remaining_s is None or meta.is_deleting(secret):
        return
    if remaining_s > 0:
        yield fx.RequeueAfter(remaining_s)
        return
    yield fx.Delete("secrets", meta.namespace(secret), meta.name(secret), uid=meta.uid(secret))


def changed_token(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    return [meta.key_of(new)] if new is not None and is_bootstrap(new) else []


CLEANER = Controller(
    name="token-cleaner-controller",
    identity="token-cleaner",
    plan=plan_cleaner,
    watches={"secrets": Fan("secrets", keys=changed_token)},
    workers=1,
)
