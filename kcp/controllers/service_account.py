"""ServiceAccount: every active namespace has the account `default`.

Source: k8s v1.36 pkg/controller/serviceaccount/serviceaccounts_controller.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.sources import Controller, Fan, Self
from kcp.machinery import meta

Json = dict[str, Any]


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    del env
    namespace = view.namespaces.get(key)
    if namespace is None or namespace.get("status", {}).get("phase") == "Terminating":
        return
    if view.serviceaccounts.get(f"{key}/default") is None:
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": key},
        }
        yield fx.Create("serviceaccounts", key, account)


def removed_default(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    if new is None and old is not None and meta.name(old) == "default":
        return [meta.namespace(old)]
    return []


CONTROLLER = Controller(
    name="serviceaccount-controller",
    identity="service-account-controller",
    plan=plan,
    watches={
        "namespaces": Self("namespaces"),
        "serviceaccounts": Fan("serviceaccounts", keys=removed_default),
    },
    workers=1,
)
