"""Loads structlog without what it loads besides when that is installed: 4 MiB of every process, and never used here.

rich is for tracebacks, of which ours are plain; greenlet for context that we bind nowhere. Imported before anything else
of this package, so before structlog.
"""

from __future__ import annotations

import sys

UNUSED = ("rich", "greenlet")


def _load() -> None:
    hidden = [name for name in UNUSED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: the import system's word for absent
    try:
        import structlog.tracebacks  # noqa: F401
    finally:
        for name in hidden:
            del sys.modules[name]


if "structlog" not in sys.modules:
    _load()
