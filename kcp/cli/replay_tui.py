"""The screen of `kcp replay --tui`: where one stands in time, the decisions around, and what each of them saw and did.

┌ time ────────────────▁▂█▃▁───────────────┐
│ decisions        │ Decision Changes Cache Queue Why │
│ > deployment … │ …                              │
└ keys ───────────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import yaml
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import DataTable, Footer, Input, OptionList, Sparkline, Static, TabbedContent, TabPane
from textual.widgets.option_list import Option

from kcp.base.clock import moment
from kcp.replay.breaking import flat
from kcp.replay.session import Session
from kcp.replay.terminal import Terminal
from kcp.store.protocol import Decision, StoreError

WIDEST_NAME = 14
"""Of a controller in the list: the key beside it has to be seen."""
NEARBY = 100
"""Decisions listed before and after the present one."""
BUCKETS = 60
TABS = ("decision", "changes", "cache", "queue", "why")


class ReplayApp(App[None]):
    """Everything is done through the session; the screen only shows it."""

    TITLE = "kcp replay"
    CSS = """
    #where { height: 1; background: $panel; padding: 0 1; }
    #timeline { height: 2; margin: 0 1; }
    #marker { height: 1; padding: 0 1; color: $accent; }
    #decisions { width: 46%; border-right: solid $panel; }
    #ask { dock: bottom; display: none; }
    TabPane { padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "step(1)", "step"),
        Binding("b", "step(-1)", "back"),
        Binding("n", "run(False)", "next break"),
        Binding("p", "run(True)", "previous"),
        Binding("slash", "ask('break')", "set break", key_display="/"),
        Binding("g", "ask('goto')", "go to"),
        Binding("tab", "turn", "next tab", priority=True),
        Binding("escape", "leave", "out", show=False),
        Binding("q", "quit", "quit"),
    ]

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self._terminal = Terminal(session, lambda table: "")
        self._asking = ""
        self._rows: dict[int, int] = {}
        self._path: tuple[str, ...] = ()
        """What is open on the tab of caches: nothing, a resource, or a resource and a key."""

    def compose(self) -> ComposeResult:
        yield Static(id="where")
        yield Sparkline(self._density(), id="timeline")
        yield Static(id="marker")
        with Horizontal():
            yield DataTable(id="decisions", cursor_type="row", zebra_stripes=True)
            with TabbedContent(initial="decision"):
                for name in TABS:
                    with TabPane(name.capitalize(), id=name):
                        if name == "cache":
                            yield OptionList(id="choices")
                        with VerticalScroll(can_focus=False):
                            yield Static(id=f"{name}-text", markup=False)
        yield Input(id="ask")
        yield Footer()

    def on_mount(self) -> None:
        table = self._table
        table.add_columns("time", "controller", "key", "did")
        table.focus()
        self._list()
        self._show()

    # --- what is shown ---

    @property
    def _table(self) -> DataTable[str]:
        table: DataTable[str] = self.query_one("#decisions", DataTable)
        return table

    def _density(self) -> list[float]:
        """Decisions per stretch of time, over the whole log."""
        ids, session = self.session.ids, self.session
        first, last = (session.incident.decision(number)[0].now_us for number in (ids[0], ids[-1]))
        edges = [
            session.find(moment(first + (last - first) * at // BUCKETS).isoformat()) for at in range(BUCKETS)
        ]
        return [float(b - a) for a, b in zip(edges, [*edges[1:], len(ids)], strict=True)]

    def _list(self) -> None:
        """The decisions around the present one."""
        table = self._table
        with self.prevent(DataTable.RowHighlighted):
            table.clear()
            rows = self.session.nearby(NEARBY, NEARBY)
            self._rows = {decision.id: at for at, decision in enumerate(rows)}
            for decision in rows:
                table.add_row(*_cells(decision), key=str(decision.id))
            table.move_cursor(row=self._rows[self.session.decision.id])

    def _show(self) -> None:
        session = self.session
        decision = session.decision
        when = moment(decision.now_us).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        breaks = f"   breaks: {'; '.join(each.text for each in session.breaks)}" if session.breaks else ""
        where = f"{when}   revision {session.rv}   decision {session.at + 1} of {len(session.ids)}{breaks}"
        self.query_one("#where", Static).update(Text(where))
        width = max(1, self.size.width - 3)
        share = session.at / max(1, len(session.ids) - 1)
        self.query_one("#marker", Static).update(Text(" " * round(share * (width - 1)) + "▲"))
        at = self._rows.get(decision.id)
        if at is None or at in (0, len(self._rows) - 1):
            self._list()
        elif self._table.cursor_row != at:
            with self.prevent(DataTable.RowHighlighted):
                self._table.move_cursor(row=at)
        self._fill()

    def _fill(self) -> None:
        """The tab that is open."""
        active = self.query_one(TabbedContent).active or "decision"
        if active == "cache":
            self._fill_cache()
            return
        does: dict[str, Callable[[str], str]] = {
            "decision": self._terminal.decision, "changes": self._terminal.diff, "queue": self._terminal.queue,
            "why": self._terminal.why,
        }  # fmt: skip
        self.query_one(f"#{active}-text", Static).update(Text(does[active]("")))

    def _fill_cache(self) -> None:
        choices, text = self.query_one("#choices", OptionList), self.query_one("#cache-text", Static)
        folds = self.session.caches()
        if self._path and self._path[0] not in folds:
            self._path = ()
        choices.clear_options()
        if len(self._path) == 2:
            obj = folds[self._path[0]].indexer.get(self._path[1])
            shown = (
                "it is not here now"
                if obj is None
                else yaml.safe_dump(obj, sort_keys=False, allow_unicode=True)
            )
            text.update(Text(f"{self._path[0]} {self._path[1]}   (escape: back)\n\n{shown}"))
            choices.display = False
            return
        choices.display = True
        if self._path:
            keys = folds[self._path[0]].indexer.keys()
            choices.add_options([Option(Text(key), id=key) for key in keys])
            text.update(Text(f"{len(keys)} {self._path[0]}   (enter: open, escape: back)"))
        else:
            names = sorted(folds)
            choices.add_options([Option(Text(f"{len(folds[n].indexer):6}  {n}"), id=n) for n in names])
            text.update(Text(f"what {self.session.decision.controller} had in its caches   (enter: open)"))

    # --- what is done ---

    def action_step(self, count: int) -> None:
        self.session.step(count)
        self._show()

    def action_run(self, backwards: bool) -> None:
        if not self.session.breaks:
            self.notify("there is no break; / sets one")
            return
        if not self.session.run_to_break(backwards):
            self.notify("no break on that side")
        self._show()

    def action_turn(self) -> None:
        tabs = self.query_one(TabbedContent)
        tabs.active = TABS[(TABS.index(tabs.active or TABS[0]) + 1) % len(TABS)]

    def action_ask(self, what: str) -> None:
        self._asking = what
        ask = self.query_one("#ask", Input)
        ask.placeholder = {
            "break": 'stop where: controller == "deployment" && key == "ns/x"', "goto": "revision, time or decision",
        }[what]  # fmt: skip
        ask.value = ""
        ask.display = True
        ask.focus()

    def action_leave(self) -> None:
        ask = self.query_one("#ask", Input)
        if ask.display:
            ask.display = False
            self._table.focus()
        elif self._path:
            self._path = self._path[:-1]
            self._fill()
            self._focus_choices()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        text = event.value.strip()
        self.action_leave()
        if not text:
            return
        try:
            if self._asking == "break":
                self._terminal.set_break(text)
                self.session.run_to_break()
            else:
                self.session.go(text)
        except (ValueError, StoreError) as error:
            self.notify(str(error), severity="error")
        self._show()

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        number = event.row_key.value
        if number is not None and int(number) != self.session.decision.id:
            self.session.go(number)
            self._show()

    def on_tabbed_content_tab_activated(self, event: TabbedContent.TabActivated) -> None:
        del event
        self._fill()
        self._focus_choices()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        if event.option_id is not None:
            self._path = (*self._path, event.option_id)
            self._fill()
            self._focus_choices()

    def _focus_choices(self) -> None:
        """The arrow keys belong to the list of the cache while it is open."""
        choices = self.query_one("#choices", OptionList)
        if self.query_one(TabbedContent).active == "cache" and choices.display:
            choices.focus()
            choices.highlighted = 0 if choices.option_count else None
        else:
            self._table.focus()


def _cells(decision: Decision) -> tuple[str, str, str, str]:
    when = moment(decision.now_us).strftime("%H:%M:%S.%f")[:-3]
    kinds = list(
        dict.fromkeys(effect["kind"] for effect in flat(decision.effects) if effect["kind"] != "All")
    )
    controller = decision.controller.removesuffix("-controller")
    if len(controller) > WIDEST_NAME:
        controller = controller[: WIDEST_NAME - 1] + "…"
    return when, controller, decision.key, ", ".join(kinds)
