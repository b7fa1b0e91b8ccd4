"""Writes the pages of docs/reference that come from code. Run by hand; a test tells when a page is stale.

python tools/build_reference.py
"""

from __future__ import annotations

import inspect
import sqlite3
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from kcp.apis.catalog import ALPHA_VERSIONS, build_catalog
from kcp.base.settings import rows as setting_rows
from kcp.cli.main import COMMANDS, kcp
from kcp.controllers.table import CONTROLLERS
from kcp.controlplane.settings import DaemonSettings
from kcp.store import schema, views

DIRECTORY = Path(__file__).resolve().parents[1] / "docs" / "reference"
MADE = "<!-- Made by tools/build_reference.py; change the code, not this page. -->"

VIEW_TEXTS = {
    "history": "Every change of every object, oldest first: when, who, and the whole object afterwards.",
    "state": "Every live object; with `--at` the objects of that moment.",
    "live": "The same as `state`.",
    "decisions": "What controllers decided: what they saw (`frontier`), when, and what they did (`effects`).",
    "pod_history": "Every version of every Pod with its telling fields.",
}
COLUMN_TEXTS = {
    "rv": "the revision, which is the resourceVersion of that version of the object",
    "prev_rv": "the revision of the version before; null for a new object",
    "at": "the time in UTC, as text",
    "ts_us": "the time in microseconds since 1970",
    "op": "ADDED, MODIFIED or DELETED",
    "kind": "the kind",
    "grp": "the API group; empty for the core group",
    "ns": "the namespace; empty for cluster-scoped kinds",
    "name": "the name",
    "uid": "the uid: a deleted and re-created object has another",
    "username": "who made the change",
    "manager": "the field manager: the tool or controller",
    "user_agent": "the client program",
    "decision_id": "the decision that made the change; null for people",
    "request_id": "the audit ID of the request",
    "object": "the whole object as JSON: `object->>'$.spec.nodeName'`",
    "oid": "the number of the object in the log",
    "plural": "the resource",
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)


def page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", MADE, *parts]) + "\n"


def commands() -> str:
    parts = []
    for name, text in COMMANDS.items():
        context = click.Context(kcp, info_name="kcp")
        command = kcp.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=f"kcp {name}", max_content_width=100)
        usage = command.get_usage(inner).removeprefix("Usage: ")
        body = inspect.cleandoc(command.help or text).replace("\b\n", "")
        records = [record for p in command.params if (record := p.get_help_record(inner)) and record[1]]
        rows = [(f"`{left}`", " ".join(right.split())) for left, right in records]
        options = table(("option", "meaning"), rows)
        parts.append(f"## kcp {name}\n\n    {usage}\n\n{body}" + (f"\n\n{options}" if rows else ""))
    return page("Commands", "What `kcp COMMAND --help` says.", *parts)


def settings() -> str:
    rows = [
        (
            f"`{row.name}`",
            f"`{row.environment}`",
            row.type,
            f"`{row.default}`" if row.default else "",
            row.help,
        )
        for row in setting_rows(DaemonSettings)
    ]
    text = (
        "A flag of `kcp up` beats the environment, the environment beats the file `kcp.toml` in the data directory.\n"
        "In the file the names are keys: `nodes = 3`."
    )
    return page(
        "Settings of the daemon", text, table(("name", "environment", "type", "default", "meaning"), rows)
    )


def view_columns() -> dict[str, list[str]]:
    """The views, and the table of decisions, of an empty log with their columns."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "kcp.db"
        connection = sqlite3.connect(path)
        try:
            schema.upgrade(connection, path)
            names = [name for name, _ in views.persistent()] + ["decisions"]
            return {
                name: [row[1] for row in connection.execute(f'PRAGMA table_info("{name}")')] for name in names
            }
        finally:
            connection.close()


def views_page() -> str:
    parts = [
        "`kcp sql` reads them, and so does any SQLite client. They show the state of now; `kcp sql --at` shows them as they\n"
        "were. JSON is taken apart with `->` and `->>`: `object->>'$.spec.replicas'`."
    ]
    for name, columns in view_columns().items():
        text = VIEW_TEXTS.get(name) or _text_of(name)
        known = [(f"`{column}`", COLUMN_TEXTS[column]) for column in columns if column in COLUMN_TEXTS]
        own = [f"`{column}`" for column in columns if column not in COLUMN_TEXTS]
        if name in ("history", "state"):
            parts.append(f"## {name}\n\n{text}\n\n{table(('column', 'meaning'), known)}")
            continue
        shared = [f"`{column}`" for column in columns if column in COLUMN_TEXTS]
        lines = [f"Its own columns: {', '.join(own)}."] if own else []
        lines += [f"As in `history`: {', '.join(shared)}."] if shared else []
        parts.append("\n\n".join([f"## {name}", text, *lines]))
    return page("Views", *parts)


def _text_of(name: str) -> str:
    for view in views.KIND_VIEWS:
        if name == view.name:
            return f"Every live {view.kind}."
        if name == view.history:
            return f"Every version of every {view.kind}."
    raise KeyError(f"{name} needs a text in tools/build_reference.py")


def kinds() -> str:
    rows = [
        (
            f"{kind.group}/{kind.version}" if kind.group else kind.version,
            kind.kind,
            f"`{kind.plural}`",
            ", ".join(f"`{name}`" for name in kind.short_names),
            "namespace" if kind.namespaced else "cluster",
            " ".join(f"`{sub.name}`" for sub in kind.subresources),
        )
        for kind in build_catalog(ALPHA_VERSIONS).kinds()
    ]
    head = ("version", "kind", "resource", "short", "scope", "subresources")
    text = (
        "Every kind that is served, in the order of discovery. Alpha versions are served with "
        "`--runtime-config`, or when the scheduler's configuration needs them."
    )
    return page("Kinds", text, table(head, rows))


def controllers() -> str:
    rows = [(f"`{c.name}`", f"`{c.username}`") for c in CONTROLLERS]
    text = "Each controller has an identity of its own; `kcp history` and the column `username` name it."
    return page("Controllers", text, table(("name", "identity"), rows))


def pages() -> dict[str, str]:
    return {
        "commands.md": commands(),
        "settings.md": settings(),
        "views.md": views_page(),
        "kinds.md": kinds(),
        "controllers.md": controllers(),
    }


def main() -> None:
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (DIRECTORY / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
