"""Incident files, backup, restore, purge, checksums."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kcp.base.clock import VirtualClock
from kcp.store import check, postgres_transfer, transfer
from kcp.store.protocol import Input, Op, StoreError
from kcp.store.query import run_query
from kcp.store.reader import LogReader
from tests.store import postgres
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

    async def test_a_range_has_the_starts_of_who_ran_in_it(
        self, log: Path, tmp_path: Path, clock: VirtualClock
    ) -> None:
        async with open_log(log, clock) as store:
            store.record(Input("start", {"epoch": store.epoch}))
            store.record(Input("start", {"epoch": store.epoch, "scheduler": {}}))
            await store.append(update(NODE, spec={"unschedulable": True}))
            await store.append(update(NODE, spec={}))
        starts = {}
        for first, last in ((1, None), (5, 9), (14, None)):
            target = tmp_path / f"{first}.kcp"
            export(log, target, first_rv=first, last_rv=last, redact=False)
            assert check.problems(target) == []
            with LogReader(target) as reader:
                starts[first] = [given.payload for _, _, given in reader.inputs("start")]
        one, two, three = starts[1]
        assert one["settings"] and one["epoch"] < two["epoch"] == three["epoch"]
        assert starts[5] == [one] and starts[14] == [two, three]

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
        done = transfer.restore(tmp_path / "part.kcp", tmp_path / "new")
        assert (done.base_rv, done.restored_rv) == (3, 9)
        went_on = done.rv
        assert went_on == 9 + transfer.RESTORE_JUMP
        async with open_for_test(tmp_path / "new") as store:
            assert store.rv == store.horizon == went_on
            record = store.get(POD)
            assert record is not None and record.rv == 9
            assert (await store.append(delete(POD))).rv == went_on + 1
            assert [e.op for e in await store.events_since(8)][-1] is Op.DELETED
        assert check.problems(tmp_path / "new") == []


def backup(source: Path | str, target: Path) -> transfer.BackedUp:
    return transfer.backup(source, target, clock=VirtualClock())


class TestBackup:
    async def test_while_the_daemon_runs(self, tmp_path: Path, clock: VirtualClock) -> None:
        async with open_log(tmp_path / "data", clock) as store:
            await play(store, clock)
            done = backup(tmp_path / "data", tmp_path / "copy.db")
            checksum = transfer.checksum_of(tmp_path / "data")
            await store.append(update(NODE))
        assert (done.rv, done.events, done.checksum) == (12, 11, checksum)
        assert done.size_bytes == (tmp_path / "copy.db").stat().st_size
        assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600
        assert transfer.checksum_of(tmp_path / "copy.db") == checksum
        assert check.problems(tmp_path / "copy.db") == []
        assert sorted(p.name for p in tmp_path.iterdir()) == ["copy.db", "data"]
        with pytest.raises(StoreError, match="exists already"):
            backup(tmp_path / "data", tmp_path / "copy.db")

    @pytest.mark.parametrize("rv", [None, *range(13)])
    async def test_restore_to_any_revision(self, log: Path, tmp_path: Path, rv: int | None) -> None:
        backup(log, tmp_path / "copy.db")
        done = transfer.restore(tmp_path / "copy.db", tmp_path / "restored", at=rv)
        went_on = done.rv
        assert went_on == 12 + transfer.RESTORE_JUMP
        assert done.restored_rv == (12 if rv is None else rv)
        assert (
            done.checksum == transfer.checksum_of(tmp_path / "restored") == transfer.checksum_of(log, 0, rv)
        )
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

    def test_restore_to_a_time(self, log: Path, tmp_path: Path) -> None:
        """Revision 4 was written three seconds after the first."""
        backup(log, tmp_path / "copy.db")
        then = VirtualClock().now() + timedelta(seconds=3.5)
        assert transfer.restore(tmp_path / "copy.db", tmp_path / "then", at=then).restored_rv == 4
        before = VirtualClock().now() - timedelta(seconds=1)
        with pytest.raises(StoreError, match="holds revisions 0 to 12, not the moment"):
            transfer.restore(tmp_path / "copy.db", tmp_path / "before", at=before)
        assert not (tmp_path / "before" / "kcp.db").exists()

    async def test_a_restored_log_can_be_backed_up_and_restored(self, log: Path, tmp_path: Path) -> None:
        """What the first file said of itself does not hold for a log that went on."""
        export(log, tmp_path / "part.kcp", first_rv=4, redact=False)
        transfer.restore(tmp_path / "part.kcp", tmp_path / "one")
        async with open_for_test(tmp_path / "one") as store:
            await store.append(update(NODE))
        done = backup(tmp_path / "one", tmp_path / "copy.db")
        again = transfer.restore(tmp_path / "copy.db", tmp_path / "two")
        assert again.base_rv == 3 and again.checksum == done.checksum == transfer.checksum_of(
            tmp_path / "one"
        )
        assert export(tmp_path / "two", tmp_path / "all.kcp", redact=False).base_rv == 3

    def test_a_file_that_is_not_what_was_written_is_refused(self, log: Path, tmp_path: Path) -> None:
        backup(log, tmp_path / "copy.db")
        raw = sqlite3.connect(tmp_path / "copy.db")
        raw.execute("UPDATE events SET body = replace(body, 'web:1', 'web:2') WHERE rv = 3")
        raw.commit()
        raw.close()
        with pytest.raises(StoreError, match="is damaged: its history is not the one that was written"):
            transfer.restore(tmp_path / "copy.db", tmp_path / "r")
        assert [p.name for p in (tmp_path / "r").iterdir()] == ["kcp.db.lock"]

    def test_a_log_with_a_hole_is_refused(self, log: Path, tmp_path: Path) -> None:
        raw = sqlite3.connect(log / "kcp.db")
        raw.execute("DELETE FROM events WHERE rv = 3")
        raw.commit()
        raw.close()
        backup(log, tmp_path / "copy.db")
        with pytest.raises(StoreError, match="damaged: -1 revisions are missing"):
            transfer.restore(tmp_path / "copy.db", tmp_path / "r")

    def test_what_cannot_be(self, log: Path, tmp_path: Path) -> None:
        backup(log, tmp_path / "copy.db")
        with pytest.raises(StoreError, match="exists already"):
            transfer.restore(tmp_path / "copy.db", log)
        with pytest.raises(StoreError, match="holds revisions 0 to 12, not revision 13"):
            transfer.restore(tmp_path / "copy.db", tmp_path / "r", at=13)
        (tmp_path / "text").write_text("no log at all, but long enough to look like something")
        for work in (
            lambda: transfer.restore(tmp_path / "text", tmp_path / "r"),
            lambda: backup(tmp_path / "text", tmp_path / "x"),
        ):
            with pytest.raises(StoreError, match="file is not a database"):
                work()
        with pytest.raises(StoreError, match="there is no event log"):
            backup(tmp_path / "nowhere", tmp_path / "x")
        assert not (tmp_path / "x").exists() and not (tmp_path / "r" / "kcp.db").exists()

    def test_a_log_of_which_only_the_wal_is_left_is_not_written_over(self, log: Path, tmp_path: Path) -> None:
        """SQLite would take it for a part of the new file."""
        backup(log, tmp_path / "copy.db")
        (tmp_path / "r").mkdir()
        (tmp_path / "r" / "kcp.db-wal").write_bytes(b"x")
        with pytest.raises(StoreError, match=r"kcp\.db-wal exists already"):
            transfer.restore(tmp_path / "copy.db", tmp_path / "r")


_KILLED = """
import os, signal, sys
from pathlib import Path
from kcp.base.clock import VirtualClock
from kcp.store import transfer

what, folder = sys.argv[1], Path(sys.argv[2])
FILES = {transfer.__file__, transfer.check.__file__, transfer.schema.__file__}


def work(target):
    if what == "backup":
        transfer.backup(folder / "data", target / "copy.db", clock=VirtualClock())
    else:
        transfer.restore(folder / "copy.db", target)


def dies_after(steps):
    def count(frame, event, argument):
        nonlocal steps
        if event in ("call", "c_call", "return") and frame.f_code.co_filename in FILES:
            steps -= 1
            if steps == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    return count


def child(target, steps):
    pid = os.fork()
    if not pid:
        target.mkdir()
        sys.setprofile(dies_after(steps))
        work(target)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


(folder / "first").mkdir()
work(folder / "first")
step = 1
while child(folder / f"killed-{step:05}", step):
    step += 1 + step // 8
print(step)
"""


class TestKilled:
    @pytest.mark.parametrize(("what", "name"), [("backup", "copy.db"), ("restore", "kcp.db")])
    def test_half_a_log_is_never_there(self, log: Path, tmp_path: Path, what: str, name: str) -> None:
        """SIGKILL after ever more steps: either nothing has the name, or all of it."""
        if what == "restore":
            backup(log, tmp_path / "copy.db")
        done = subprocess.run(
            [sys.executable, "-c", _KILLED, what, str(tmp_path)], check=True, capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip
        whole = transfer.checksum_of(log)
        places = sorted(tmp_path.glob("killed-*"))
        there = [place for place in places if (place / name).exists()]
        assert int(done.stdout) > 50 and 0 < len(there) < len(places), done.stdout
        for place in there:
            assert transfer.checksum_of(place / name) == whole and check.problems(place / name) == []
        for place in places:
            if place not in there:
                again = transfer.restore(tmp_path / "copy.db", place / "data") if what == "restore" else None
                assert again is None or again.checksum == whole
                if what == "backup":
                    assert backup(log, place / name).checksum == whole


_KILLED_ON_THE_WAY = """
import os, signal, sys
from pathlib import Path
from kcp.store import postgres_transfer, transfer

pages = postgres_transfer._pages


def dies(source, table, columns):
    if table == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
    return pages(source, table, columns)


postgres_transfer._pages = dies
transfer.restore(Path(sys.argv[1]), sys.argv[2])
"""


class TestKilledOnTheWayToPostgres:
    async def test_it_leaves_an_empty_log(self, log: Path, tmp_path: Path) -> None:
        """Whoever starts on it starts a new cluster, and the next restore goes into it."""
        backup(log, tmp_path / "copy.db")
        target = postgres.database(empty=True)
        done = subprocess.run(
            [sys.executable, "-c", _KILLED_ON_THE_WAY, str(tmp_path / "copy.db"), target, "leases"],
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, done.stderr
        with LogReader(target) as reader:
            assert (reader.last_rv, list(reader.events()), reader.kinds) == (0, [], [])
        assert transfer.restore(tmp_path / "copy.db", target).checksum == transfer.checksum_of(log)

    @pytest.mark.parametrize("table", ["kinds", "events", "facts_owner", "data_keys"])
    def test_nor_does_a_failure(
        self, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
    ) -> None:
        backup(log, tmp_path / "copy.db")
        target = postgres.database(empty=True)
        pages = postgres_transfer._pages

        def fails(source: sqlite3.Connection, name: str, columns: Sequence[str]) -> Any:
            if name == table:
                raise OSError(5, "Input/output error")
            return pages(source, name, columns)

        with monkeypatch.context() as patched:
            patched.setattr(postgres_transfer, "_pages", fails)
            with pytest.raises(StoreError, match=r"cannot write to .*Input/output error"):
                transfer.restore(tmp_path / "copy.db", target)
        assert check.problems(target) == [] and transfer.checksum_of(target) != transfer.checksum_of(log)
        transfer.restore(tmp_path / "copy.db", target)
