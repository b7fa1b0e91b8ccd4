"""Options that several commands share, and how failures show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from kcp.store.protocol import StoreError

F = TypeVar("F", bound=Callable[..., Any])


def log_options(function: F) -> F:
    """`--data DIR` or `--store URL`: which log to read; both arrive as one argument `source`."""

    def chosen(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
        del parameter
        if value:
            ctx.params["source"] = value
        ctx.params.setdefault("source", ".kcp")
        return None

    for flags, help_ in (
        (("--store",), "URL of the event log, instead of --data."),
        (("--data", "-d"), "Data directory of a daemon, or the file of a log.  [default: .kcp]"),
    ):
        option = click.option(
            *flags,
            metavar="PLACE",
            expose_value=False,
            callback=chosen,
            help=help_,
            envvar="KCP_DATA" if "--data" in flags else None,
        )
        function = option(function)
    return function


@contextmanager
def one_line_errors() -> Iterator[None]:
    """What a person can mend is one line and exit code 1, never a traceback."""
    try:
        yield
    except (StoreError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
