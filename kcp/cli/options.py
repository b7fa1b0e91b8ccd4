"""Options that several commands share, and how failures show."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from kcp.store.protocol import StoreError

F = TypeVar("F", bound=Callable[..., Any])
LOG_LEVEL = click.Choice(("debug", "info", "warning", "error"))
LOG_FORMAT = click.Choice(("console", "json"))


def log_options(function: F) -> F:
    """`--data DIR` or `--store URL`: which log to read; both arrive as one argument `source`."""
    data = "Data directory of a daemon, or the file of a log.  [default: .kcp]"
    return _place("source", ".kcp", data, "URL of the event log, instead of --data.")(function)


def new_log_options(function: F) -> F:
    """`--data DIR` or `--store URL`: where to make a log; both arrive as one argument `target`, "" for neither."""
    data = "Data directory, or file, of the new log; it must hold none."
    return _place("target", "", data, "URL of an empty database for the new log, instead of --data.")(
        function
    )


def _place(name: str, default: str, data: str, store: str) -> Callable[[F], F]:
    def chosen(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
        del parameter
        if value:
            ctx.params[name] = value
        ctx.params.setdefault(name, default)
        return None

    def decorate(function: F) -> F:
        for flags, help_ in ((("--store",), store), (("--data", "-d"), data)):
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

    return decorate


def given(target: str) -> str:
    """Raises UsageError for a place that was not said."""
    if not target:
        raise click.UsageError("Say where the new log is to be: --data DIR or --store URL.")
    return target


def size(count_bytes: int) -> str:
    """`512 B`, `3.4 MiB`."""
    shown = float(count_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if shown < 1024 or unit == "GiB":
            break
        shown /= 1024
    return f"{shown:.0f} {unit}" if unit == "B" else f"{shown:.1f} {unit}"


@contextmanager
def one_line_errors() -> Iterator[None]:
    """What a person can mend is one line and exit code 1, never a traceback."""
    try:
        yield
    except (StoreError, OSError, ValueError) as error:
        raise click.ClickException(in_words(error)) from error


@contextmanager
def exits_in_one_line() -> Iterator[None]:
    """The same for a process that serves: `kcp: …`, also for what its tasks raised."""
    try:
        yield
    except* (StoreError, OSError, ValueError) as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        click.echo(f"kcp: {in_words(error)}", err=True)
        sys.exit(1)


def in_words(error: BaseException) -> str:
    """Of an OSError which file it was and what is wrong with it, without its number."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror.lower()}"
    return str(error)


def kind_and_name(target: tuple[str, ...]) -> tuple[str, str]:
    """As kubectl takes it: in one word or in two."""
    words = target[0].split("/", 1) if len(target) == 1 else list(target)
    if len(words) != 2 or not all(words):
        raise click.UsageError("say KIND/NAME, as in pod/web-1, or KIND NAME")
    return words[0], words[1]
