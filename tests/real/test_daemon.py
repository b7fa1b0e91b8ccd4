"""The daemon's life: starting, refusing to start, stopping, going on."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.real.daemon import ENTRY, Daemon, environment, eventually, kcp
from tests.real.https import Api

pytestmark = pytest.mark.real

SERVICES = "/api/v1/namespaces/default/services"
SYSTEM_NAMESPACES = ["default", "kube-node-lease", "kube-public", "kube-system"]


def refusal(home: Path, *options: str | Path) -> str:
    """The one line that a daemon which cannot start writes."""
    done = kcp("up", *options, home=home)
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_a_fresh_cluster(api: Api) -> None:
    namespaces = api.get("/api/v1/namespaces")["items"]
    assert [(ns["metadata"]["name"], ns["status"]["phase"]) for ns in namespaces] == [
        (name, "Active") for name in SYSTEM_NAMESPACES
    ]
    service = api.get("/api/v1/namespaces/default/services/kubernetes")
    assert service["spec"]["clusterIP"] == "10.96.0.1"
    assert [port["port"] for port in service["spec"]["ports"]] == [443]
    classes = {row["metadata"]["name"]: row["value"] for row in api.get(PRIORITY_CLASSES)["items"]}
    assert classes == {"system-cluster-critical": 2000000000, "system-node-critical": 2000001000}
    for name in SYSTEM_NAMESPACES:
        for path in ("serviceaccounts/default", "configmaps/kube-root-ca.crt"):
            eventually(partial(exists, api, f"/api/v1/namespaces/{name}/{path}"), f"{path} in {name}")


def exists(api: Api, path: str) -> bool:
    return api.request("GET", path).status == 200


PRIORITY_CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"


def test_the_kubernetes_service_has_endpoints(api: Api, daemon: Daemon) -> None:
    endpoints = api.get("/api/v1/namespaces/default/endpoints/kubernetes")
    slices = api.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes")
    (subset,) = endpoints["subsets"]
    assert subset["ports"][0]["port"] == slices["ports"][0]["port"] == daemon.port
    assert [a["ip"] for a in subset["addresses"]] == slices["endpoints"][0]["addresses"]


def test_ready_is_one_line_and_soon(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(nodes=3)
    daemon.start()
    daemon.stop()
    daemon.start()
    print(f"ready after {daemon.took_s:.1f} s on a warm machine; the goal is 2 s")
    assert daemon.took_s < 30
    assert daemon.errors == ""


def test_the_kubeconfig_is_for_its_owner_alone(daemon: Daemon) -> None:
    assert stat.S_IMODE(daemon.kubeconfig.stat().st_mode) == 0o600
    assert stat.S_IMODE((daemon.data / "pki" / "ca.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((daemon.data / "kcp.db").stat().st_mode) == 0o600


def test_a_second_daemon_on_the_same_data_is_refused(daemon: Daemon, tmp_path: Path) -> None:
    line = refusal(tmp_path, "--data", daemon.data, "--listen", "127.0.0.1:0")
    assert daemon.process is not None
    assert line == f"kcp: {daemon.data / 'kcp.db'} is in use by another kcp (process {daemon.process.pid})"


def test_a_port_in_use(daemon: Daemon, tmp_path: Path) -> None:
    line = refusal(tmp_path, "--data", tmp_path / "data", "--listen", f"127.0.0.1:{daemon.port}")
    assert line == f"kcp: cannot listen on 127.0.0.1:{daemon.port}: address already in use"


def test_an_unwritable_directory(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    if os.getuid() == 0:  # nothing is closed to root, so a file stands where the directory should be
        closed.rmdir()
        closed.write_text("not a directory")
    line = refusal(tmp_path, "--data", closed / "data", "--listen", "127.0.0.1:0")
    reason = "not a directory" if os.getuid() == 0 else "permission denied"
    assert line == f"kcp: cannot write to {closed / 'data'}: {reason}"


def test_a_database_of_a_newer_version(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = make_daemon().start()
    assert daemon.stop() == 0
    with closing(sqlite3.connect(daemon.data / "kcp.db")) as database:
        (known,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
    text = f"{daemon.data / 'kcp.db'} was written by a newer kcp (schema 9999, this one knows {known})"
    assert refusal(tmp_path, "--data", daemon.data, "--listen", "127.0.0.1:0") == f"kcp: {text}"
    read = daemon.kcp("sql", "SELECT 1")
    assert (read.returncode, read.stderr) == (1, f"Error: {text}\n")


def test_a_file_that_is_no_log(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "kcp.db").write_bytes(b"this is not a database, however long one looks at it" * 100)
    line = refusal(tmp_path, "--data", data, "--listen", "127.0.0.1:0")
    assert line.startswith(f"kcp: {data / 'kcp.db'} is no event log, or damaged: ")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--listen", "nonsense"), "kcp: 'nonsense' is no address to listen on: expected HOST:PORT"),
        (
            ("--listen", "127.0.0.1:70000"),
            "kcp: '127.0.0.1:70000' is no address to listen on: the port is beyond 65535",
        ),
        (
            ("--store", "mysql://localhost/kcp"),
            "kcp: no event log can be opened at mysql://localhost/kcp: the engine is not supported",
        ),
        (("--service-cidr", "nonsense"), "kcp: 'nonsense' does not appear to be an IPv4 or IPv6 network"),
        (
            ("--service-cidr", "10.0.0.0/24,10.1.0.0/24"),
            "kcp: two service ranges must be of different IP families: 10.0.0.0/24,10.1.0.0/24",
        ),
    ],
)
def test_what_cannot_be_meant(tmp_path: Path, options: tuple[str, ...], text: str) -> None:
    rest = () if "--listen" in options else ("--listen", "127.0.0.1:0")
    assert refusal(tmp_path, "--data", tmp_path / "data", *options, *rest) == text


def test_an_unknown_setting_in_the_file(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "kcp.toml").write_text("colour = 'blue'\n")
    line = refusal(tmp_path, "--data", data, "--listen", "127.0.0.1:0")
    assert line == f"kcp: {data / 'kcp.toml'}: unknown setting 'colour'"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly(make_daemon: Callable[..., Daemon], number: signal.Signals) -> None:
    daemon = make_daemon(nodes=1).start()
    api = Api.of(daemon.kubeconfig)
    watch = api.watch("/api/v1/namespaces?watch=true")
    assert next(watch)["type"] == "ADDED"
    assert daemon.stop(number) == 0
    assert all(event["type"] == "ADDED" for event in watch)  # the watch ends, nothing breaks
    assert daemon.errors == ""
    with closing(socket.socket()) as sock:
        assert sock.connect_ex(("127.0.0.1", daemon.port)) != 0


def test_started_again_it_goes_on(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(nodes=2).start()
    api = Api.of(daemon.kubeconfig)
    maps = "/api/v1/namespaces/default/configmaps"
    written = [
        api.request("POST", maps, {"metadata": {"name": f"kept-{n}"}}).json()["metadata"] for n in range(20)
    ]
    before = {item["metadata"]["uid"] for item in everything(api)}
    assert daemon.stop() == 0
    daemon.start()
    api = Api.of(daemon.kubeconfig)
    kept = {item["metadata"]["name"]: item["metadata"] for item in api.get(maps)["items"]}
    for metadata in written:
        assert kept[metadata["name"]]["uid"] == metadata["uid"]
        assert kept[metadata["name"]]["resourceVersion"] == metadata["resourceVersion"]
    assert before <= {item["metadata"]["uid"] for item in everything(api)}
    after = api.request("POST", maps, {"metadata": {"name": "later"}}).json()["metadata"]["resourceVersion"]
    assert int(after) > max(int(metadata["resourceVersion"]) for metadata in written)
    assert daemon.errors == ""


def everything(api: Api) -> list[dict[str, dict[str, str]]]:
    """Objects that a restart must not touch."""
    paths = ("namespaces", "services", "serviceaccounts", "nodes")
    return [item for path in paths for item in api.get(f"/api/v1/{path}")["items"]]


def test_a_kubeconfig_outlives_restarts(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    old = daemon.kubeconfig.read_bytes()
    assert daemon.stop() == 0
    daemon.start()
    assert daemon.kubeconfig.read_bytes() == old


def test_a_signal_while_it_starts_stops_it_as_well(tmp_path: Path) -> None:
    for pause_s in (0.3, 0.6, 0.9):
        process = subprocess.Popen(
            [sys.executable, "-c", ENTRY, "up", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0"],
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            process.wait(pause_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        assert process.returncode in (0, -signal.SIGTERM)
        assert errors == ""


def test_nodes_can_be_changed_at_a_start(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(nodes=1).start()
    eventually(lambda: len(nodes(daemon)) == 1, "one node")
    daemon.stop()
    daemon.nodes = 3
    daemon.start()
    eventually(lambda: len(nodes(daemon)) == 3, "three nodes")


def test_a_cluster_of_one_ip_family_grows_a_second(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon("--service-cidr", "10.77.0.0/24").start()
    assert daemon.stop() == 0
    daemon.options = ("--service-cidr", "10.77.0.0/24,fd77::/112")
    api = Api.of(daemon.start().kubeconfig)
    spec = {"ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 80}]}
    answer = api.request("POST", SERVICES, {"metadata": {"name": "both"}, "spec": spec})
    assert answer.status == 201, answer.message
    ips = answer.json()["spec"]["clusterIPs"]
    assert ips[0].startswith("10.77.0.") and ips[1].startswith("fd77::")
    held = api.get("/apis/networking.k8s.io/v1/ipaddresses")["items"]
    assert {item["metadata"]["name"] for item in held} == {"10.77.0.1", *ips}
    ranges = api.get("/apis/networking.k8s.io/v1/servicecidrs/kubernetes")
    assert ranges["spec"]["cidrs"] == ["10.77.0.0/24", "fd77::/112"]


def nodes(daemon: Daemon) -> list[str]:
    items = Api.of(daemon.kubeconfig).get("/api/v1/nodes")["items"]
    return [node["metadata"]["name"] for node in items]


def test_help_names_what_can_be_said(tmp_path: Path) -> None:
    text = kcp("up", "--help", home=tmp_path).stdout
    for option in ("--data", "--listen", "--store", "--nodes"):
        assert option in text
