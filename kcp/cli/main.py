"""The command tree of `kcp`."""

from __future__ import annotations

import importlib
import keyword
from collections.abc import Sequence

import click

from kcp import __version__

SECTIONS = {
    "Run": {
        "up": "Run a control plane in the foreground.",
        "controller-manager": "Run the controllers apart, against any Kubernetes API server.",
        "scheduler": "Run the scheduler apart, against any Kubernetes API server.",
        "simulate": "Run a whole made-up cluster from a seed, in virtual time.",
    },
    "Ask the log": {
        "sql": "Query the log: objects now, at any moment, and everything that changed them.",
        "history": "Who changed an object, what, and when.",
        "why": "Why an object is as it is, or gone: each step back to who asked for it.",
        "explain": "Why a pod was put on its node, or on none: every node, every plugin, with numbers.",
        "fit": "How many more pods like these fit, on which nodes, and what stops the next one.",
    },
    "Incidents": {
        "export": "Write an incident log: one file that replays elsewhere.",
        "replay": "Re-make every recorded decision of an incident log and compare.",
        "whatif": "The same pods again with another scheduler configuration, or on other nodes.",
    },
    "Look after the log": {
        "backup": "Copy all of a log into one file, beside a running daemon or not.",
        "restore": "Make a new log from a backup, as of any revision or time.",
        "import": "Make a new log from an export, or from what another Kubernetes left: audit logs, etcd, watches.",
        "check": "Is a log whole? Names what is damaged, prints the checksum of its history.",
        "seal": "Move old events to parquet files; drop those that nobody needs any more.",
        "purge": "Remove what the past versions of one object said.",
        "rebuild-facts": "Make the facts tables again from the events.",
    },
}
"""Every command and its line in `kcp --help`; the module of the same name in this package defines `command`."""

COMMANDS = {name: text for rows in SECTIONS.values() for name, text in rows.items()}


def module_of(name: str) -> str:
    """`rebuild-facts` is defined in rebuild_facts.py, `import` in import_.py."""
    module = name.replace("-", "_")
    return f"kcp.cli.{module}_" if keyword.iskeyword(module) else f"kcp.cli.{module}"


class Commands(click.Group):
    """Imports a command's module only when it is used, so that each starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(module_of(cmd_name)).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        for title, rows in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(list(rows.items()))


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kcp")
def kcp() -> None:
    """kcp: a Kubernetes-compatible control plane whose database is an append-only event log."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    kcp(args=list(arguments) if arguments is not None else None, prog_name="kcp")
