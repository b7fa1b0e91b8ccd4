"""Node: capacity, taints, addresses, roles.

Source: k8s v1.36 pkg/registry/core/node/strategy.go, pkg/apis/core/validation/validation.go (ValidateNode).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kcp.apis.core import checks, scheduling
from kcp.apis.core.checks import Errors, Json
from kcp.apis.core.resources import default_list, handles_quantities, quantity_value
from kcp.apis.core.strategies import STATUS_RESET, keep, spec_of, status_of, text_at
from kcp.apis.kind import Column, Printer, Strategy
from kcp.apis.printing import AGE, NAME, NONE, UNKNOWN, age, name_of, wide
from kcp.apis.semantics.nodes import roles
from kcp.apis.zero_values import write_node_status
from kcp.machinery.errors import FieldError, duplicate, forbidden, invalid


@handles_quantities
def default_node(node: Json) -> None:
    spec = node.get("spec")
    if spec is None:
        spec = node["spec"] = {}
    _default_pod_cidrs(spec)
    status = node.get("status")
    if status is None:
        return
    default_list(status.get("capacity"))
    default_list(status.get("allocatable"))
    if status.get("allocatable") is None and status.get("capacity") is not None:
        status["allocatable"] = dict(status["capacity"])


def _default_pod_cidrs(spec: Json) -> None:
    """podCIDR is the first of podCIDRs; older clients know only the one. Source: v1/conversion.go."""
    single, plural = spec.get("podCIDR"), spec.get("podCIDRs")
    if single and (not plural or plural[0] != single):
        spec["podCIDRs"] = [single]
    elif plural and not single:
        spec["podCIDR"] = plural[0]


def _prepare_status(new: Json, old: Json) -> None:
    keep(new, old, "spec")


def _resources(errors: Errors, status: Json) -> None:
    for field in ("capacity", "allocatable"):
        for name, value in (status.get(field) or {}).items():
            quantity_value(errors, name, value, f"status.{field}.{name}")


def _pod_cidrs(errors: Errors, cidrs: list[str]) -> None:
    path = "spec.podCIDRs"
    for i, value in enumerate(cidrs):
        checks.cidr(errors, value, f"{path}[{i}]")
    if len(cidrs) < 2:
        return
    if len(cidrs) > 2 or not checks.is_dual_stack(cidrs):
        text = "may specify no more than one CIDR for each IP family"
        errors.append(invalid(path, cidrs, text))
    for i, value in enumerate(cidrs):
        if value in cidrs[:i]:
            errors.append(duplicate(f"{path}[{i}]", value))


def _validate(node: Json) -> list[FieldError]:
    errors: Errors = []
    spec = spec_of(node)
    if taints := spec.get("taints"):
        scheduling.taints(errors, taints, "metadata.taints")
    _resources(errors, status_of(node))
    if cidrs := spec.get("podCIDRs"):
        _pod_cidrs(errors, cidrs)
    return errors


def _validate_update(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    after, before = spec_of(new), spec_of(old)
    _resources(errors, status_of(new))
    seen: list[Json] = []
    for i, address in enumerate(status_of(new).get("addresses") or ()):
        if address in seen:
            shown = {"Type": address.get("type"), "Address": address.get("address")}
            errors.append(duplicate(f"status.addresses[{i}]", shown))
        seen.append(address)
    if before.get("podCIDRs") and after.get("podCIDRs") != before["podCIDRs"]:
        text = 'node updates may not change podCIDR except from "" to valid'
        errors.append(forbidden("spec.podCIDRs", text))
    if before.get("providerID") and after.get("providerID") != before["providerID"]:
        text = 'node updates may not change providerID except from "" to valid'
        errors.append(forbidden("spec.providerID", text))
    if taints := after.get("taints"):
        scheduling.taints(errors, taints, "metadata.taints")
    if (after.get("externalID") or "") != (before.get("externalID") or ""):
        errors.append(forbidden("spec.externalID", "may not be updated"))
    return errors


def _warnings(new: Json, old: Json | None) -> list[str]:
    found = []
    spec = spec_of(new)
    if spec.get("configSource"):
        found.append("spec.configSource: the feature is no longer supported")
    if spec.get("externalID"):
        found.append("spec.externalID: this field is deprecated, and is unused by Kubernetes")
    return found


def _status_word(node: Json) -> str:
    words = [
        "Ready" if condition.get("status") == "True" else "NotReady"
        for condition in status_of(node).get("conditions") or ()
        if condition.get("type") == "Ready"
    ][-1:] or ["Unknown"]
    if spec_of(node).get("unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


def _address(node: Json, kind: str) -> str:
    for address in status_of(node).get("addresses") or ():
        if address.get("type") == kind:
            return str(address.get("address") or "")
    return NONE


def _kernel(info: Json) -> str:
    """`6.12.0 (arm64)`: the architecture stands here since 1.36."""
    version, architecture = info.get("kernelVersion") or UNKNOWN, info.get("architecture")
    return f"{version} ({architecture})" if architecture else version


def _cells(node: Json, now: datetime) -> list[Any]:
    info = status_of(node).get("nodeInfo") or {}
    return [
        name_of(node),
        _status_word(node),
        ",".join(roles(node)) or NONE,
        age(node, now),
        info.get("kubeletVersion") or "",
        _address(node, "InternalIP"),
        _address(node, "ExternalIP"),
        info.get("osImage") or UNKNOWN,
        _kernel(info),
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]


_COLUMNS = (
    NAME,
    Column("Status", "string", "", "The status of the node"),
    Column("Roles", "string", "", "The roles of the node"),
    AGE,
    Column("Version", "string", "", "Kubelet Version reported by the node."),
    wide("Internal-IP"),
    wide("External-IP"),
    wide(
        "OS-Image",
        description="OS Image reported by the node from /etc/os-release (e.g. Debian GNU/Linux 7 (wheezy)).",
    ),
    wide(
        "Kernel-Version",
        description="Kernel Version reported by the node from 'uname -r' (e.g. 3.16.0-0.bpo.4-amd64).",
    ),
    wide(
        "Container-Runtime",
        description="ContainerRuntime Version reported by the node through runtime remote API (e.g. containerd://1.4.2).",
    ),
)

_unschedulable = text_at("spec", "unschedulable")

STRATEGIES: dict[str, Strategy] = {
    "Node": Strategy(
        default=default_node,
        prepare_create=write_node_status,
        prepare_update=lambda new, old: keep(new, old, "status"),
        prepare_status=_prepare_status,
        validate_create=_validate,
        validate_update=_validate_update,
        validate_status=_validate_update,
        warnings=_warnings,
        selectable={"spec.unschedulable": lambda node: _unschedulable(node) or "false"},
        keeps_status_on_create=True,
        has_generation=False,
        reset_fields=STATUS_RESET,
    )
}
PRINTERS: dict[str, Printer] = {"Node": Printer(_COLUMNS, _cells)}
