"""`kcp history`: every change of one object, who made it, and what it changed."""

from __future__ import annotations

import click
import orjson
import sqlalchemy as sa

from kcp.apis.catalog import ALPHA_VERSIONS, build_catalog
from kcp.base.clock import moment
from kcp.cli.options import log_options, one_line_errors
from kcp.store import history
from kcp.store.history import Version
from kcp.store.redaction import is_untold

MAX_FIELDS = 8
"""How many changed fields of one version are listed without --all-fields."""


@click.command("history")
@click.argument("kind")
@click.argument("name")
@click.option("--namespace", "-n", default="default", show_default=True, help="Namespace of the object.")
@click.option("--limit", type=int, help="Only the newest versions.")
@click.option("--all-fields", is_flag=True, help="List every changed field, managedFields too.")
@click.option("--format", "form", type=click.Choice(("text", "json")), default="text", show_default=True)
@log_options
def command(
    kind: str, name: str, namespace: str, limit: int | None, all_fields: bool, form: str, source: str
) -> None:
    """Print who changed what when, for the object NAME of a KIND (deployment, pods, deploy, deployments.apps …)."""
    with one_line_errors(), history.reader(source) as connection:
        resource, namespaced = resolve(connection, kind)
        found = history.versions(
            connection, resource, namespace if namespaced else "", name, limit=limit, noise=all_fields
        )
        begins = history.begins_at(connection)
    before = f"history before revision {begins} was dropped"
    if not found:
        more = f": {before}" if begins else ""
        raise click.ClickException(f'{resource} "{name}" has no history here{more}')
    if form == "json":
        click.echo(orjson.dumps([_document(v) for v in found], option=orjson.OPT_INDENT_2).decode())
        return
    if found[0].rv <= begins:
        click.echo(f"({before})")
    for version in found:
        click.echo(_text(version, all_fields))


def resolve(connection: sa.Connection, text: str) -> tuple[str, bool]:
    """(group resource, namespaced) of what a person wrote, short names included. Raises ClickException."""
    kinds = [row for _, row in history.find_kinds(connection, text)]
    if not kinds:
        for kind in build_catalog(ALPHA_VERSIONS).kinds():
            if text.lower() in (*kind.short_names, kind.singular) and kind.stored:
                kinds = [row for _, row in history.find_kinds(connection, kind.resource)]
                break
    if not kinds:
        raise click.ClickException(f"the log knows no kind {text!r}")
    return kinds[0].resource, kinds[0].namespaced


def _text(version: Version, all_fields: bool) -> str:
    when = moment(version.ts_us).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    actor = version.username or "?"
    through = f" through {version.manager}" if version.manager else ""
    because = f", decision {version.decision_id}" if version.decision_id else ""
    purged = _why_unknown(version) if version.purged else ""
    lines = [f"rv {version.rv}  {when}  {version.verb} by {actor}{through}{because}{purged}"]
    if version.verb == "changed":
        shown = version.changes if all_fields else version.changes[:MAX_FIELDS]
        lines += [f"    {change}" for change in shown]
        if len(shown) < len(version.changes):
            lines.append(f"    … and {len(version.changes) - len(shown)} more fields")
    return "\n".join(lines)


def _why_unknown(version: Version) -> str:
    if is_untold(version.object):
        return " (untold: the source of this import has no body of it)"
    return " (purged: what it said is gone)"


def _document(version: Version) -> dict[str, object]:
    return {
        "rv": version.rv,
        "at": moment(version.ts_us).isoformat().replace("+00:00", "Z"),
        "verb": version.verb,
        "username": version.username,
        "manager": version.manager,
        "userAgent": version.user_agent,
        "requestID": version.request_id,
        "decision": version.decision_id,
        "uid": version.uid,
        "changes": [str(change) for change in version.changes],
        **({("untold" if is_untold(version.object) else "purged"): True} if version.purged else {}),
    }
