"""The command tree of `kcp`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import click

from kcp import __version__

COMMANDS = {
    "up": "Run a control plane in the foreground.",
    "sql": "Query the log: objects now, at any moment, and everything that changed them.",
    "history": "Who changed an object, what, and when.",
    "explain": "Why a pod was put on its node, or on none: every node, every plugin, with numbers.",
    "export": "Write an incident log: one file that replays elsewhere.",
    "replay": "Re-make every recorded decision of an incident log and compare.",
    "simulate": "Run a whole made-up cluster from a seed, in virtual time.",
}
"""Every command and its line in `kcp --help`; the module of the same name in this package defines `command`."""


class Commands(click.Group):
    """Imports a command's module only when it is used, so that each starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"kcp.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kcp")
def kcp() -> None:
    """kcp: a Kubernetes-compatible control plane whose database is an append-only event log."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    kcp(args=list(arguments) if arguments is not None else None, prog_name="kcp")
