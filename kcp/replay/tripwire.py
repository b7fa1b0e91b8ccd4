"""Time and chance only through their doors: while armed, the others raise when our own code calls them.

The rule that bans these names is checked on the source, too; this finds what a source check cannot see (a name kept
in a variable, a default argument of a library called by us).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

FORBIDDEN: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("time", ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep")),
    ("uuid", ("uuid1", "uuid4")),
    ("os", ("urandom", "getrandom")),
    ("secrets", ("token_bytes", "token_hex", "token_urlsafe", "randbelow", "choice")),
    (
        "random",
        (
            "random",
            "randint",
            "randrange",
            "choice",
            "choices",
            "shuffle",
            "uniform",
            "getrandbits",
            "sample",
        ),
    ),
)
ALLOWED = "kcp.base"


class Tripped(AssertionError):
    """Raised when code of ours asks the machine for time or chance during a simulation."""


@contextmanager
def armed(*also: str) -> Iterator[None]:
    """`also`: prefixes of the names of modules besides ours that are to be caught, such as users' plugins."""
    kept: list[tuple[Any, str, Any]] = []
    try:
        for module_name, names in FORBIDDEN:
            module = importlib.import_module(module_name)
            for name in names:
                real = getattr(module, name)
                kept.append((module, name, real))
                setattr(module, name, _guard(f"{module_name}.{name}", real, ("kcp.", *also)))
        yield
    finally:
        for module, name, real in kept:
            setattr(module, name, real)


def _guard(name: str, real: Any, caught: tuple[str, ...]) -> Any:
    def guarded(*args: Any, **kwargs: Any) -> Any:
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.startswith(caught) and not caller.startswith(ALLOWED):
            raise Tripped(f"{caller} called {name}; ask Clock or Entropy")
        return real(*args, **kwargs)

    return guarded
