"""Environments and shorthands of the tests here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from kcp.machinery.cel.environment import Environment, compile, environment
from kcp.machinery.cel.libraries import KUBERNETES, encoders, mutations
from kcp.machinery.cel.libraries.strings import EXTRA
from kcp.machinery.cel.types import DYN, INT, STRING, Type, list_of, map_of

VARIABLES: dict[str, Type] = {
    "x": DYN, "i": INT, "s": STRING, "l": list_of(INT), "m": map_of(STRING, INT), "names": list_of(STRING),
}  # fmt: skip
ALL: Environment = attrs.evolve(
    environment(
        VARIABLES,
        (*KUBERNETES, mutations.LIBRARY, encoders.LIBRARY, EXTRA),
        mutations.messages,
        mutations.build,
    ),
    bindings=True,
)
VALUES: dict[str, Any] = {
    "x": {"a": 1},
    "i": 3,
    "s": "hello",
    "l": [1, 2, 3],
    "m": {"k": 1},
    "names": ["a", "b"],
}


def value(source: str, bindings: Mapping[str, Any] = VALUES, env: Environment = ALL) -> Any:
    return compile(env, source)(bindings)


def cost(source: str, bindings: Mapping[str, Any] = VALUES, env: Environment = ALL) -> int:
    return compile(env, source).run(bindings)[1]
