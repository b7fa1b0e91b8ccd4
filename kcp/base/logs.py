"""Logging: structlog to the console or as JSON lines, without secrets and without whole objects.

Modules take `structlog.get_logger()`; the process configures once.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog
import structlog.tracebacks

LogFormat = Literal["console", "json"]

_SECRET_KEYS = frozenset(
    {
        "authorization",
        "token",
        "password",
        "secret",
        "private_key",
        "key_pem",
        "client_key",
        "bearer",
        "credentials",
    }
)
REDACTED = "[redacted]"


def redact(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace credentials by a mark and API objects by their kind and key."""
    del logger, method
    for key, value in event.items():
        if key.lower() in _SECRET_KEYS:
            event[key] = REDACTED
        elif isinstance(value, Mapping) and "kind" in value:
            event[key] = describe(value)
        elif isinstance(value, bytes | bytearray):
            event[key] = f"{len(value)} bytes"
    return event


def describe(obj: Mapping[str, Any]) -> str:
    """`Pod default/web`: how an object appears in a log line."""
    metadata = obj.get("metadata") or {}
    namespace, name = metadata.get("namespace", ""), metadata.get("name", "")
    return f"{obj.get('kind', '?')} {namespace}/{name}" if namespace else f"{obj.get('kind', '?')} {name}"


def configure(format: LogFormat = "console", level: str = "info", stream: TextIO | None = None) -> None:
    """Set up the process: structlog and the standard library's loggers write to one stream (stderr)."""
    stream = stream if stream is not None else sys.stderr
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*_PROCESSORS, *_renderers(format, stream)],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(
        level=max(threshold, logging.WARNING), stream=stream, format="%(name)s %(message)s", force=True
    )


_PROCESSORS: tuple[structlog.typing.Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    redact,
)


def _renderers(format: LogFormat, stream: TextIO) -> list[structlog.typing.Processor]:
    if format == "json":
        frames = structlog.tracebacks.ExceptionDictTransformer(
            show_locals=False
        )  # locals hold tokens and Secrets
        return [
            structlog.processors.ExceptionRenderer(frames),
            structlog.processors.JSONRenderer(sort_keys=True),
        ]
    colors = stream.isatty()
    return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)]
