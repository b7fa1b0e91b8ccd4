"""A session by words: one line in, some lines out. For a person at a prompt and for a pipe alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import yaml

from kcp.base.clock import moment
from kcp.base.values import frozen
from kcp.replay import compare
from kcp.replay.breaking import flat
from kcp.replay.session import Break, Session
from kcp.store.protocol import Decision
from kcp.store.query import ResultTable

Json = dict[str, Any]
MAX_LISTED = 50
MAX_FIELDS = 12
Render = Callable[[ResultTable], str]


class Quit(Exception):
    """Raised by the word that ends the session."""


@frozen
class Word:
    """A command. `does` gets what follows it on the line."""

    name: str
    arguments: str
    help: str
    does: Callable[[Terminal, str], str]
    short: str = ""


@frozen
class Terminal:
    """`render` turns rows of a query into text."""

    session: Session
    render: Render

    @property
    def prompt(self) -> str:
        return f"({self.session.at + 1}/{len(self.session.ids)} rv {self.session.rv}) "

    def do(self, line: str) -> str:
        """Raises ValueError, or StoreError of a query, with a text for people; and Quit."""
        name, _, rest = line.strip().partition(" ")
        if not name:
            return ""
        word = _BY_NAME.get(name)
        if word is None:
            raise ValueError(f"there is no {name!r} here; help lists what there is")
        return word.does(self, rest.strip())

    # --- moving ---

    def step(self, rest: str) -> str:
        return self._moved(self.session.step(_count(rest)), "this is the last decision")

    def back(self, rest: str) -> str:
        return self._moved(self.session.step(-_count(rest)), "this is the first decision")

    def next(self, rest: str) -> str:
        del rest
        return self._to_break(backwards=False)

    def previous(self, rest: str) -> str:
        del rest
        return self._to_break(backwards=True)

    def _to_break(self, backwards: bool) -> str:
        if not self.session.breaks:
            raise ValueError("there is no break; set one with: break CONDITION")
        end = "no break before here" if backwards else "no break after here"
        return self._moved(self.session.run_to_break(backwards), end)

    def go_on(self, rest: str) -> str:
        del rest
        return self._moved(self.session.run_to_break(), "the end of the log")

    def go(self, rest: str) -> str:
        if not rest:
            raise ValueError("say where to: goto DECISION, goto RV, goto TIME, goto first, goto last")
        self.session.go(rest)
        return self.line()

    def _moved(self, whole: bool, end: str) -> str:
        return self.line() if whole else f"{end}\n{self.line()}"

    def set_break(self, rest: str) -> str:
        if not rest:
            lines = [f"{number}  {each.text}" for number, each in enumerate(self.session.breaks, 1)]
            return "\n".join(lines) or "there is no break"
        self.session.breaks.append(Break(rest))
        return f"break {len(self.session.breaks)}: {rest}"

    def clear(self, rest: str) -> str:
        del rest
        self.session.breaks.clear()
        return "no break is left"

    # --- looking ---

    def line(self) -> str:
        return line(self.session.decision)

    def decision(self, rest: str) -> str:
        del rest
        session = self.session
        head = f"decision {session.decision.id} of {session.decision.controller}"
        body = compare.about(session.incident, session.decision, session.frontier)[:3]
        again = session.remake()
        made = (
            "cannot be made again: purged" if again.purged else "differs" if again.divergence else "identical"
        )
        return "\n".join([head, *(f"  {each}" for each in body), f"  again     {made}", *self._effects()])

    def effects(self, rest: str) -> str:
        del rest
        return "\n".join(self._effects())

    def _effects(self) -> Iterator[str]:
        for number, effect in enumerate(self.session.decision.effects, 1):
            yield f"  effect {number}  {told(effect)}"
            for part in flat(effect.get("effects", ())):
                yield f"            {told(part)}"

    def diff(self, rest: str) -> str:
        del rest
        lines: list[str] = []
        for event, fields in self.session.changes():
            lines.append(f"rv {event.rv} {event.op.name} {event.key}")
            lines += [f"  {field}" for field in fields[:MAX_FIELDS]]
            if len(fields) > MAX_FIELDS:
                lines.append(f"  … and {len(fields) - MAX_FIELDS} more fields")
        again = self.session.remake()
        if again.divergence is not None:
            lines += ["", compare.report(self.session.incident, again.divergence, again.code_changed)]
        return "\n".join(lines) or "it wrote nothing"

    def list(self, rest: str) -> str:
        count = _count(rest, 10)
        here = self.session.decision.id
        rows = self.session.nearby(before=count // 2, after=count - count // 2)
        return "\n".join(f"{'>' if row.id == here else ' '} {line(row)}" for row in rows)

    def cache(self, rest: str) -> str:
        resource, _, key = rest.partition(" ")
        if not resource:
            folds = self.session.caches()
            return "\n".join(f"{len(folds[name].indexer):6}  {name}" for name in sorted(folds))
        indexer = self.session.cache(resource)
        key = key.strip()
        if key:
            obj = indexer.get(key)
            if obj is None:
                raise ValueError(f"{key} is not in this cache")
            return yaml.safe_dump(obj, sort_keys=False, allow_unicode=True).rstrip()
        keys = indexer.keys()
        more = [f"… {len(keys)} in all"] if len(keys) > MAX_LISTED else []
        return "\n".join([*keys[:MAX_LISTED], *more]) or "it is empty"

    def queue(self, rest: str) -> str:
        del rest
        lines = [
            f"{each.key}  {each.trigger}, decision {each.decision}"
            + (f", comes with rv {each.brought_by}" if each.brought_by else "")
            for each in self.session.queue()
        ]
        return "\n".join(lines) or f"{self.session.decision.controller} decides nothing soon after this"

    def why(self, rest: str) -> str:
        del rest
        return "\n".join(self.session.why())

    def sql(self, rest: str) -> str:
        if not rest:
            raise ValueError("say what to ask: sql SELECT …")
        return self.render(self.session.sql(rest.rstrip(";")))

    def help(self, rest: str) -> str:
        del rest
        width = max(len(f"{word.name} {word.arguments}") for word in WORDS)
        return "\n".join(
            f"{word.short:2} {f'{word.name} {word.arguments}'.ljust(width)}  {word.help}".rstrip()
            for word in WORDS
        )

    def quit(self, rest: str) -> str:
        raise Quit(rest)


def _count(text: str, default: int = 1) -> int:
    if not text:
        return default
    if not text.isdecimal():
        raise ValueError(f"{text!r} is no number")
    return int(text)


def line(decision: Decision) -> str:
    """A decision in one line."""
    when = moment(decision.now_us).strftime("%H:%M:%S.%f")[:-3]
    kinds = ", ".join(_counted([effect["kind"] for effect in flat(decision.effects)]))
    return f"{decision.id}  {when}  {decision.controller}  {decision.key}  ({decision.trigger})  {kinds}"


def _counted(words: list[str]) -> list[str]:
    counts: dict[str, int] = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    return [word if count == 1 else f"{count} {word}" for word, count in counts.items() if word != "All"]


def told(effect: Json) -> str:
    """An effect and what became of it."""
    target = "/".join(str(effect[name]) for name in ("resource", "namespace", "name") if effect.get(name))
    what = " ".join(part for part in (effect["kind"], target or str(effect.get("node", ""))) if part)
    detail = effect.get("text") or (effect.get("args") or {}).get("message") or effect.get("reason") or ""
    became = effect.get("outcome", "")
    written = f" rv {effect['rv']}" if effect.get("rv") else ""
    return f"{what}{f': {detail}' if detail else ''}{f' → {became}{written}' if became else ''}"


WORDS = (
    Word("step", "[N]", "the next decision, or the Nth after this", Terminal.step, "s"),
    Word("back", "[N]", "the decision before this, or the Nth before", Terminal.back, "b"),
    Word("next", "", "the next decision at which a break holds", Terminal.next, "n"),
    Word("previous", "", "the one before", Terminal.previous, "p"),
    Word("continue", "", "run to the next break or the end", Terminal.go_on, "c"),
    Word("goto", "WHERE", "to a decision, a revision, a time, first or last", Terminal.go, "g"),
    Word(
        "break",
        "[CONDITION]",
        'stop where it holds: controller == "deployment" && key == "ns/x"',
        Terminal.set_break,
    ),
    Word("clear", "", "forget all breaks", Terminal.clear),
    Word("list", "[N]", "decisions around this one", Terminal.list, "l"),
    Word("decision", "", "this decision: what, when, on which state", Terminal.decision, "d"),
    Word("effects", "", "what it did, and what became of that", Terminal.effects, "e"),
    Word("diff", "", "the fields it changed; how it would differ now", Terminal.diff),
    Word("cache", "[RESOURCE [KEY]]", "what the controller had in its caches", Terminal.cache),
    Word("queue", "", "the keys that it decides about next", Terminal.queue, "q"),
    Word("why", "", "the chain of causes back to who asked for it", Terminal.why, "w"),
    Word("sql", "QUERY", "ask the log as of this moment", Terminal.sql),
    Word("help", "", "this", Terminal.help, "?"),
    Word("quit", "", "leave", Terminal.quit),
)
_BY_NAME = {name: word for word in WORDS for name in (word.name, word.short) if name} | {"exit": WORDS[-1]}
