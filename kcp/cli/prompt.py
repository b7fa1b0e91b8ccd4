"""The prompt of `kcp sql`: statements that end with `;`, completion, a history file, a few words that begin with a dot.

kcp> SELECT p.name, p.phase
...> FROM pods p WHERE p.node = 'n1';
kcp> .at 10m
kcp@812>
"""

from __future__ import annotations

import contextlib
import os
import re
import readline
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import click

from kcp.cli.tables import aligned, render
from kcp.store.protocol import StoreError
from kcp.store.query import ResultTable, Session

HISTORY = "~/.kcp_sql_history"
HISTORY_LINES = 1000

Open = Callable[["str | None"], Session]
"""A session as of a moment; None for now."""
Names = Mapping[str, tuple[str, ...]]

_TOKEN = re.compile(
    r"'(?:[^']|'')*(?:'|\Z)|\"(?:[^\"]|\"\")*(?:\"|\Z)|--[^\n]*|/\*.*?(?:\*/|\Z)|;|[^'\"\-/;]+|.", re.S
)
_DELIMITERS = " \t\n,;()=<>+-*/|'\""
_TABLE_OR_ALIAS = re.compile(r"\b(?:from|join)\s+(\w+)(?:\s+(?:as\s+)?(\w+))?", re.I)
_WANTS_TABLE = re.compile(r"\b(?:from|join)\s+\w*$", re.I)
KEYWORDS = (
    "SELECT", "FROM", "WHERE", "ORDER BY", "GROUP BY", "HAVING", "LIMIT", "JOIN", "LEFT JOIN", "USING", "AND", "OR", "NOT",
    "NULL", "DISTINCT", "COUNT(", "DESC", "BETWEEN", "LIKE", "CASE", "WHEN", "THEN", "ELSE", "END", "WITH", "EXPLAIN",
)  # fmt: skip


class Quit(Exception):
    """Raised by a word that ends the session."""


def split(text: str) -> tuple[list[str], str]:
    """(statements that have ended, what is still open). A `;` inside quotes or a comment ends nothing."""
    done: list[str] = []
    current = ""
    for found in _TOKEN.finditer(text):
        if found[0] == ";":
            done.append(current.strip())
            current = ""
        else:
            current += found[0]
    return [statement for statement in done if statement], current


def candidates(names: Names, statement: str, text: str) -> list[str]:
    """What the word `text` at the end of a statement may become: a column after a dot, a table after FROM, anything else."""
    if text.startswith((".", "\\")) and not statement.strip().removesuffix(text):
        return [word for word in WORDS if word.startswith(text)]
    before, dot, part = text.rpartition(".")
    used = _used(names, statement)
    if dot:
        known = used.get(before.lower(), before.lower())
        columns = names[known] if known in names else _columns(names, names)
        return [f"{before}.{column}" for column in _starting(columns, part)]
    if _WANTS_TABLE.search(statement):
        return _starting(names, text)
    columns = _columns(names, sorted(set(used.values())) or names)
    return [*_starting(columns, text), *_starting(names, text), *_keywords(text)]


def _columns(names: Names, tables: Iterable[str]) -> tuple[str, ...]:
    """Those of several tables, each once; of all while the statement has not said which."""
    return tuple(sorted({column for table in tables for column in names[table]}))


def _used(names: Names, statement: str) -> dict[str, str]:
    """Tables of the statement by the name under which they are known in it."""
    used = {}
    for table, alias in _TABLE_OR_ALIAS.findall(statement):
        if table.lower() in names:
            used[table.lower()] = table.lower()
            used[alias.lower()] = table.lower()
    used.pop("", None)
    return used


def _starting(words: Iterable[str], text: str) -> list[str]:
    return [word for word in words if word.lower().startswith(text.lower())]


def _keywords(text: str) -> list[str]:
    if not text:
        return []
    found = [word for word in KEYWORDS if word.startswith(text.upper())]
    return [word.lower() for word in found] if text.islower() else found


class Prompt:
    """One session at a time; `.at` opens another one. Owned by the command, which closes it."""

    def __init__(self, open_session: Open, at: str | None, form: str) -> None:
        self._open = open_session
        self._form = form
        self._past = at is not None
        self._session = open_session(at)
        self._names = self._session.names()
        self.pending = ""

    @property
    def text(self) -> str:
        """What to print before a line."""
        ready = f"kcp@{self._session.rv}> " if self._past else "kcp> "
        return "...> ".rjust(len(ready)) if self.pending.strip() else ready

    def feed(self, line: str) -> Iterator[str]:
        """One more line; gives what is to be printed. Raises Quit, and StoreError after which the prompt goes on."""
        if not self.pending.strip() and line.lstrip().startswith((".", "\\")):
            self.pending = ""
            word, _, rest = line.strip().rstrip(";").partition(" ")
            yield self._word(word, rest.strip())
            return
        statements, self.pending = split(f"{self.pending}{line}\n")
        for statement in statements:
            yield self.run(statement)

    def run(self, statement: str) -> str:
        return render(self._session.run(statement), self._form)

    def _word(self, word: str, rest: str) -> str:
        if word not in WORDS:
            raise StoreError(f"unknown word {word}: .help lists them")
        return WORDS[word][1](self, rest)

    def quit(self, rest: str) -> str:
        del rest
        raise Quit

    def help(self, rest: str) -> str:
        del rest
        words = aligned(("word", "what it does"), [[word, text] for word, (text, _) in WORDS.items()])
        return f"A statement ends with ; and may have several lines. Tab completes.\n\n{words}"

    def tables(self, rest: str) -> str:
        if rest:
            return self._columns(rest)
        rows = [[name, ", ".join(columns)] for name, columns in self._names.items()]
        return render(ResultTable(("name", "columns"), [tuple(row) for row in rows]), self._form)

    def _columns(self, table: str) -> str:
        if table not in self._names:
            raise StoreError(f"no such table: {table}")
        return render(ResultTable(("column",), [(name,) for name in self._names[table]]), self._form)

    def at(self, rest: str) -> str:
        past = rest not in ("", "now")
        session = self._open(rest if past else None)
        self._session.close()
        self._session, self._past = session, past
        return f"as of revision {session.rv}" if past else f"as of now, revision {session.rv}"

    def complete(self, text: str, state: int) -> str | None:
        """For readline."""
        before = readline.get_line_buffer()[: readline.get_endidx()]
        found = candidates(self._names, self.pending + before, text)
        return found[state] if state < len(found) else None

    def close(self) -> None:
        self._session.close()


WORDS: dict[str, tuple[str, Callable[[Prompt, str], str]]] = {
    ".help": ("this list", Prompt.help),
    ".tables": ("tables and views with their columns; .tables NAME: the columns of one", Prompt.tables),
    ".at": ("show the state as of a revision, a time, or a span back; .at now: as it is", Prompt.at),
    ".quit": ("leave, as Ctrl-D does", Prompt.quit),
    "\\?": ("as .help", Prompt.help),
    "\\d": ("as .tables", Prompt.tables),
    "\\q": ("as .quit", Prompt.quit),
}


def interact(prompt: Prompt) -> None:
    """Ask until Ctrl-D. Ctrl-C forgets what was typed so far."""
    readline.set_completer(prompt.complete)
    readline.set_completer_delims(_DELIMITERS)
    readline.parse_and_bind("tab: complete")
    with _remembered(Path(HISTORY).expanduser()):
        while True:
            try:
                _answer(prompt, input(prompt.text))
            except KeyboardInterrupt:
                prompt.pending = ""
                click.echo()
            except (EOFError, Quit) as end:
                if isinstance(end, EOFError):
                    click.echo()
                return


def _answer(prompt: Prompt, line: str) -> None:
    try:
        for shown in prompt.feed(line):
            click.echo(shown)
    except (StoreError, ValueError) as error:
        click.echo(f"Error: {error}", err=True)


@contextlib.contextmanager
def _remembered(file: Path) -> Iterator[None]:
    """Lines of earlier sessions; a file that cannot be read or written is done without."""
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    readline.set_history_length(HISTORY_LINES)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            readline.write_history_file(file)


def run_script(prompt: Prompt, text: str) -> None:
    """Statements from a pipe or a file; the last one needs no `;`. Raises StoreError at the first that fails."""
    with contextlib.suppress(Quit):
        for line in text.splitlines():
            for shown in prompt.feed(line):
                click.echo(shown)
        if prompt.pending.strip():
            click.echo(prompt.run(prompt.pending.strip()))
