"""Features of nodes that pods can need: what a node declares in `status.declaredFeatures`, and which pods ask for which.

Source: k8s v1.36 staging/src/k8s.io/component-helpers/nodedeclaredfeatures/features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Json = dict[str, Any]

RESTART_ALL = "RestartAllContainersOnContainerExits"
HOST_NETWORK_USERS = "UserNamespacesHostNetworkSupport"
CPU_RESIZE = "GuaranteedQoSPodCPUResize"


def _restarts_all(spec: Json) -> bool:
    return any(
        rule.get("action") == "RestartAllContainers"
        for field in ("containers", "initContainers")
        for container in spec.get(field) or ()
        for rule in container.get("restartPolicyRules") or ()
    )


def _maps_users_on_the_host(spec: Json) -> bool:
    return bool(spec.get("hostNetwork")) and spec.get("hostUsers") is False


_NEEDED: Mapping[str, Callable[[Json], bool]] = {
    RESTART_ALL: _restarts_all,
    HOST_NETWORK_USERS: _maps_users_on_the_host,
}


def required_features(spec: Json) -> tuple[str, ...]:
    """The features without which a pod of this spec cannot run on a node, sorted."""
    return tuple(sorted(name for name, needs in _NEEDED.items() if needs(spec)))
