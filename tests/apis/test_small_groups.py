"""Lease, PodDisruptionBudget, EndpointSlice, PriorityClass, RuntimeClass, APIService, reviews: their rules."""

from collections.abc import Callable
from typing import Any

import pytest

from kcp.apis import (
    apiregistration,
    coordination,
    discovery,
    flowcontrol,
    node,
    policy,
    reviews,
    scheduling,
    storage,
)
from kcp.machinery.errors import FieldError

Json = dict[str, Any]


def _texts(errors: list[FieldError]) -> list[str]:
    return [str(error) for error in errors]


_LEASE = coordination.validate_lease
_BUDGET = policy.validate_budget
_SLICE = discovery.validate_endpoint_slice
_PRIORITY = scheduling.validate_priority_class
_RUNTIME = node.validate_runtime_class
_CASES: list[tuple[Callable[[Json], list[FieldError]], Json, list[str]]] = [
    (_LEASE, {}, []),
    (
        _LEASE,
        {"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1, "preferredHolder": "a"}},
        [
            "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
            "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
            "spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined",
        ],
    ),
    (_BUDGET, {"spec": {"minAvailable": "50%", "selector": {}}}, []),
    (
        _BUDGET,
        {"spec": {"minAvailable": "101%", "maxUnavailable": -1, "unhealthyPodEvictionPolicy": "Never"}},
        [
            'spec: Invalid value: {"maxUnavailable":-1,"minAvailable":"101%","unhealthyPodEvictionPolicy":"Never"}:'
            " minAvailable and maxUnavailable cannot be both set",
            'spec.minAvailable: Invalid value: "101%": must not be greater than 100%',
            "spec.maxUnavailable: Invalid value: -1: must be greater than or equal to 0",
            'spec.unhealthyPodEvictionPolicy: Unsupported value: "Never": supported values: "AlwaysAllow", "IfHealthyBudget"',
        ],
    ),
    (
        _SLICE,
        {
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"]}],
            "ports": [{"name": "", "protocol": "TCP", "port": 80}],
        },
        [],
    ),
    (
        _SLICE,
        {
            "addressType": "IPv4",
            "endpoints": [{"addresses": []}, {"addresses": ["fd00::1"]}, {"addresses": ["127.0.0.1"]}],
            "ports": [{"name": "a", "protocol": "TCP"}, {"name": "a", "protocol": "QUIC"}],
        },
        [
            'ports[1].name: Duplicate value: "a"',
            'ports[1].protocol: Unsupported value: "QUIC": supported values: "SCTP", "TCP", "UDP"',
            "endpoints[0].addresses: Required value: must contain at least 1 address",
            'endpoints[1].addresses: Invalid value: "fd00::1": must be an IPv4 address',
            'endpoints[2].addresses[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)',
        ],
    ),
    (_SLICE, {}, ["addressType: Required value"]),
    (
        _SLICE,
        {
            "addressType": "FQDN",
            "endpoints": [
                {"addresses": ["localhost"], "hints": {"forZones": [{"name": "a"}, {"name": "a"}]}}
            ],
        },
        [
            'endpoints[0].addresses[0]: Invalid value: "localhost":'
            " should be a domain with at least two segments separated by dots",
            'endpoints[0].hints.forZones[1].name: Duplicate value: "a"',
        ],
    ),
    (_PRIORITY, {"metadata": {"name": "high"}, "value": 1_000_000_000}, []),
    (
        _PRIORITY,
        {"metadata": {"name": "high"}, "value": 1_000_000_001, "preemptionPolicy": "Always"},
        [
            "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
            'preemptionPolicy: Unsupported value: "Always": supported values: "PreemptLowerPriority", "Never"',
        ],
    ),
    (_PRIORITY, {"metadata": {"name": "system-node-critical"}, "value": 2_000_001_000}, []),
    (
        _PRIORITY,
        {"metadata": {"name": "system-mine"}, "value": 1},
        [
            "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only."
            " error: system-mine is not a known system priority class"
        ],
    ),
    (_RUNTIME, {"handler": "runc", "overhead": {"podFixed": {"cpu": "50m"}}}, []),
    (
        apiregistration.validate_api_service,
        {
            "metadata": {"name": "v1.example.com"},
            "spec": {
                "group": "example.com",
                "version": "v1beta1",
                "groupPriorityMinimum": 0,
                "versionPriority": 2000,
                "caBundle": "YWJj",
            },
        },
        [
            'metadata.name: Invalid value: "v1.example.com": must be `spec.version+"."+spec.group`: "v1beta1.example.com"',
            "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
            "spec.versionPriority: Invalid value: 2000: must be positive and less than 1000",
            'spec.caBundle: Invalid value: "3 bytes": local APIServices may not have a caBundle',
        ],
    ),
    (
        storage.validate_attributes_class,
        {"driverName": "csi.example.com"},
        ["parameters: Required value: must contain at least one key/value pair"],
    ),
    (
        reviews.validate_subject_access_review,
        {"spec": {}},
        [
            "spec.resourceAttributes: Invalid value: null:"
            " exactly one of nonResourceAttributes or resourceAttributes must be specified",
            'spec.user: Invalid value: "": at least one of user or group must be specified',
        ],
    ),
    (
        reviews.validate_local_subject_access_review,
        {"metadata": {"namespace": "a"}, "spec": {"user": "u", "resourceAttributes": {"namespace": "b"}}},
        ['spec.resourceAttributes.namespace: Invalid value: "b": must match metadata.namespace'],
    ),
]


@pytest.mark.parametrize(("validate", "obj", "texts"), _CASES)
def test_rules_of_creation(validate: Callable[[Json], list[FieldError]], obj: Json, texts: list[str]) -> None:
    assert _texts(validate(obj)) == texts


def test_fixed_fields_stay() -> None:
    updates: list[tuple[Callable[[Json, Json], list[FieldError]], Json, Json, str]] = [
        (
            scheduling.validate_priority_class_update,
            {"value": 1},
            {"value": 2},
            "value: Forbidden: may not be changed in an update.",
        ),
        (
            node.validate_runtime_class_update,
            {"handler": "a"},
            {"handler": "b"},
            'handler: Invalid value: "a": field is immutable',
        ),
        (
            storage.validate_storage_class_update,
            {"provisioner": "a"},
            {"provisioner": "b"},
            "provisioner: Forbidden: updates to provisioner are forbidden.",
        ),
        (
            discovery.validate_endpoint_slice_update,
            {"addressType": "IPv4"},
            {"addressType": "IPv6"},
            'addressType: Invalid value: "IPv4": field is immutable',
        ),
    ]
    for validate, new, old, text in updates:
        assert _texts(validate(new, old)) == [text]


def test_a_csi_driver_of_a_node_may_change_only_its_count() -> None:
    def csi_node(node_id: str, count: int) -> Json:
        return {
            "spec": {
                "drivers": [{"name": "csi.example.com", "nodeID": node_id, "allocatable": {"count": count}}]
            }
        }

    assert storage.validate_csi_node_update(csi_node("n", 2), csi_node("n", 1)) == []
    errors = storage.validate_csi_node_update(csi_node("m", 1), csi_node("n", 1))
    assert [error.field for error in errors] == ["spec.drivers"]


def test_the_mandatory_flow_schemas_are_valid_and_fixed() -> None:
    for name, spec in flowcontrol.MANDATORY_FLOW_SCHEMAS.items():
        assert flowcontrol.validate_flow_schema({"metadata": {"name": name}, "spec": spec}) == []
    changed = {**flowcontrol.MANDATORY_FLOW_SCHEMAS["catch-all"], "matchingPrecedence": 9000}
    errors = flowcontrol.validate_flow_schema({"metadata": {"name": "catch-all"}, "spec": changed})
    assert [error.detail for error in errors] == ["spec of 'catch-all' must equal the fixed value"]


def test_the_mandatory_priority_levels_are_valid_and_fixed_but_for_the_shares_of_exempt() -> None:
    for name, spec in flowcontrol.MANDATORY_PRIORITY_LEVELS.items():
        assert flowcontrol.validate_priority_level({"metadata": {"name": name}, "spec": spec}) == []
    shares = {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 7}}
    assert flowcontrol.validate_priority_level({"metadata": {"name": "exempt"}, "spec": shares}) == []


def test_hands_that_need_too_much_entropy_are_refused() -> None:
    queuing = {"queues": 512, "handSize": 8, "queueLengthLimit": 1}
    level = {
        "metadata": {"name": "x"},
        "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": queuing}}},
    }
    assert _texts(flowcontrol.validate_priority_level(level)) == [
        "spec.limited.limitResponse.queuing.handSize: Invalid value: 8:"
        " required entropy bits of deckSize 512 and handSize 8 should not be greater than 60"
    ]
    queuing["queues"] = 128
    assert flowcontrol.validate_priority_level(level) == []
