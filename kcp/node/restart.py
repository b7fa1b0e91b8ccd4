"""Whether a container that ended is started again.

Source: k8s v1.36 pkg/kubelet/container/helpers.go (ShouldContainerBeRestarted), pkg/api/v1/pod (container restart rules).
"""

from __future__ import annotations

from typing import Any, Literal

from kcp.apis.semantics.pods import is_sidecar, restart_policy
from kcp.node.runtime.protocol import ContainerStatus

Json = dict[str, Any]
Verdict = Literal["restart", "restart all", "stay"]


def _matches(rule: Json, exit_code: int) -> bool:
    codes = rule.get("exitCodes") or {}
    among = exit_code in (codes.get("values") or ())
    return among if codes.get("operator") == "In" else not among


def after_exit(pod: Json, field: str, container: Json, exit_code: int) -> Verdict:
    """What follows an exit: the container's own rules, then its policy, then the pod's."""
    if field == "ephemeralContainers":
        return "stay"
    for rule in container.get("restartPolicyRules") or ():
        if _matches(rule, exit_code):
            return "restart all" if rule.get("action") == "RestartAllContainers" else "restart"
    policy = container.get("restartPolicy") or restart_policy(pod)
    if field == "initContainers" and not is_sidecar(container):
        return "restart" if exit_code != 0 and policy != "Never" else "stay"
    if policy == "Always":
        return "restart"
    return "restart" if policy == "OnFailure" and exit_code != 0 else "stay"


def will_start(pod: Json, field: str, container: Json, status: ContainerStatus | None) -> bool:
    """Whether the container has to be started, now or after a back-off."""
    if status is None:
        return True
    return status.state == "exited" and after_exit(pod, field, container, status.exit_code) != "stay"
