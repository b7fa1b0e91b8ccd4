"""A session: random access to decisions, breaks, caches as they were, the queue, changes and causes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kcp.replay.incident import Incident
from kcp.replay.session import Break, Session
from kcp.replay.terminal import WORDS, Quit, Terminal
from kcp.store.reader import LogReader
from tests.replay import stories


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stories.rollout(tmp_path_factory.mktemp("session") / "log.kcp")


@pytest.fixture
def session(log: Path) -> Iterator[Session]:
    with Incident.open(log) as incident:
        yield Session(incident)


def at(session: Session, text: str) -> Session:
    """At the first decision where a condition holds."""
    session.breaks[:] = [Break(text)]
    assert session.breaks_here() or session.run_to_break()
    return session


def test_step_and_back_are_inverse_and_end_at_the_ends(session: Session) -> None:
    seen = [session.decision.id]
    while session.step():
        seen.append(session.decision.id)
    assert seen == session.ids == sorted(seen)
    for number in reversed(seen[:-1]):
        assert session.step(-1)
        assert session.decision.id == number
    assert not session.step(-1)


def test_breaks_are_found_in_both_directions(session: Session) -> None:
    session.breaks.append(Break('controller == "deployment" && kinds.exists(k, k == "Create")'))
    found = []
    while session.run_to_break():
        found.append(session.decision.id)
    assert len(found) == 2, "a ReplicaSet per image"
    again = []
    while session.run_to_break(backwards=True):
        again.append(session.decision.id)
    assert again == found[::-1]
    assert session.at == 0


def test_places_by_decision_revision_and_time(session: Session) -> None:
    session.go("last")
    last = session.decision
    session.go("first")
    session.go(str(last.id))
    assert session.decision == last
    session.go("250")
    assert session.rv >= 250
    session.step(-1)
    assert session.rv < 250
    session.go("2026-01-01T00:00:16Z")
    assert session.decision.now_us >= 1767225616_000_000
    for wrong in ("1000000999999", "soon"):
        with pytest.raises(ValueError, match=wrong):
            session.go(wrong)


def test_caches_are_those_of_the_moment(session: Session, log: Path) -> None:
    with LogReader(log) as reader:
        for number in session.ids[::7]:
            session.go(str(number))
            for resource, fold in session.caches().items():
                rv = session.frontier.get(resource)
                if rv is not None and not resource.startswith("leases"):
                    wanted = [r.value["metadata"]["uid"] for r in reader.list_at(resource, rv)]
                    assert [o["metadata"]["uid"] for o in fold.indexer.list()] == wanted
    with pytest.raises(ValueError, match="has no cache of 'secretz'; it has"):
        session.cache("secretz")


def test_every_decision_can_be_made_again_out_of_order(session: Session) -> None:
    for number in sorted(session.ids, key=lambda n: n % 7):
        session.go(str(number))
        assert session.remake().identical, session.decision


def test_a_queue_tells_what_waits_and_what_comes(session: Session) -> None:
    comes = waits = 0
    for number in session.ids:
        session.go(str(number))
        name = session.decision.controller
        for each in session.queue():
            decision, frontier = session.incident.decision(each.decision)
            assert (decision.controller, decision.key, decision.trigger) == (name, each.key, each.trigger)
            assert decision.id > session.decision.id
            if each.brought_by is None:
                waits += 1
            else:
                comes += 1
                assert min(session.frontier.values()) < each.brought_by <= max(frontier.values())
    assert comes and waits


def test_a_pod_comes_to_the_scheduler_by_its_creation(session: Session) -> None:
    at(session, 'controller == "default-scheduler"')
    for each in session.queue():
        if each.brought_by is not None:
            event = session.incident.log.event(each.brought_by)
            assert event is not None and str(event.key) == f"pods/{each.key}"


def test_changes_are_what_the_log_has(session: Session) -> None:
    at(session, 'controller == "replicaset" && effects.exists(e, e.kind == "Create" && e.resource == "pods")')
    created = [
        event for event, _ in session.changes() if event.op.name == "ADDED" and event.key.resource == "pods"
    ]
    assert len(created) == 3
    assert {event.cause.decision_id for event in created} == {session.decision.id}


def test_causes_end_at_a_person(session: Session) -> None:
    at(session, 'controller == "default-scheduler"')
    told = session.why()
    assert told[0].startswith("key       default/web-")
    assert told[-1].endswith("kubernetes-admin through kcp created deployment default/web")


def test_a_condition_that_never_holds_leads_to_the_end(session: Session) -> None:
    session.breaks.append(Break('key == "no/body"'))
    assert not session.run_to_break()
    assert session.at == len(session.ids) - 1


def test_whoever_listens_hears_of_every_move(session: Session) -> None:
    seen: list[int] = []
    session.on_move(lambda moved: seen.append(moved.at))
    session.step(3)
    session.step(-1)
    session.go("first")
    session.go("first")
    assert seen == [3, 2, 0]


class TestWords:
    @pytest.fixture
    def terminal(self, session: Session) -> Terminal:
        return Terminal(session, lambda table: str(table.rows))

    def test_every_word_answers_where_it_needs_nothing(self, terminal: Terminal) -> None:
        terminal.do("step 20")
        for word in WORDS:
            if word.name in ("quit", "sql", "goto", "next", "previous"):
                continue
            assert terminal.do(word.name), word.name

    def test_help_names_every_word(self, terminal: Terminal) -> None:
        lines = terminal.do("help").splitlines()
        assert len(lines) == len(WORDS)

    def test_moves(self, terminal: Terminal) -> None:
        first = terminal.do("goto first")
        second = terminal.do("s")
        assert terminal.do("b") == first != second
        assert terminal.do("back") == f"this is the first decision\n{first}"
        assert terminal.do('break kinds.exists(k, k == "Bind")').startswith("break 1")
        assert "default-scheduler" in terminal.do("n")
        assert terminal.do("p").startswith("no break before here")
        assert terminal.do("clear") == "no break is left"
        assert terminal.do("continue").startswith("the end of the log\n")

    def test_one_object_of_a_cache(self, terminal: Terminal) -> None:
        at(terminal.session, 'controller == "replicaset" && kinds.exists(k, k == "Create")')
        key = terminal.session.decision.key
        assert terminal.do("cache replicasets") == key
        assert f"name: {key.partition('/')[2]}" in terminal.do(f"cache replicasets {key}")

    def test_sql_shows_the_moment(self, terminal: Terminal) -> None:
        at(terminal.session, 'controller == "default-scheduler"')
        assert terminal.do("sql SELECT count(*) FROM pods WHERE node IS NOT NULL;") == "[(0,)]"

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("jump", "help lists"), ("step x", "no number"), ("next", "no break"), ("break foo == 1", "'foo'"),
            ("cache nothing", "no cache"), ("cache pods no/body", "not in this cache"), ("goto", "say where"), ("sql", "say what"),
        ],
    )  # fmt: skip
    def test_mistakes_are_told_and_move_nothing(self, terminal: Terminal, line: str, reason: str) -> None:
        at(terminal.session, 'controller == "replicaset"')
        terminal.session.breaks.clear()
        before = terminal.session.at
        with pytest.raises(ValueError, match=reason):
            terminal.do(line)
        assert terminal.session.at == before

    def test_quit_leaves(self, terminal: Terminal) -> None:
        with pytest.raises(Quit):
            terminal.do("quit")
