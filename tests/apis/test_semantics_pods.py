"""Questions about pods: availability, requests, QoS, host ports, deletion cost."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.apis.semantics import pods
from kcp.machinery.quantity import Quantity, parse
from kcp.machinery.times import format_time

Json = dict[str, Any]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _pod(**spec: Any) -> Json:
    return {"metadata": {"name": "p"}, "spec": spec}


def _container(
    name: str = "c", /, requests: Json | None = None, limits: Json | None = None, **more: Any
) -> Json:
    return {"name": name, "resources": {"requests": requests or {}, "limits": limits or {}}, **more}


def _ready(seconds_ago: float, status: str = "True") -> Json:
    since = format_time(NOW - timedelta(seconds=seconds_ago))
    return {"status": {"conditions": [{"type": "Ready", "status": status, "lastTransitionTime": since}]}}


def _amounts(pod: Json) -> dict[str, int]:
    return pods.amounts(pods.requests(pod))


@pytest.mark.parametrize(
    ("ago", "status", "minimum", "available"),
    [(0, "True", 0, True), (9, "True", 10, False), (10, "True", 10, True), (99, "False", 0, False)],
)
def test_availability_needs_readiness_for_a_while(
    ago: int, status: str, minimum: int, available: bool
) -> None:
    assert pods.is_available(_ready(ago, status), minimum, NOW) is available


def test_time_until_available() -> None:
    assert pods.seconds_until_available(_ready(4), 10, NOW) == 6
    assert pods.seconds_until_available(_ready(40), 10, NOW) == 0
    assert pods.seconds_until_available(_ready(4, "False"), 10, NOW) is None


def test_active_means_neither_finished_nor_deleting() -> None:
    running: Json = {"metadata": {}, "status": {"phase": "Running"}}
    assert pods.is_active(running) and not pods.is_terminating(running)
    deleting: Json = {
        "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"phase": "Running"},
    }
    assert not pods.is_active(deleting) and pods.is_terminating(deleting)
    failed: Json = {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Failed"}}
    assert not pods.is_active(failed) and not pods.is_terminating(failed)


def test_requests_add_up_over_containers_and_overhead() -> None:
    pod = _pod(
        containers=[_container(requests={"cpu": "250m", "memory": "1Gi"}), _container(requests={"cpu": 1})],
        overhead={"cpu": "50m", "example.com/slot": 1},
    )
    assert _amounts(pod) == {"cpu": 1300, "memory": 1 << 30, "example.com/slot": 1}


def test_the_largest_init_container_counts_with_the_sidecars_before_it() -> None:
    sidecar = _container(requests={"cpu": "100m"}, restartPolicy="Always")
    pod = _pod(
        initContainers=[
            _container(requests={"cpu": "900m"}),
            sidecar,
            _container(requests={"cpu": "950m"}),
            sidecar,
        ],
        containers=[_container(requests={"cpu": "500m"})],
    )
    assert _amounts(pod) == {"cpu": 1050}
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "2"
    assert _amounts(pod) == {"cpu": 2200}


def test_pod_level_resources_replace_the_sum_where_they_are_set() -> None:
    pod = _pod(
        containers=[_container(requests={"cpu": "1", "memory": "1Gi", "example.com/gpu": 2})],
        resources={"requests": {"cpu": "3", "example.com/gpu": 9}},
        overhead={"cpu": "1"},
    )
    assert _amounts(pod) == {"cpu": 4000, "memory": 1 << 30, "example.com/gpu": 2}


def test_a_resize_under_way_counts_the_larger_of_spec_allocated_and_actual() -> None:
    pod = _pod(containers=[_container("a", requests={"cpu": "1", "memory": "1Gi"})])
    status: Json = {
        "name": "a",
        "resources": {"requests": {"cpu": "2", "memory": "1Gi"}},
        "allocatedResources": {"cpu": "500m", "memory": "2Gi"},
    }
    pod["status"] = {"containerStatuses": [status]}
    assert _amounts(pod) == {"cpu": 2000, "memory": 2 << 30}
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "8"
    assert _amounts(pod)["cpu"] == 8000
    pod["status"]["conditions"] = [{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]
    assert _amounts(pod)["cpu"] == 2000


def test_scoring_counts_something_for_containers_that_request_nothing() -> None:
    assert pods.non_zero_requests(_pod(containers=[_container(), _container(requests={"cpu": "1"})])) == (
        1100,
        2 * 200 * 1024 * 1024,
    )


def test_scoring_takes_pod_level_requests_as_they_are() -> None:
    pod = _pod(containers=[_container(), _container()], resources={"requests": {"cpu": "1"}})
    assert pods.non_zero_requests(pod) == (1000, 2 * 200 * 1024 * 1024)


def test_overhead_is_added_only_to_limits_that_exist() -> None:
    pod = _pod(containers=[_container(limits={"cpu": "1"})], overhead={"cpu": "1", "memory": "1Gi"})
    assert pods.amounts(pods.limits(pod)) == {"cpu": 2000}


@pytest.mark.parametrize(
    ("requests", "limits", "qos"),
    [
        ({}, {}, "BestEffort"),
        ({"example.com/gpu": 1}, {"example.com/gpu": 1}, "BestEffort"),
        ({"cpu": "0"}, {}, "BestEffort"),
        ({"cpu": "1"}, {}, "Burstable"),
        ({"cpu": "1", "memory": "1Gi"}, {"cpu": "1", "memory": "1Gi"}, "Guaranteed"),
        ({"cpu": "1000m", "memory": "1024Mi"}, {"cpu": "1", "memory": "1Gi"}, "Guaranteed"),
        ({"cpu": "1", "memory": "1Gi"}, {"cpu": "2", "memory": "1Gi"}, "Burstable"),
        ({"cpu": "1"}, {"cpu": "1"}, "Burstable"),
    ],
)
def test_qos_class(requests: Json, limits: Json, qos: str) -> None:
    assert pods.compute_qos_class(_pod(containers=[_container(requests=requests, limits=limits)])) == qos


def test_one_container_without_limits_makes_the_pod_burstable() -> None:
    full = {"cpu": "1", "memory": "1Gi"}
    pod = _pod(containers=[_container(requests=full, limits=full)], initContainers=[_container()])
    assert pods.compute_qos_class(pod) == "Burstable"


def test_the_qos_class_of_the_status_stays() -> None:
    pod = {**_pod(containers=[_container()]), "status": {"qosClass": "Guaranteed"}}
    assert pods.qos_class(pod) == "Guaranteed"


def test_host_ports_of_containers_and_sidecars() -> None:
    port = {"containerPort": 80, "hostPort": 80}
    pod = _pod(
        containers=[_container(ports=[port, {"containerPort": 9}])],
        initContainers=[
            _container(ports=[{**port, "hostPort": 81}]),
            _container(
                ports=[{**port, "hostPort": 82, "hostIP": "10.0.0.1", "protocol": "UDP"}],
                restartPolicy="Always",
            ),
        ],
    )
    assert pods.host_ports(pod) == [("0.0.0.0", "TCP", 80), ("10.0.0.1", "UDP", 82)]


@pytest.mark.parametrize(
    ("text", "cost"),
    [("7", 7), ("-7", -7), ("0", 0), ("007", 0), ("+7", 0), ("", 0), ("x", 0), ("-0", 0), ("2147483648", 0)],
)
def test_deletion_cost(text: str, cost: int) -> None:
    pod = {"metadata": {"annotations": {pods.DELETION_COST_ANNOTATION: text}}}
    assert pods.deletion_cost(pod) == cost


_cpu = st.integers(0, 64_000).map(lambda milli: {"cpu": f"{milli}m"})
_inits = st.lists(st.tuples(_cpu, st.booleans()), max_size=4)


@given(st.lists(_cpu, max_size=4), _inits)
def test_requests_cover_every_moment_of_the_pod(
    regular: list[Json], initial: list[tuple[Json, bool]]
) -> None:
    """Whatever runs at one time never needs more than the effective request, and some moment needs all of it."""
    pod = _pod(
        containers=[_container(requests=entry) for entry in regular],
        initContainers=[
            _container(requests=entry, restartPolicy="Always" if sidecar else None)
            for entry, sidecar in initial
        ],
    )
    moments: list[Quantity] = []
    running = parse("0")
    for entry, sidecar in initial:
        moments.append(running + parse(entry["cpu"]))
        if sidecar:
            running = moments[-1]
    for entry in regular:
        running = running + parse(entry["cpu"])
    effective = pods.requests(pod).get("cpu", parse("0"))
    assert effective == max([*moments, running], key=lambda quantity: quantity.milli_value())
