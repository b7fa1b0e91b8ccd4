"""`kcp purge`: what the past versions of an object said goes."""

from __future__ import annotations

import os
import pwd

import click

from kcp.base.clock import SystemClock
from kcp.cli.history import resolve
from kcp.cli.options import log_options, one_line_errors
from kcp.store import history, purge
from kcp.store.open import is_postgres
from kcp.store.protocol import Key


@click.command("purge")
@click.argument("kind")
@click.argument("name")
@click.option("--namespace", "-n", default="default", show_default=True, help="Namespace of the object.")
@click.option("--reason", required=True, metavar="TEXT", help="Why; it is kept in the log.")
@click.option(
    "--history-only", is_flag=True, help="The object lives: keep its newest version, purge the rest."
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@log_options
def command(
    kind: str, name: str, namespace: str, reason: str, history_only: bool, yes: bool, source: str
) -> None:
    """Remove what the past versions of the object NAME of a KIND said, for ever; for a secret that leaked, or by law.

    That there were versions, when and by whom stays; so does who purged them, when and why. On SQLite kcp must be stopped;
    on PostgreSQL daemons wait for a moment. Backups and exports made before still have what was purged.
    """
    with one_line_errors():
        with history.reader(source) as connection:
            resource, namespaced = resolve(connection, kind)
        key = Key(resource, namespace if namespaced else "", name)
        if not yes:
            click.confirm(f"Purge every {'past ' if history_only else ''}version of {key}?", abort=True)
        done = purge.purge(
            source, key, clock=SystemClock(), who=_person(), why=reason, history_only=history_only
        )
    sealed = f" ({done.sealed} of them sealed)" if done.sealed else ""
    stays = f"; revision {done.live_rv}, the live one, stays" if done.live_rv else ""
    click.echo(f"{key}: {done.versions} versions purged{sealed}{stays}")
    if is_postgres(source):
        click.echo(
            "PostgreSQL frees the old rows with its next VACUUM of events, decisions and inputs", err=True
        )


def _person() -> str:
    """The account that runs the command."""
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"
