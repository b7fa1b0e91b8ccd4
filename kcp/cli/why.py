"""`kcp why`: the cause chain of an object's present or past state, back to whoever asked for it."""

from __future__ import annotations

import click
import orjson
import sqlalchemy as sa

from kcp.base.clock import SystemClock, microseconds, moment
from kcp.cli.history import resolve
from kcp.cli.options import kind_and_name, log_options, one_line_errors
from kcp.replay.causes import Link, Story, why
from kcp.store import history
from kcp.store.query import parse_at

Json = dict[str, object]


@click.command("why")
@click.argument("target", metavar="KIND/NAME | KIND NAME", nargs=-1, required=True)
@click.option("--namespace", "-n", default="default", show_default=True, help="Namespace of the object.")
@click.option("--at", metavar="RV|TIME", help="As of a revision, a time, or a span back such as 10m.")
@click.option("--format", "form", type=click.Choice(("text", "json")), default="text", show_default=True)
@log_options
def command(target: tuple[str, ...], namespace: str, at: str | None, form: str, source: str) -> None:
    """Tell why an object is as it is, or why it is gone: each step back to a person's request, newest first."""
    kind, name = kind_and_name(target)
    with one_line_errors(), history.reader(source) as connection:
        resource, namespaced = resolve(connection, kind)
        last = None if at is None else _revision(connection, at)
        story = why(connection, resource, namespace if namespaced else "", name, at=last)
    if form == "json":
        click.echo(orjson.dumps(_document(story), option=orjson.OPT_INDENT_2).decode())
        return
    click.echo(story.state)
    for link in story.links:
        click.echo(_line(link))
    if story.missing:
        click.echo(story.missing)


def _revision(connection: sa.Connection, at: str) -> int:
    when = parse_at(at, SystemClock())
    return when if isinstance(when, int) else history.revision_at(connection, microseconds(when))


def _line(link: Link) -> str:
    when = moment(link.ts_us).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    decision = f"  [decision {link.decision}]" if link.decision else ""
    return f"  rv {link.rv:<8}{when}  {link.who} {link.what}{decision}"


def _document(story: Story) -> Json:
    subject = story.subject
    return {
        "kind": subject.kind, "resource": subject.resource, "namespace": subject.namespace, "name": subject.name,
        "uid": subject.uid, "state": story.state, "missing": story.missing, "links": [_link(link) for link in story.links],
    }  # fmt: skip


def _link(link: Link) -> Json:
    subject = link.subject
    return {
        "rv": link.rv, "at": moment(link.ts_us).isoformat().replace("+00:00", "Z"), "who": link.who, "username": link.user,
        "what": link.what, "decision": link.decision or None,
        "resource": subject.resource, "namespace": subject.namespace, "name": subject.name,
    }  # fmt: skip
