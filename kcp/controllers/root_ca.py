"""Root CA publisher: every namespace has the ConfigMap `kube-root-ca.crt`.

Source: k8s v1.36 pkg/controller/certificates/rootcacertpublisher/publisher.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.sources import Controller, Fan, Self
from kcp.machinery import meta

Json = dict[str, Any]
NAME = "kube-root-ca.crt"
DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes "
    "clusters."
)


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    namespace = view.namespaces.get(key)
    if namespace is None or namespace.get("status", {}).get("phase") == "Terminating":
        return
    data = {"ca.crt": env.settings["root_ca"]}
    annotations = {"kubernetes.io/description": DESCRIPTION}
    current = view.configmaps.get(f"{key}/{NAME}")
    if current is None:
        metadata = {"name": NAME, "namespace": key, "annotations": annotations}
        yield fx.Create(
            "configmaps", key, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        )
    elif current.get("data") != data or not annotations.items() <= meta.annotations(current).items():
        merged = {**meta.annotations(current), **annotations}
        yield fx.Update(
            "configmaps",
            {**current, "data": data, "metadata": {**current["metadata"], "annotations": merged}},
        )


def touched(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    obj = new or old
    return [meta.namespace(obj)] if obj is not None and meta.name(obj) == NAME else []


CONTROLLER = Controller(
    name="root-ca-certificate-publisher-controller",
    identity="root-ca-cert-publisher",
    plan=plan,
    watches={"namespaces": Self("namespaces"), "configmaps": Fan("configmaps", keys=touched)},
    workers=1,
    settings={"root_ca": ""},
)
