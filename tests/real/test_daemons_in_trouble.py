"""Daemons whose database goes away, or who are paused for longer than their Leases last."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.real.daemon import Daemon, eventually, kcp
from tests.real.https import Api
from tests.real.test_several_daemons import (
    DEPLOYMENTS,
    MAPS,
    PODS,
    TAKE_OVER_S,
    created,
    endpoint_ports,
    holders,
    running,
    web,
)
from tests.store import postgres

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]


@pytest.fixture
def database() -> Iterator[postgres.Server]:
    """A PostgreSQL of the test's own, to be stopped and started."""
    postgres.require()
    server = postgres.Server()
    server.execute("CREATE DATABASE kcp")
    yield server
    server.remove()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgresql://kcp@127.0.0.1:1/kcp", "postgresql://127.0.0.1:1/kcp: connection refused"),
        ("postgresql://kcp@/kcp?host=/nowhere", "postgresql:///kcp: no server listens at its socket"),
    ],
    ids=["port", "socket"],
)
def test_a_daemon_without_its_database_says_so_in_one_line(tmp_path: Path, url: str, why: str) -> None:
    done = kcp("up", "--store", url, "--data", tmp_path / "data", "--listen", "127.0.0.1:0", home=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"kcp: cannot open {why}\n")


def test_while_the_database_is_away_reads_go_on_and_writes_are_refused(
    database: postgres.Server, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon("--store", database.url("kcp"), nodes=1).start()
    api = Api.of(daemon.kubeconfig)
    assert api.request("POST", MAPS, {"metadata": {"name": "before"}}).status == 201
    revision = api.get(MAPS)["metadata"]["resourceVersion"]
    watch = api.watch(f"{MAPS}?watch=true&resourceVersion={revision}")
    leaders = holders(api)
    database.stop(signal.SIGQUIT)

    refused = api.request("POST", MAPS, {"metadata": {"name": "meanwhile"}})
    assert (refused.status, refused.reason) == (503, "ServiceUnavailable")
    assert re.fullmatch(r"the store is unavailable: cannot reach postgresql:///kcp: .*", refused.message)
    assert api.request("GET", f"{MAPS}/before?resourceVersion=0").status == 200
    assert "before" in [m["metadata"]["name"] for m in api.get(f"{MAPS}?resourceVersion=0")["items"]]
    consistent = api.request("GET", f"{MAPS}/before")
    assert (consistent.status, consistent.reason) == (503, "ServiceUnavailable")
    eventually(lambda: api.request("GET", "/readyz").status == 500, "load balancers are told")
    assert b"[-]etcd failed" in api.request("GET", "/readyz").body

    database.start()
    started_s = time.monotonic()
    eventually(
        lambda: api.request("POST", MAPS, {"metadata": {"name": "after"}}).status == 201, "writes go on"
    )
    print(f"written {time.monotonic() - started_s:.2f} s after the database was back")
    event = next(watch)
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "after")
    eventually(lambda: api.request("GET", "/readyz").status == 200, "ready again")
    assert api.request("POST", DEPLOYMENTS, web(1)).status == 201
    eventually(lambda: running(api, 1), "controllers, scheduler and nodes go on")
    assert holders(api) == leaders
    assert "crashed" not in daemon.errors


def test_a_leader_that_was_paused_wakes_up_as_one_of_many(make_daemon: Callable[..., Daemon]) -> None:
    """It is stopped in the middle of a scale-up, another one leads meanwhile, and what it still wants is refused."""
    url = postgres.database(empty=True)
    paused, other = (make_daemon("--store", url, nodes=1).start() for _ in range(2))
    sleeper, api = Api.of(paused.kubeconfig), Api.of(other.kubeconfig)
    assert paused.process is not None and other.process is not None
    me = f"_{other.process.pid}_"
    since = api.get(PODS)["metadata"]["resourceVersion"]
    assert api.request("POST", DEPLOYMENTS, web(20)).status == 201
    os.kill(paused.process.pid, signal.SIGSTOP)
    stopped_s = time.monotonic()
    try:
        eventually(
            lambda: all(me in holder for holder in holders(api).values()), "the other one leads", TAKE_OVER_S
        )
        print(f"taken over after {time.monotonic() - stopped_s:.1f} s")
        eventually(partial(running, api, 20), "all run")
        eventually(lambda: endpoint_ports(api) == [other.port], "the paused one is no endpoint", TAKE_OVER_S)
        patched = api.request(
            "PATCH", f"{DEPLOYMENTS}/web", {"spec": {"replicas": 21}},
            content_type="application/merge-patch+json",
        )  # fmt: skip
        assert patched.status == 200
        eventually(partial(running, api, 21), "the new one runs")
    finally:
        os.kill(paused.process.pid, signal.SIGCONT)
    fresh = sleeper.get(f"{DEPLOYMENTS}/web")
    assert fresh["spec"]["replicas"] == 21
    assert len(sleeper.get(PODS)["items"]) == 21
    eventually(lambda: endpoint_ports(api) == sorted((paused.port, other.port)), "both are endpoints")
    assert created(sleeper, since) == running(sleeper, 21)
    assert me in holders(sleeper)["kube-controller-manager"]
    assert [each.errors.count("crashed") for each in (paused, other)] == [0, 0]
