"""`kcp seal`: what a person sees, and what a daemon may be told about sealing."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import anyio
import attrs
import pytest
from click.testing import CliRunner, Result

from kcp.base.clock import VirtualClock
from kcp.cli.main import kcp
from kcp.client.client import Client
from kcp.controlplane.cluster import ClusterOptions
from kcp.controlplane.settings import DaemonSettings
from tests.replay.placements import record
from tests.store import generated
from tests.store.changes import create, key, open_for_test
from tests.support.builders import deployment

pytest.importorskip("pyarrow", reason="the extra kcp[archive] is not installed")


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """A log of long ago."""
    clock = VirtualClock()
    async with open_for_test(tmp_path / "data", clock, inline=True) as store:
        await store.append(create(key("old")))
        await generated.fill(store, clock, 200, pods=5)
        await store.move_horizon(store.rv)
    return tmp_path / "data"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(kcp, [str(argument) for argument in arguments])


def test_it_says_what_was_sealed_and_dropped(data: Path) -> None:
    found = run("seal", "--data", data)
    assert found.exit_code == 0, found.output
    first, left = found.output.splitlines()
    assert first.startswith("sealed revisions 1 to 200: 200 events, ") and first.endswith(".parquet")
    assert left.endswith("events left the hot table")
    assert run("seal", "--data", data).output == "nothing is old enough to seal\n"
    dropped = run("seal", "--data", data, "--drop-older-than", "1d")
    assert "dropped revisions 1 to 200: history begins at revision 200" in dropped.output
    told = run("history", "configmaps", "old", "--data", data)
    assert told.output.splitlines()[0] == "(history before revision 200 was dropped)"
    assert "created" in told.output
    assert (
        "history before revision 200 was dropped"
        in run("sql", "SELECT 1", "--at", "9", "--data", data).output
    )


def test_what_is_wrong_is_one_line(data: Path, tmp_path: Path) -> None:
    spans = run("seal", "--data", data, "--older-than", "soon")
    assert spans.exit_code == 2 and "'soon' is no length of time such as 90s, 24h or 30d" in spans.output
    missing = run("seal", "--data", tmp_path / "nowhere")
    assert missing.exit_code == 1 and missing.output.startswith("Error: there is no event log at ")


async def _play(client: Client) -> None:
    """A rollout, and a pod that is deleted by hand and replaced."""
    await anyio.sleep(5)
    await client.create("deployments.apps", deployment("web", replicas=2), "default")
    await anyio.sleep(20)
    pods = (await client.list("pods", "default", label_selector="app=web")).items
    await client.delete("pods", pods[0]["metadata"]["name"], "default")
    await anyio.sleep(60)


def test_why_is_told_from_sealed_events_as_before(tmp_path: Path) -> None:
    file = tmp_path / "log.kcp"
    record(file, _play, ClusterOptions(nodes=2))
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE head SET horizon_rv = rv")
        pods = connection.execute(
            "SELECT name FROM objects JOIN kinds USING (kind_id) WHERE plural = 'pods' ORDER BY oid"
        ).fetchall()
    connection.close()
    assert len(pods) == 3
    before = [run("why", f"pod/{name}", "--data", file).output for (name,) in pods]
    assert all("kubernetes-admin" in text for text in before)
    assert "events left the hot table" in run("seal", "--data", file).output
    assert [run("why", f"pod/{name}", "--data", file).output for (name,) in pods] == before


SQLITE = DaemonSettings()
SHARED = DaemonSettings(store="postgresql://db/kcp")


def test_a_daemon_seals_by_itself_where_it_has_a_place() -> None:
    assert SQLITE.sealing is not None and SQLITE.sealing.keep_s is None
    assert SHARED.sealing is None
    shared = attrs.evolve(SHARED, archive="/srv/kcp", history_retention_s=1e6).sealing
    assert shared is not None and (shared.folder, shared.keep_s) == (Path("/srv/kcp"), 1e6)
    assert attrs.evolve(SQLITE, seal_after_s=0.0).sealing is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (attrs.evolve(SHARED, seal_after_s=60.0), "needs --archive"),
        (attrs.evolve(SHARED, history_retention_s=60.0), "needs --archive"),
        (attrs.evolve(SQLITE, seal_after_s=0.0, history_retention_s=60.0), "it needs --seal-after"),
    ],
)
def test_a_daemon_that_cannot_seal_does_not_start(settings: DaemonSettings, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        assert settings.sealing
