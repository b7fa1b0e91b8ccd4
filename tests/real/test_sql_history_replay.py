"""What nobody else has, by the commands: SQL over the log, who changed what, an incident re-made elsewhere."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.real import kubectl as kubectls
from tests.real.daemon import ROOT, Daemon, environment, eventually, kcp
from tests.real.kubectl import Kubectl

pytestmark = pytest.mark.real

VIEWS = {
    "history": "rv prev_rv at ts_us op kind grp ns name uid username manager user_agent decision_id request_id object",
    "state": "kind grp ns name uid rv at object",
    "pods": "ns name phase ready restarts node ip",
    "nodes": "name ready taints cpu memory",
    "deployments": "ns name replicas ready updated available",
    "pod_history": "rv at ts_us ns name uid op node phase restarts ready app",
    "node_history": "rv at ts_us name uid op ready",
    "decisions": "decision_id controller key frontier effects",
}
"""Columns that a person may count on; views may have more."""
CHANGE = ("controllers/replicas.py", "BURST_REPLICAS = 500", "BURST_REPLICAS = 1")
"""Somebody lets a ReplicaSet make one pod at a time."""


@pytest.fixture(scope="module")
def story(make_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon with something to tell: a Deployment made, scaled, updated, undone; and one deleted."""
    daemon = make_daemon(nodes=3).start()
    try:
        program = kubectls.binary("path")
    except kubectls.Missing as reason:
        pytest.skip(str(reason))
    kubectl = Kubectl(program, {**environment(daemon.home), "KUBECONFIG": str(daemon.kubeconfig)})
    kubectl("apply", "-f", ROOT / "examples/httpserver.yaml")
    kubectl("rollout", "status", "deployment/httpserver", "--timeout=60s")
    kubectl("scale", "deployment/httpserver", "--replicas=3")
    kubectl("rollout", "status", "deployment/httpserver", "--timeout=60s")
    kubectl("set", "image", "deployment/httpserver", "httpserver=example.com/httpserver:v2")
    kubectl("rollout", "status", "deployment/httpserver", "--timeout=60s")
    kubectl("create", "secret", "generic", "password", "--from-literal=word=correct-horse")
    kubectl("create", "deployment", "gone", "--image=example.com/gone:v1")
    kubectl("delete", "deployment", "gone")
    eventually(lambda: kubectl("get", "pods", "-l", "app=gone", "-o", "name") == "", "pods of gone are gone")
    return daemon


def rows(daemon: Daemon, query: str, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(daemon.sql(query, "--format", "json", *options))
    return found


def test_views_have_their_columns(story: Daemon) -> None:
    for view, columns in VIEWS.items():
        names = {row["name"] for row in rows(story, f"PRAGMA table_info('{view}')")}
        assert sorted(set(columns.split()) - names) == [], view


def test_formats(story: Daemon) -> None:
    query = "SELECT name, replicas, available FROM deployments ORDER BY name"
    table = story.sql(query).splitlines()
    assert [line.split() for line in table] == [["NAME", "REPLICAS", "AVAILABLE"], ["httpserver", "3", "3"]]
    assert rows(story, query) == [{"name": "httpserver", "replicas": 3, "available": 3}]
    assert list(csv.DictReader(io.StringIO(story.sql(query, "--format", "csv")))) == [
        {"name": "httpserver", "replicas": "3", "available": "3"}
    ]


def test_pods_and_nodes(story: Daemon) -> None:
    pods = rows(story, "SELECT ns, name, phase, ready, node FROM pods")
    assert {(pod["ns"], pod["phase"], pod["ready"]) for pod in pods} == {("default", "Running", "1/1")}
    nodes = {node["name"] for node in rows(story, "SELECT name FROM nodes WHERE ready = 'True'")}
    assert len(nodes) == 3 and {pod["node"] for pod in pods} <= nodes


def test_as_of_a_revision_and_a_time(story: Daemon) -> None:
    changes = rows(
        story,
        "SELECT rv, at, object->>'$.spec.replicas' AS replicas FROM history "
        "WHERE kind = 'Deployment' AND name = 'httpserver' ORDER BY rv",
    )
    first = changes[0]
    query = "SELECT name, replicas FROM deployments WHERE name = 'httpserver'"
    assert rows(story, query, "--at", str(first["rv"] - 1)) == []
    assert rows(story, query, "--at", str(first["rv"])) == [{"name": "httpserver", "replicas": 1}]
    assert rows(story, query, "--at", str(changes[-1]["at"])) == [{"name": "httpserver", "replicas": 3}]
    assert rows(story, query, "--at", "1h") == []
    future = story.kcp("sql", query, "--at", "999999999")
    assert (future.returncode, future.stderr.count("\n")) == (1, 1)
    assert "is in the future" in future.stderr
    nonsense = story.kcp("sql", query, "--at", "yesterday")
    assert nonsense.stderr == "Error: 'yesterday' is neither a revision, nor a time, nor a span such as 10m\n"


def test_what_is_deleted_stays_in_history(story: Daemon) -> None:
    ops = [
        row["op"]
        for row in rows(
            story, "SELECT op FROM history WHERE kind = 'Deployment' AND name = 'gone' ORDER BY rv"
        )
    ]
    assert (ops[0], ops[-1]) == ("ADDED", "DELETED")
    assert rows(story, "SELECT name FROM deployments WHERE name = 'gone'") == []


def test_why_joins_changes_with_decisions(story: Daemon) -> None:
    why = rows(
        story,
        "SELECT DISTINCT h.kind, h.op, d.controller, h.username FROM history h JOIN decisions d USING (decision_id) "
        "WHERE h.kind IN ('ReplicaSet', 'Pod') AND h.op = 'ADDED' ORDER BY 1, 2",
    )
    assert [(row["kind"], row["controller"], row["username"]) for row in why] == [
        ("Pod", "replicaset-controller", "system:serviceaccount:kube-system:replicaset-controller"),
        ("ReplicaSet", "deployment-controller", "system:serviceaccount:kube-system:deployment-controller"),
    ]


def test_only_reading(story: Daemon) -> None:
    for statement in ("DELETE FROM events", "UPDATE head SET rv = 1", "DROP VIEW history", "ATTACH 'x' AS y"):
        done = story.kcp("sql", statement)
        assert done.returncode == 1 and "Traceback" not in done.stderr, statement
        assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
    wrong = story.kcp("sql", "SELECT x FROM nowhere")
    assert (wrong.returncode, wrong.stderr) == (1, "Error: no such table: nowhere\n")


def test_no_log_there(tmp_path: Path) -> None:
    for command in (("sql", "SELECT 1"), ("history", "pod", "x"), ("export", tmp_path / "out")):
        done = kcp(*command, "--data", tmp_path / "nothing", home=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1, done.stderr


def test_history_of_an_object(story: Daemon) -> None:
    text = story.kcp("history", "deployment", "httpserver").stdout
    first, *_ = text.splitlines()
    assert re.match(r"rv \d+  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  created by kubernetes-admin", first)
    assert "spec.replicas: 1 → 3" in text
    assert "example.com/httpserver:v1 → example.com/httpserver:v2" in text
    assert "by system:serviceaccount:kube-system:deployment-controller" in text
    versions = json.loads(story.kcp("history", "deploy", "httpserver", "--format", "json").stdout)
    assert versions[0]["verb"] == "created" and versions[0]["username"] == "kubernetes-admin"
    assert [v["rv"] for v in versions] == sorted(v["rv"] for v in versions)
    assert datetime.fromisoformat(versions[0]["at"]) < datetime.now(UTC)
    gone = story.kcp("history", "deployments.apps", "gone").stdout.splitlines()
    assert any("deleted by kubernetes-admin" in line for line in gone)
    missing = story.kcp("history", "deployment", "never")
    assert (missing.returncode, missing.stderr) == (
        1,
        'Error: deployments.apps "never" has no history here\n',
    )


@pytest.fixture(scope="module")
def incident(story: Daemon) -> Path:
    """The exported log of the running daemon."""
    file = story.home / "incident.kcplog"
    done = story.kcp("export", file)
    assert done.returncode == 0, done.stderr
    assert re.search(r"incident\.kcplog: \d+ events, revisions 1 to \d+, \d+ Secrets? redacted", done.stdout)
    return file


def test_an_incident_is_a_log_like_any_other(incident: Path, tmp_path: Path) -> None:
    done = kcp("sql", "SELECT name FROM deployments", "--format", "csv", "--data", incident, home=tmp_path)
    assert done.stdout.split() == ["name", "httpserver"]
    assert b"correct-horse" not in incident.read_bytes()
    assert "Y29ycmVjdC1ob3JzZQ==" not in incident.read_bytes().decode(errors="replace")


def test_replay_of_the_file(incident: Path, tmp_path: Path) -> None:
    done = kcp("replay", incident, home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"^(\d+) decisions, (\d+) identical", done.stdout, re.M)
    assert found is not None, done.stdout
    assert int(found[1]) == int(found[2]) > 50
    again = kcp("replay", incident, home=tmp_path)
    assert again.stdout == done.stdout


def test_replay_of_one_controller(incident: Path, tmp_path: Path) -> None:
    done = kcp("replay", incident, "--controller", "deployment-controller", home=tmp_path)
    assert re.fullmatch(r"(\d+) decisions, \1 identical\n", done.stdout), done.stdout + done.stderr
    unknown = kcp("replay", incident, "--controller", "nobody", home=tmp_path)
    assert unknown.returncode == 1 and unknown.stderr.startswith("Error: the log has no decisions of nobody")


@pytest.fixture
def other_code(tmp_path: Path) -> Callable[[str, str, str], Path]:
    """Makes a copy of the package in which one constant is another."""

    def change(file: str, old: str, new: str) -> Path:
        copy = tmp_path / "changed"
        shutil.copytree(ROOT / "kcp", copy / "kcp", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "migrations", copy / "migrations")
        path = copy / "kcp" / file
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, (file, old)
        path.write_text(text.replace(old, new), encoding="utf-8")
        return copy

    return change


def test_changed_code_diverges_and_shows_where(
    incident: Path, tmp_path: Path, other_code: Callable[[str, str, str], Path]
) -> None:
    copy = other_code(*CHANGE)
    done = kcp("replay", incident, home=tmp_path, package=copy)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "replicaset-controller" in done.stdout or "deployment-controller" in done.stdout
    assert "1 diverged" in done.stdout
    every = kcp("replay", incident, "--continue", home=tmp_path, package=copy)
    assert every.returncode == 3
    found = re.search(r"(\d+) decisions, (\d+) identical, (\d+) diverged", every.stdout)
    assert found is not None
    assert int(found[1]) == int(found[2]) + int(found[3])


def test_a_stopped_daemon_is_read_as_well(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = make_daemon(nodes=1).start()
    assert daemon.stop() == 0
    assert rows(daemon, "SELECT name FROM namespaces WHERE name = 'default'") == [{"name": "default"}]
    done = kcp("replay", daemon.data, home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_exported_file_opens_in_any_sql_client(incident: Path) -> None:
    sqlite = shutil.which("sqlite3")
    if sqlite is None:
        pytest.skip("no sqlite3 on PATH")
    done = subprocess.run(
        [sqlite, str(incident), "SELECT count(*) > 0 FROM history"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == "1\n", done.stderr
