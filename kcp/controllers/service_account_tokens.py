"""Tokens in Secrets: filled in for those who ask for one, removed with their account, and retired when unused.

A Secret of type `kubernetes.io/service-account-token` names its account in an annotation. The provider
`service-account-tokens` signs; the key never comes here.
Source: k8s v1.36 pkg/controller/serviceaccount/{tokens_controller,legacy_serviceaccount_token_cleaner}.go.
"""

from __future__ import annotations

import base64
from collections.abc import Generator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.sources import Controller, Fan, Timer
from kcp.machinery import meta
from kcp.machinery.errors import Conflict
from kcp.machinery.times import parse_time

Json = dict[str, Any]
Steps = Generator[fx.Effect, fx.Outcome, None]
TYPE = "kubernetes.io/service-account-token"
NAME, UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"
LAST_USED, INVALID_SINCE = (
    "kubernetes.io/legacy-token-last-used",
    "kubernetes.io/legacy-token-invalid-since",
)
TRACKING = "kube-apiserver-legacy-service-account-token-tracking"
PROVIDER = "service-account-tokens"
GONE = "gone:"
"""Key prefix: `gone:namespace/account/secret`, a token whose account may still list it."""


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    if key.startswith(GONE):
        yield from _drop_reference(key.removeprefix(GONE), view)
        return
    secret = view.secrets.get(key)
    if secret is None or not is_token(secret) or meta.is_deleting(secret):
        return
    account = yield from _account_of(secret, view)
    if account == "unknown":
        return
    if account is None:
        yield fx.Delete("secrets", meta.namespace(secret), meta.name(secret), uid=meta.uid(secret))
    elif _needs(secret, env):
        yield from _fill(secret, account, env)


def is_token(secret: Json) -> bool:
    return secret.get("type") == TYPE and bool(meta.annotations(secret).get(NAME))


def _account_of(secret: Json, view: fx.View) -> Generator[fx.Effect, fx.Outcome, Any]:
    """The account of a token; None when it is gone or another one, "unknown" when nobody could say."""
    name, uid = meta.annotations(secret)[NAME], meta.annotations(secret).get(UID)
    account = view.accounts.get(f"{meta.namespace(secret)}/{name}")
    if account is None or (uid and meta.uid(account) != uid):
        live = yield fx.Live("serviceaccounts", meta.namespace(secret), name)
        if not live.ok:
            return "unknown"
        account = live.object
    if account is None or (uid and meta.uid(account) != uid):
        return None
    return account


def _needs(secret: Json, env: fx.Env) -> list[str]:
    """The keys of its data that are missing, or out of date."""
    data, root_ca = secret.get("data") or {}, env.settings["root_ca"]
    needed = ["ca.crt"] if root_ca and data.get("ca.crt") != _encoded(root_ca) else []
    return needed + [key for key in ("namespace", "token") if not data.get(key)]


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _fill(secret: Json, account: Json, env: fx.Env) -> Steps:
    namespace, name = meta.namespace(secret), meta.name(secret)
    live = (yield fx.Live("secrets", namespace, name)).object
    if live is None or meta.resource_version(live) != meta.resource_version(secret):
        return  # the newer version is on its way here
    data, needed = dict(live.get("data") or {}), _needs(live, env)
    if "ca.crt" in needed:
        data["ca.crt"] = _encoded(env.settings["root_ca"])
    if "namespace" in needed:
        data["namespace"] = _encoded(namespace)
    if "token" in needed:
        args = {
            "namespace": namespace,
            "account": meta.name(account),
            "uid": meta.uid(account),
            "secret": name,
        }
        signed = yield fx.External(PROVIDER, "issue", args)
        if not signed.ok or signed.object is None:
            return
        data["token"] = signed.object["data"]["token"]
    annotations = {**meta.annotations(live), NAME: meta.name(account), UID: meta.uid(account)}
    filled = {**live, "data": data, "metadata": {**live["metadata"], "annotations": annotations}}
    yield fx.Update("secrets", filled)


def _drop_reference(where: str, view: fx.View) -> Steps:
    """The account no longer lists a token that is gone."""
    namespace, name, secret = where.split("/")
    if view.secrets.get(f"{namespace}/{secret}") is not None:
        return
    account = (yield fx.Live("serviceaccounts", namespace, name)).object
    if account is None or not _lists(account, secret):
        return
    kept = [ref for ref in account["secrets"] if ref.get("name") != secret]
    changed = {key: value for key, value in account.items() if key != "secrets"}
    if kept:
        changed["secrets"] = kept
    yield fx.Update("serviceaccounts", changed)


def _lists(account: Json, secret: str) -> bool:
    return any(ref.get("name") == secret for ref in account.get("secrets") or ())


def touched_secret(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    if new is not None:
        return [meta.key_of(new)] if is_token(new) else []
    if old is None or not is_token(old):
        return []
    return [f"{GONE}{meta.namespace(old)}/{meta.annotations(old)[NAME]}/{meta.name(old)}"]


def gone_account(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """Tokens go with their account, or with the uid it had."""
    if old is None or (new is not None and meta.uid(new) == meta.uid(old)):
        return []
    return [meta.key_of(secret) for secret in readers["secrets"].index("account", meta.key_of(old))]


def account_key(secret: Json) -> list[str]:
    return [f"{meta.namespace(secret)}/{meta.annotations(secret)[NAME]}"] if is_token(secret) else []


CONTROLLER = Controller(
    name="serviceaccount-token-controller",
    identity="system:kube-controller-manager",
    plan=plan,
    watches={
        "secrets": Fan("secrets", keys=touched_secret, indexes={"account": account_key}),
        "accounts": Fan("serviceaccounts", keys=gone_account),
    },
    settings={"root_ca": ""},
    max_retries=10,
)


def plan_cleaner(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    """Unused tokens that were made by themselves: first marked invalid, and removed one period later."""
    del key
    tracking = (yield fx.Live("configmaps", "kube-system", TRACKING)).object
    since = _date(((tracking or {}).get("data") or {}).get("since"))
    before = env.now.astimezone(UTC).date() - timedelta(seconds=env.settings["clean_up_period_s"])
    if since is None or since >= before:
        return
    for secret in view.secrets.list():
        if not is_token(secret) or not _may_retire(secret, view, before):
            continue
        marked = _date(meta.labels(secret).get(INVALID_SINCE))
        if marked is None:
            yield _mark(secret, env.now)
        elif marked < before:
            namespace, name = meta.namespace(secret), meta.name(secret)
            deleted = yield fx.Delete(
                "secrets", namespace, name, uid=meta.uid(secret), rv=meta.resource_version(secret)
            )
            if isinstance(deleted.error, Conflict):
                continue  # it was used after all; the next pass looks again


def _date(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        return None


def _may_retire(secret: Json, view: fx.View, before: date) -> bool:
    """Old, unused for the whole period, listed by its account as tokens once were, and mounted by no pod."""
    created_on = parse_time(secret["metadata"]["creationTimestamp"]).date()
    used = meta.labels(secret).get(LAST_USED)
    used_on = _date(used)
    if meta.is_deleting(secret) or created_on >= before or (used and (used_on is None or used_on >= before)):
        return False
    account = view.accounts.get(account_key(secret)[0])
    uid = meta.annotations(secret).get(UID)
    if account is None or (uid and uid != meta.uid(account)) or not _lists(account, meta.name(secret)):
        return False
    pods = view.pods.list(meta.namespace(secret))
    return not any(meta.name(secret) in mounted_secrets(pod) for pod in pods)


def _mark(secret: Json, now: datetime) -> fx.Patch:
    labels = {INVALID_SINCE: now.astimezone(UTC).date().isoformat()}
    return fx.Patch(
        "secrets",
        meta.namespace(secret),
        meta.name(secret),
        {"metadata": {"labels": labels}},
        uid=meta.uid(secret),
        rv=meta.resource_version(secret),
    )


def mounted_secrets(pod: Json) -> list[str]:
    """The Secrets that a pod's volumes and containers name. Asked once a day: not worth an index."""
    spec = pod.get("spec") or {}
    names = [(volume.get("secret") or {}).get("secretName") for volume in spec.get("volumes") or ()]
    for volume in spec.get("volumes") or ():
        for source in (volume.get("projected") or {}).get("sources") or ():
            names.append((source.get("secret") or {}).get("name"))
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        names += [(e.get("secretRef") or {}).get("name") for e in container.get("envFrom") or ()]
        for entry in container.get("env") or ():
            names.append(((entry.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name"))
    names += [ref.get("name") for ref in spec.get("imagePullSecrets") or ()]
    return [name for name in dict.fromkeys(names) if name]


CLEANER = Controller(
    name="legacy-serviceaccount-token-cleaner-controller",
    identity="legacy-service-account-token-cleaner",
    plan=plan_cleaner,
    watches={
        "secrets": Fan("secrets"),
        "accounts": Fan("serviceaccounts"),
        "pods": Fan("pods"),
        "pass": Timer(24 * 3600.0),
    },
    workers=1,
    settings={"clean_up_period_s": 365 * 24 * 3600},
)
