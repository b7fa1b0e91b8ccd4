"""Ages and shared formats of table cells."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kcp.apis import apiregistration, discovery, printing, resource, scheduling
from kcp.machinery.times import format_time

Json = dict[str, Any]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _aged(seconds: float, **more: Any) -> Json:
    return {
        "metadata": {"name": "x", "creationTimestamp": format_time(NOW - timedelta(seconds=seconds))},
        **more,
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (310, "5m10s"),
        (3600 * 3, "3h"),
        (86_400 * 3, "3d"),
        (86_400 * 800, "2y70d"),
    ],
)
def test_age(seconds: float, text: str) -> None:
    assert printing.age(_aged(seconds), NOW) == text


def test_no_time_is_unknown() -> None:
    assert printing.age({"metadata": {}}, NOW) == "<unknown>"
    assert printing.since("garbage", NOW) == "<unknown>"


def test_a_kind_without_columns_shows_when_it_was_created() -> None:
    assert [column.name for column in printing.GENERIC.columns] == ["Name", "Created At"]
    assert printing.GENERIC.cells(_aged(60), NOW) == ["x", "2025-12-31T23:59:00Z"]


def test_labels_and_selectors() -> None:
    assert printing.format_labels({"b": "2", "a": "1"}) == "a=1,b=2"
    assert printing.format_labels(None) == "<none>"
    assert printing.format_label_selector({}) == "<none>"
    assert printing.format_label_selector(None) == "<none>"
    expressions = [
        {"key": "t", "operator": "NotIn", "values": ["b", "a"]},
        {"key": "a", "operator": "DoesNotExist"},
    ]
    assert (
        printing.format_label_selector({"matchLabels": {"app": "web"}, "matchExpressions": expressions})
        == "!a,app=web,t notin (a,b)"
    )
    assert printing.format_label_selector({"matchExpressions": [{"key": "a", "operator": "?"}]}) == "<error>"


def test_containers_and_images() -> None:
    template = {"spec": {"containers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "j"}]}}
    assert printing.template_cells(template) == ["a,b", "i:1,j"]
    assert printing.template_cells(None) == ["", ""]


def test_long_lists_are_cut() -> None:
    assert printing.first_of(["1", "2", "3"]) == "1,2,3"
    assert printing.first_of(["1", "2", "3", "4", "5"]) == "1,2,3 + 2 more..."
    assert printing.first_of([]) == "<unset>"


def test_endpoint_slices_show_ports_and_addresses() -> None:
    found = _aged(
        60,
        addressType="IPv4",
        ports=[{"port": 80}, {"name": "dns"}, {}],
        endpoints=[{"addresses": ["10.0.0.1", "10.0.0.2"]}, {"addresses": ["10.0.0.3", "10.0.0.4"]}],
    )
    cells = discovery.PRINTERS["EndpointSlice"].cells(found, NOW)
    assert cells == ["x", "IPv4", "80,dns,*", "10.0.0.1,10.0.0.2,10.0.0.3 + 1 more...", "60s"]


@pytest.mark.parametrize(
    ("service", "conditions", "cells"),
    [
        (None, [{"type": "Available", "status": "True", "reason": "Local"}], ["x", "Local", "True", "60s"]),
        (
            {"namespace": "a", "name": "b"},
            [{"type": "Available", "status": "False", "reason": "MissingEndpoints"}],
            ["x", "a/b", "False (MissingEndpoints)", "60s"],
        ),
        ({"namespace": "a", "name": "b"}, [], ["x", "a/b", "Unknown", "60s"]),
    ],
)
def test_api_services_show_why_they_are_not_available(
    service: Json | None, conditions: list[Json], cells: list[str]
) -> None:
    found = _aged(60, spec={"service": service} if service else {}, status={"conditions": conditions})
    assert apiregistration.PRINTERS["APIService"].cells(found, NOW) == cells


@pytest.mark.parametrize(
    ("status", "deleting", "state"),
    [
        ({}, False, "pending"),
        ({"allocation": {}}, False, "allocated"),
        ({"allocation": {}, "reservedFor": [{"uid": "u"}]}, False, "allocated,reserved"),
        ({"allocation": {}}, True, "deleted,allocated"),
        ({}, True, "deleted"),
    ],
)
def test_state_of_a_resource_claim(status: Json, deleting: bool, state: str) -> None:
    claim = _aged(60, status=status)
    if deleting:
        claim["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert resource.PRINTERS["ResourceClaim"].cells(claim, NOW)[1] == state


def test_priority_classes_show_their_policy_always() -> None:
    printer = scheduling.PRINTERS["PriorityClass"]
    assert [(column.name, column.priority) for column in printer.columns][-1] == ("PreemptionPolicy", 0)
    assert printer.cells(_aged(60, value=5), NOW) == ["x", 5, False, "60s", ""]
