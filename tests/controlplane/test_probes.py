"""The door of a component that runs apart: probes for everyone, metrics for who may."""

from __future__ import annotations

import ssl

import anyio
import pytest

from kcp.base.clock import SystemClock
from kcp.base.metrics import Metrics
from kcp.client.client import Client
from kcp.client.transport import InProcessTransport
from kcp.controlplane.cluster import CONTROLLER_MANAGER, Cluster
from kcp.controlplane.probes import Door, Reviewer, serve_door
from kcp.wire.connect import ConnectError, Target, client_tls, send
from kcp.wire.http import Request, Response
from kcp.wire.server import bind
from tests.controlplane.test_cluster import in_cluster

METRICS = "/metrics"


async def nobody(request: Request) -> Response:
    raise AssertionError(f"asked for {request.path}")


def door_without_server() -> Door:
    metrics = Metrics()
    metrics.counter("things_total", "Things.").of().inc()
    return Door(metrics, Reviewer(Client(InProcessTransport(nobody, None)), SystemClock()))


def token(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_probes_tell_which_check_failed_and_not_why() -> None:
    door = door_without_server()
    assert (await door(Request("GET", "/healthz"))).body == b"ok"
    door.checks["leaderElection"] = lambda: "the lease ran out"
    failed = await door(Request("GET", "/livez"))
    assert failed.status == 500
    assert failed.body == b"[+]ping ok\n[-]leaderElection failed: reason withheld\nlivez check failed\n"
    one = await door(Request("GET", "/healthz/leaderElection"))
    assert (one.status, one.body) == (500, b"internal server error: the lease ran out\n")
    assert (await door(Request("GET", "/healthz/ping"))).body == b"ok"
    assert (await door(Request("GET", "/healthz/nothing"))).status == 404
    del door.checks["leaderElection"]
    verbose = await door(Request("GET", "/readyz", "verbose"))
    assert verbose.body == b"[+]ping ok\nreadyz check passed\n"


async def test_there_is_nothing_else() -> None:
    door = door_without_server()
    assert (await door(Request("GET", "/api"))).status == 404
    assert (await door(Request("POST", "/healthz"))).status == 405
    assert (await door(Request("GET", METRICS))).status == 403


def test_metrics_are_for_who_may_read_them() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        manager = cluster.client(CONTROLLER_MANAGER)
        door = Door(Metrics(), Reviewer(manager, cluster.clock))
        door.metrics.counter("things_total", "Things.").of().inc()
        for name in ("allowed", "denied"):
            await client.create("serviceaccounts", {"metadata": {"name": name}}, "default")
        tokens = {
            name: (
                await client.create(
                    "serviceaccounts", {"spec": {}}, "default", name=name, subresource="token"
                )
            ).object["status"]["token"]
            for name in ("allowed", "denied")
        }
        await client.create("clusterroles.rbac.authorization.k8s.io", ROLE)
        await client.create("clusterrolebindings.rbac.authorization.k8s.io", BINDING)
        answer = await door(Request("GET", METRICS, headers=token(tokens["allowed"])))
        assert (answer.status, b"things_total 1.0" in answer.body) == (200, True)
        assert (await door(Request("GET", METRICS, headers=token(tokens["denied"])))).status == 403
        assert (await door(Request("GET", METRICS, headers=token("made-up")))).status == 401
        await client.delete("clusterrolebindings.rbac.authorization.k8s.io", "metrics")
        assert (await door(Request("GET", METRICS, headers=token(tokens["allowed"])))).status == 200
        await anyio.sleep(11)
        assert (await door(Request("GET", METRICS, headers=token(tokens["allowed"])))).status == 403

    in_cluster(check, controllers=(), scheduler=False)


ROLE = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "metrics"},
    "rules": [{"nonResourceURLs": [METRICS], "verbs": ["get"]}],
}
BINDING = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "metrics"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "metrics"},
    "subjects": [{"kind": "ServiceAccount", "name": "allowed", "namespace": "default"}],
}


async def test_it_is_served_over_https_with_a_certificate_of_its_own() -> None:
    probe = bind("127.0.0.1", 0)
    port = probe.getsockname()[1]
    probe.close()
    async with anyio.create_task_group() as group:
        where = await serve_door(door_without_server(), "127.0.0.1", port, "", "", SystemClock(), group)
        assert where == f"https://127.0.0.1:{port}"
        target = Target("127.0.0.1", port, client_tls(verify=False), "localhost")
        assert (await send(Request("GET", "/healthz"), target, 5.0)).body == b"ok"
        strict = Target("127.0.0.1", port, ssl.create_default_context(), "127.0.0.1")
        with pytest.raises(ConnectError):
            await send(Request("GET", "/healthz"), strict, 5.0)
        group.cancel_scope.cancel()


async def test_port_zero_serves_nothing() -> None:
    async with anyio.create_task_group() as group:
        assert await serve_door(door_without_server(), "127.0.0.1", 0, "", "", SystemClock(), group) == ""
