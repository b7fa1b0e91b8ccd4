"""What Go writes although it is empty: structs that are no pointers, times, and fields without omitempty.

Where a kind's defaults, required fields and `zero_status` do not say it already. Clients of a Kubernetes see these fields;
they stand in what is stored, so that no answer costs more for them. Conditions of workloads, pods and nodes are left as
their writers give them: the `null` of a time that was never set.

    events                  source: {}   firstTimestamp: null   lastTimestamp: null   eventTime: null
                            reportingComponent: ""   reportingInstance: ""
    roles, clusterroles     rules: null
    customresourcedefinitions/status   acceptedNames: {kind: "", plural: ""}   conditions: null
    nodes/status            daemonEndpoints: {kubeletEndpoint: {Port: 0}}   nodeInfo: every text ""

Source: k8s v1.36 staging/src/k8s.io/api/**/types.go; since 1.34 `creationTimestamp` is not among them (omitzero).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kcp.apis.kind import Json

EVENTS: Mapping[str, Mapping[str, Any]] = {
    "v1": {
        "source": {},
        "firstTimestamp": None,
        "lastTimestamp": None,
        "eventTime": None,
        "reportingComponent": "",
        "reportingInstance": "",
    },
    "events.k8s.io/v1": {
        "deprecatedSource": {},
        "deprecatedFirstTimestamp": None,
        "deprecatedLastTimestamp": None,
        "eventTime": None,
        "regarding": {},
    },
}
NODE_INFO = (
    "machineID",
    "systemUUID",
    "bootID",
    "kernelVersion",
    "osImage",
    "containerRuntimeVersion",
    "kubeletVersion",
    "kubeProxyVersion",
    "operatingSystem",
    "architecture",
)


def write_event(event: Json) -> None:
    for field, zero in EVENTS.get(event.get("apiVersion", "v1"), {}).items():
        if field not in event:
            event[field] = {} if zero == {} else zero


def write_rules(role: Json) -> None:
    role.setdefault("rules", None)


def write_definition_status(definition: Json) -> None:
    """Of a CustomResourceDefinition."""
    status = definition["status"] = dict(definition.get("status") or {})
    status["acceptedNames"] = {"plural": "", "kind": "", **(status.get("acceptedNames") or {})}
    status.setdefault("conditions", None)
    status.setdefault("storedVersions", None)


def write_node_status(node: Json) -> None:
    """Of a Node; nothing changes in a status that a kubelet reported."""
    status = node.get("status") or {}
    info, endpoints = status.get("nodeInfo") or {}, status.get("daemonEndpoints") or {}
    if all(field in info for field in NODE_INFO) and "kubeletEndpoint" in endpoints:
        return
    node["status"] = {
        **status,
        "nodeInfo": {**dict.fromkeys(NODE_INFO, ""), **info},
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}, **endpoints},
    }


def write_ordinals(stateful_set: Json) -> None:
    ordinals = (stateful_set.get("spec") or {}).get("ordinals")
    if ordinals is not None and "start" not in ordinals:
        stateful_set["spec"] = {**stateful_set["spec"], "ordinals": {"start": 0, **ordinals}}


def write_topology_keys(node: Json) -> None:
    """Of a CSINode."""
    drivers = (node.get("spec") or {}).get("drivers") or ()
    if any("topologyKeys" not in driver for driver in drivers):
        filled = [{"topologyKeys": None, **driver} for driver in drivers]
        node["spec"] = {**node["spec"], "drivers": filled}
