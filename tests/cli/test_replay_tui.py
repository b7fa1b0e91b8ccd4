"""The screen of a replay, driven by its keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("textual")

from textual.widgets import DataTable, Input, OptionList, Static, TabbedContent

from kcp.cli.replay_tui import ReplayApp
from kcp.replay.incident import Incident
from kcp.replay.session import Session
from tests.replay import stories

SIZE = (140, 40)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stories.rollout(tmp_path_factory.mktemp("tui") / "log.kcp")


@pytest.fixture
def session(log: Path) -> Iterator[Session]:
    with Incident.open(log) as incident:
        yield Session(incident)


def text(app: ReplayApp, selector: str) -> str:
    return str(app.query_one(selector, Static).render())


async def test_steps_forward_and_back_and_the_list_follows(session: Session) -> None:
    app = ReplayApp(session)
    async with app.run_test(size=SIZE) as pilot:
        assert f"decision 1 of {len(session.ids)}" in text(app, "#where")
        await pilot.press("s", "s", "s", "b")
        await pilot.pause()
        assert session.at == 2
        assert f"decision 3 of {len(session.ids)}" in text(app, "#where")
        assert app.query_one(DataTable).cursor_row == 2
        assert f"decision {session.decision.id} of" in text(app, "#decision-text")
        await pilot.press("down")
        await pilot.pause()
        assert session.at == 3


async def test_a_break_is_set_and_run_to(session: Session) -> None:
    app = ReplayApp(session)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("slash")
        app.query_one("#ask", Input).value = 'controller == "replicaset" && kinds.exists(k, k == "Create")'
        await pilot.press("enter")
        await pilot.pause()
        first = session.decision
        assert first.controller == "replicaset-controller"
        await pilot.press("n")
        await pilot.pause()
        assert session.decision.id > first.id
        await pilot.press("p")
        await pilot.pause()
        assert session.decision.id == first.id
        assert "identical" in text(app, "#decision-text")


async def test_a_wrong_condition_is_said_and_changes_nothing(session: Session) -> None:
    app = ReplayApp(session)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("slash")
        app.query_one("#ask", Input).value = "nonsense =="
        await pilot.press("enter")
        await pilot.pause()
        assert (session.at, session.breaks) == (0, [])
        assert [note for note in app._notifications if "is no condition" in note.message]


async def test_tabs_show_changes_caches_queue_and_causes(session: Session) -> None:
    session.go(str(next(n for n in session.ids if _creates_pods(session, n))))
    app = ReplayApp(session)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("tab")
        await pilot.pause()
        assert "ADDED pods/default/web-" in text(app, "#changes-text")
        await pilot.press("tab")
        await pilot.pause()
        choices = app.query_one("#choices", OptionList)
        names = [option.id for option in choices.options]
        assert names == ["pods", "replicasets.apps"]
        await pilot.press("down", "enter")
        await pilot.pause()
        assert [option.id for option in choices.options] == [session.decision.key]
        await pilot.press("enter")
        await pilot.pause()
        assert "kind: ReplicaSet" in text(app, "#cache-text")
        await pilot.press("escape", "escape")
        await pilot.pause()
        assert [option.id for option in choices.options] == names
        await pilot.press("tab", "tab")
        await pilot.pause()
        assert app.query_one(TabbedContent).active == "why"
        assert "kubernetes-admin through kcp created deployment default/web" in text(app, "#why-text")


def _creates_pods(session: Session, number: int) -> bool:
    decision, _ = session.incident.decision(number)
    return decision.controller == "replicaset-controller" and '"kind": "Create"' in str(
        decision.effects
    ).replace("'", '"')


async def test_the_keys_are_on_the_screen(session: Session) -> None:
    app = ReplayApp(session)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        shown = {
            binding.binding.description for binding in app.active_bindings.values() if binding.binding.show
        }
        assert {"step", "back", "next break", "set break", "go to", "next tab", "quit"} <= shown
