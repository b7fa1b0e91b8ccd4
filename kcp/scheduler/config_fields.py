"""The fields of KubeSchedulerConfiguration v1 and of the plugins' arguments; strict decoding names those that are none.

Source: k8s v1.36 staging/src/k8s.io/kube-scheduler/config/v1/{types,types_pluginargs}.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kcp.machinery.errors import go_quote
from kcp.machinery.times import parse_go_duration
from kcp.scheduler.plugin_table import POINTS
from kcp.scheduler.plugins.node_failure_guard import DEFAULTS as GUARD_ARGUMENTS

Json = dict[str, Any]
Type = str | list[str]
"""A Go type, the name of a row of STRUCTS, or a list of one of them; `any` is not looked into."""

STRUCTS: Mapping[str, Mapping[str, Type]] = {
    "KubeSchedulerConfiguration": {
        "apiVersion": "string",
        "kind": "string",
        "parallelism": "int32",
        "leaderElection": "LeaderElectionConfiguration",
        "clientConnection": "ClientConnectionConfiguration",
        "enableProfiling": "bool",
        "enableContentionProfiling": "bool",
        "percentageOfNodesToScore": "int32",
        "percentageOfPlacementsToScore": "int32",
        "podInitialBackoffSeconds": "int64",
        "podMaxBackoffSeconds": "int64",
        "profiles": ["KubeSchedulerProfile"],
        "extenders": ["Extender"],
        "delayCacheUntilActive": "bool",
    },
    "LeaderElectionConfiguration": {
        "leaderElect": "bool",
        "leaseDuration": "Duration",
        "renewDeadline": "Duration",
        "retryPeriod": "Duration",
        "resourceLock": "string",
        "resourceName": "string",
        "resourceNamespace": "string",
    },
    "ClientConnectionConfiguration": {
        "kubeconfig": "string",
        "acceptContentTypes": "string",
        "contentType": "string",
        "qps": "float32",
        "burst": "int32",
    },
    "KubeSchedulerProfile": {
        "schedulerName": "string",
        "percentageOfNodesToScore": "int32",
        "percentageOfPlacementsToScore": "int32",
        "plugins": "Plugins",
        "pluginConfig": ["PluginConfig"],
    },
    "Plugins": {"multiPoint": "PluginSet", **dict.fromkeys(POINTS, "PluginSet")},
    "PluginSet": {"enabled": ["Plugin"], "disabled": ["Plugin"]},
    "Plugin": {"name": "string", "weight": "int32"},
    "PluginConfig": {"name": "string", "args": "any"},
    "Extender": {
        "urlPrefix": "string",
        "filterVerb": "string",
        "preemptVerb": "string",
        "prioritizeVerb": "string",
        "weight": "int64",
        "bindVerb": "string",
        "enableHTTPS": "bool",
        "tlsConfig": "ExtenderTLSConfig",
        "httpTimeout": "Duration",
        "nodeCacheCapable": "bool",
        "managedResources": ["ExtenderManagedResource"],
        "ignorable": "bool",
    },
    "ExtenderTLSConfig": {
        "insecure": "bool",
        "serverName": "string",
        "certFile": "string",
        "keyFile": "string",
        "caFile": "string",
        "certData": "string",
        "keyData": "string",
        "caData": "string",
    },
    "ExtenderManagedResource": {"name": "string", "ignoredByScheduler": "bool"},
    "DefaultPreemptionArgs": {"minCandidateNodesPercentage": "int32", "minCandidateNodesAbsolute": "int32"},
    "GangSchedulingArgs": {"reserveAfterSeconds": "int64"},
    "TenantQueueArgs": {"queueLabel": "string", "queues": ["TenantQueueSpec"]},
    "NodeFailureGuardArgs": dict.fromkeys(GUARD_ARGUMENTS, "int64"),
    "TenantQueueSpec": {
        "name": "string",
        "parent": "string",
        "weight": "int64",
        "namespaces": ["string"],
        "capability": "any",
        "deserved": "any",
        "guarantee": "any",
        "reclaimable": "bool",
    },
    "InterPodAffinityArgs": {
        "hardPodAffinityWeight": "int32",
        "ignorePreferredTermsOfExistingPods": "bool",
    },
    "NodeResourcesFitArgs": {
        "ignoredResources": ["string"],
        "ignoredResourceGroups": ["string"],
        "scoringStrategy": "ScoringStrategy",
    },
    "ScoringStrategy": {
        "type": "string",
        "resources": ["ResourceSpec"],
        "requestedToCapacityRatio": "RequestedToCapacityRatioParam",
    },
    "ResourceSpec": {"name": "string", "weight": "int64"},
    "RequestedToCapacityRatioParam": {"shape": ["UtilizationShapePoint"]},
    "UtilizationShapePoint": {"utilization": "int32", "score": "int32"},
    "PodTopologySpreadArgs": {
        "defaultConstraints": ["TopologySpreadConstraint"],
        "defaultingType": "string",
    },
    "TopologySpreadConstraint": {
        "maxSkew": "int32",
        "topologyKey": "string",
        "whenUnsatisfiable": "string",
        "labelSelector": "any",
        "minDomains": "int32",
        "nodeAffinityPolicy": "string",
        "nodeTaintsPolicy": "string",
        "matchLabelKeys": ["string"],
    },
    "NodeResourcesBalancedAllocationArgs": {"resources": ["ResourceSpec"]},
    "VolumeBindingArgs": {"bindTimeoutSeconds": "int64", "shape": ["UtilizationShapePoint"]},
    "NodeAffinityArgs": {"addedAffinity": "NodeAffinity"},
    "NodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": "any",
        "preferredDuringSchedulingIgnoredDuringExecution": "any",
    },
    "DynamicResourcesArgs": {"filterTimeout": "Duration", "bindingTimeout": "Duration"},
}
_META = ("apiVersion", "kind")
_KINDS: Mapping[type, str] = {str: "string", bool: "bool", int: "number", float: "number", list: "array"}


class DecodingError(ValueError):
    """Raised when a value has another type than its field, in Go's words."""


def args_struct(plugin: str) -> str:
    """The name of a plugin's arguments, "" for a plugin that Kubernetes does not know."""
    name = f"{plugin}Args"
    return name if name in STRUCTS else ""


def unknown_fields(document: Json, struct: str) -> list[str]:
    """`unknown field "profiles[0].foo"`, in the order of the document. Raises DecodingError."""
    found: list[str] = []
    _check(document, struct, "", struct, found)
    return [f"unknown field {go_quote(path)}" for path in found]


def _check(value: Any, type_: Type, path: str, field: str, found: list[str]) -> None:
    if value is None or type_ == "any":
        return
    if isinstance(type_, list):
        _of_type(value, list, f"[]v1.{type_[0]}", field)
        for number, item in enumerate(value):
            _check(item, type_[0], f"{path}[{number}]", field, found)
    elif type_ in STRUCTS:
        _of_type(value, dict, f"v1.{type_}", field)
        _check_fields(value, type_, path, found)
    else:
        _check_scalar(value, type_, field)


def _check_fields(value: Json, struct: str, path: str, found: list[str]) -> None:
    fields = STRUCTS[struct]
    for name, inner in value.items():
        here = f"{path}.{name}" if path else name
        if name in fields:
            _check(inner, fields[name], here, f"{struct}.{name}", found)
        elif not (name in _META and struct.endswith("Args")):
            found.append(here)


def _check_scalar(value: Any, type_: str, field: str) -> None:
    if type_ == "Duration":
        _of_type(value, str, "string", field)
        try:
            parse_go_duration(value)
        except ValueError as error:
            raise DecodingError(str(error)) from None
    elif type_ in ("string", "bool"):
        _of_type(value, str if type_ == "string" else bool, type_, field)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(value, type_, field)
    elif type_ != "float32" and not isinstance(value, int):
        _refuse(value, type_, field, f"number {value}")


def _of_type(value: Any, wanted: type, type_: str, field: str) -> None:
    if not isinstance(value, wanted):
        _refuse(value, type_, field)


def _refuse(value: Any, type_: str, field: str, what: str = "") -> None:
    given = what or _KINDS.get(type(value), "object")
    raise DecodingError(f"json: cannot unmarshal {given} into Go struct field {field} of type {type_}")


def strict_error(faults: Sequence[str]) -> str:
    return f"strict decoding error: {', '.join(faults)}"
