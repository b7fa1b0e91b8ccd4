"""Incident files, backup, restore, purge, checksums."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from kcp.base.clock import SystemClock, VirtualClock
from kcp.store import check, transfer
from kcp.store.open import open_store
from kcp.store.protocol import Op, StoreError
from kcp.store.query import run_query
from kcp.store.reader import LogReader
from tests.store.changes import create, delete, key, lease_spec, open_for_test, plain, told, update
from tests.store.incident import LEASE, NODE, POD, SECRET, open_log, play


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def log(tmp_path: Path, clock: VirtualClock) -> Path:
    """The log of a stopped daemon."""
    async with open_log(tmp_path / "data", clock) as store:
        await play(store, clock)
    return tmp_path / "data"


def export(log: Path, target: Path, **options: object) -> transfer.Exported:
    return transfer.export_incident(
        log,
        target,
        clock=VirtualClock(),
        mask_key=b"k" * 32,
        **options,  # type: ignore[arg-type]
    )


class TestIncidentFile:
    def test_a_whole_log_without_redaction_is_the_same_history(self, log: Path, tmp_path: Path) -> None:
        done = export(log, tmp_path / "all.kcp", redact=False)
        assert (done.base_rv, done.last_rv, done.events, done.redacted) == (0, 12, 11, 0)
        assert done.checksum == transfer.checksum_of(log) == transfer.checksum_of(tmp_path / "all.kcp")
        assert check.problems(tmp_path / "all.kcp") == []
        with LogReader(log) as ours, LogReader(tmp_path / "all.kcp") as theirs:
            assert [told(e) for e in theirs.events()] == [told(e) for e in ours.events()]
            assert list(theirs.decisions()) == list(ours.decisions())
            assert list(theirs.inputs()) == list(ours.inputs())
            assert theirs.about["events"] == "11" and theirs.cluster_uid == ours.cluster_uid

    def test_it_is_one_file(self, log: Path, tmp_path: Path) -> None:
        export(log, tmp_path / "one.kcp")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "one.kcp"]

    @pytest.mark.parametrize("first", range(1, 13))
    def test_a_range_begins_with_its_base_state(self, log: Path, tmp_path: Path, first: int) -> None:
        target = tmp_path / "part.kcp"
        export(log, target, first_rv=first, last_rv=max(first, 10), redact=False)
        assert check.problems(target) == []
        with LogReader(log) as ours, LogReader(target) as theirs:
            assert theirs.base_rv == first - 1
            for row in ours.kinds:
                expected = [plain(r) for r in ours.list_at(row.resource, first - 1)]
                found = [plain(r) for r in theirs.list_at(row.resource, first - 1)]
                assert found == expected or row.resource == LEASE.resource
                at_end = [plain(r) for r in ours.list_at(row.resource, theirs.last_rv)]
                assert [plain(r) for r in theirs.list_at(row.resource, theirs.last_rv)] == at_end
            wanted = [e.rv for e in ours.events(first - 1, theirs.last_rv)]
            assert [e.rv for e in theirs.events()] == wanted
            assert {plain(r) for r in theirs.base()} >= {plain(r) for r in theirs.list_at("pods", first - 1)}

    def test_views_work_inside(self, log: Path, tmp_path: Path, clock: VirtualClock) -> None:
        target = tmp_path / "part.kcp"
        export(log, target, first_rv=4, last_rv=9)
        assert run_query(target, "SELECT name, phase FROM pods", clock=clock).rows == [("web-1", "Running")]
        assert run_query(target, "SELECT phase FROM pods", clock=clock, at="3").rows == [("Pending",)]
        at = "SELECT ready FROM facts_pod WHERE rv <= 8 ORDER BY rv DESC LIMIT 1"
        assert run_query(target, at, clock=clock).rows == [(0,)]
        raw = sqlite3.connect(target)
        assert raw.execute("SELECT count(*) FROM pod_history").fetchone() == (4,)
        raw.close()

    def test_secrets_are_masked_equal_values_alike(self, log: Path, tmp_path: Path) -> None:
        target = tmp_path / "masked.kcp"
        done = export(log, target)
        assert done.redacted == 2
        data = target.read_bytes()
        assert b"czNjcjN0" not in data and b"bmV3" not in data and b"dG9wc2VjcmV0" not in data
        other = tmp_path / "other.kcp"
        transfer.export_incident(log, other, clock=VirtualClock(), mask_key=b"z" * 32)
        with LogReader(target) as first, LogReader(other) as second:
            values = [[r.value["data"]["password"] for r in (x.get_at(SECRET, rv) for rv in (5, 6, 10)) if r] for x in (first, second)]  # fmt: skip
        assert values[0][0] == values[0][1] != values[0][2]
        assert set(values[0]).isdisjoint(values[1])

    async def test_beside_a_running_daemon(self, tmp_path: Path, clock: VirtualClock) -> None:
        async with open_log(tmp_path / "data", clock) as store:
            await play(store, clock)
            done = export(tmp_path / "data", tmp_path / "live.kcp", first_rv=3, about={"note": "x"})
            assert (done.base_rv, done.last_rv) == (2, 12)
            await store.append(update(NODE))
        with LogReader(tmp_path / "live.kcp") as reader:
            assert reader.about["note"] == "x" and reader.last_rv == 12

    def test_what_cannot_be(self, log: Path, tmp_path: Path) -> None:
        (tmp_path / "there.kcp").write_text("x")
        with pytest.raises(StoreError, match="exists already"):
            export(log, tmp_path / "there.kcp")
        with pytest.raises(StoreError, match="nothing to export"):
            export(log, tmp_path / "none.kcp", first_rv=99)
        with pytest.raises(StoreError, match="there is no event log"):
            export(tmp_path / "nowhere", tmp_path / "none.kcp")
        assert not list(tmp_path.glob("none*"))

    async def test_an_imported_incident_is_a_log_that_goes_on(self, log: Path, tmp_path: Path) -> None:
        export(log, tmp_path / "part.kcp", first_rv=4, last_rv=9, redact=False)
        went_on = transfer.import_incident(tmp_path / "part.kcp", tmp_path / "new")
        assert went_on == 9 + transfer.RESTORE_JUMP
        async with open_for_test(tmp_path / "new") as store:
            assert store.rv == store.horizon == went_on
            record = store.get(POD)
            assert record is not None and record.rv == 9
            assert (await store.append(delete(POD))).rv == went_on + 1
            assert [e.op for e in await store.events_since(8)][-1] is Op.DELETED
        assert check.problems(tmp_path / "new") == []


class TestBackup:
    async def test_while_the_daemon_runs(self, tmp_path: Path, clock: VirtualClock) -> None:
        async with open_log(tmp_path / "data", clock) as store:
            await play(store, clock)
            transfer.backup(tmp_path / "data", tmp_path / "copy.db")
            checksum = transfer.checksum_of(tmp_path / "data")
            await store.append(update(NODE))
        assert transfer.checksum_of(tmp_path / "copy.db") == checksum
        assert check.problems(tmp_path / "copy.db") == []
        with pytest.raises(StoreError, match="exists already"):
            transfer.backup(tmp_path / "data", tmp_path / "copy.db")

    @pytest.mark.parametrize("rv", [None, *range(13)])
    async def test_restore_to_any_revision(self, log: Path, tmp_path: Path, rv: int | None) -> None:
        transfer.backup(log, tmp_path / "copy.db")
        went_on = transfer.restore(tmp_path / "copy.db", tmp_path / "restored", rv=rv)
        assert went_on == 12 + transfer.RESTORE_JUMP
        assert check.problems(tmp_path / "restored") == []
        with LogReader(log) as ours:
            expected = {
                row.resource: [plain(r) for r in ours.list_at(row.resource, 12 if rv is None else rv)]
                for row in ours.kinds
            }
            lease_then = [r.rv for r in ours.list_at(LEASE.resource, 12 if rv is None else rv)]
        async with open_for_test(tmp_path / "restored") as store:
            assert store.rv == store.horizon == went_on and store.epoch == 3
            for resource, records in expected.items():
                assert [plain(record) for record in store.list(resource)] == records
            assert [r.rv for r in store.list(LEASE.resource)] == lease_then
            assert (await store.append(create(key("new")))).rv == went_on + 1
            if lease_then:
                await store.append(update(LEASE, spec=lease_spec("b")))
                assert store.lease_epoch(LEASE) == (6, 1)
        assert check.problems(tmp_path / "restored") == []

    def test_what_cannot_be(self, log: Path, tmp_path: Path) -> None:
        transfer.backup(log, tmp_path / "copy.db")
        with pytest.raises(StoreError, match="exists already"):
            transfer.restore(tmp_path / "copy.db", log)
        with pytest.raises(StoreError, match="holds revisions 0 to 12, not 13"):
            transfer.restore(tmp_path / "copy.db", tmp_path / "r", rv=13)


class TestPurge:
    async def test_past_versions_become_blank_and_a_mark_stays(self, log: Path, clock: VirtualClock) -> None:
        assert transfer.purge(log, SECRET, clock=clock, who="root", why="leaked") == 1
        assert check.problems(log) == []
        assert b"czNjcjN0" not in (log / "kcp.db").read_bytes()
        with LogReader(log) as reader:
            blank = reader.get_at(SECRET, 5)
            assert blank is not None and blank.uid == "s" and "data" not in blank.value
            live = reader.get_at(SECRET, 12)
            assert live is not None and live.value["data"] == {"password": "bmV3"}
            (mark,) = [entry for _, _, entry in reader.inputs() if entry.kind == "purge"]
            assert mark.payload["who"] == "root" and mark.payload["rows"] == 1
        async with open_store(log, clock=SystemClock()) as store:
            assert [e.rv for e in await store.events_since(0, resources=["secrets"])] == [5, 10]

    def test_an_unknown_object(self, log: Path, clock: VirtualClock) -> None:
        with pytest.raises(StoreError, match="no past version of secrets/shop/nobody"):
            transfer.purge(log, key("nobody", "shop", "secrets"), clock=clock, who="x", why="y")
