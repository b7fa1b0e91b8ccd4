"""What a CEL selector of devices has to be: short, an expression that compiles, and cheap.

Source: k8s v1.36 pkg/apis/resource/validation/validation.go validateCELSelector.
"""

from __future__ import annotations

from functools import lru_cache

from kcp.apis.core.checks import Errors
from kcp.apis.kind import Json
from kcp.machinery.errors import forbidden, invalid, required, too_long

_COMPILED = 256
"""Selectors whose verdict is remembered: the same few stand in many claims."""


def check_selector(errors: Errors, selector: Json, path: str) -> None:
    """The faults of one entry of `selectors`; `path` is the entry's."""
    from kcp.machinery.cel.device import (
        COST_LIMIT,
        MAX_LENGTH,
    )  # the language is loaded when it is first spoken

    if selector.get("cel") is None:
        errors.append(required(f"{path}.cel"))
        return
    expression, where = selector["cel"].get("expression") or "", f"{path}.cel.expression"
    if len(expression.encode()) > MAX_LENGTH:
        errors.append(too_long(where, MAX_LENGTH))
        return
    fault, cost = _verdict(expression)
    if fault:
        errors.append(invalid(where, expression, fault))
    elif cost > COST_LIMIT:
        errors.append(forbidden(where, "too complex, exceeds cost limit"))


@lru_cache(maxsize=_COMPILED)
def _verdict(expression: str) -> tuple[str, int]:
    """Why an expression is no selector ("" when it is one), and what it may cost at most."""
    from kcp.machinery.cel.device import SelectorError, compile_selector, max_cost

    try:
        return "", max_cost(compile_selector(expression))
    except SelectorError as error:
        return str(error), 0
