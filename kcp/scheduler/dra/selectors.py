"""Selectors of devices: CEL expressions of classes and requests, each asked once per device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kcp.scheduler.dra.pools import Device

Json = dict[str, Any]
Selector = Callable[[Device], bool]
"""Raises SelectorFailed."""
Compile = Callable[[str], Selector]
"""Raises SelectorRefused."""
MAX_PROGRAMS = 1000


class SelectorRefused(Exception):
    """Raised when an expression is none; the text is the compiler's."""


class SelectorFailed(Exception):
    """Raised when an expression cannot be evaluated for a device."""


class AllocationFailed(Exception):
    """Raised when a claim or a class is wrong, so that no node can be judged."""


class Selectors:
    """Compiled expressions. `owner` names whose selectors they are, for errors: `claim ns/name` or `class name`."""

    def __init__(self, compile: Compile) -> None:
        self._compile = compile
        self._programs: dict[str, Selector | SelectorRefused] = {}

    def match(self, device: Device, selectors: Sequence[Json], owner: str) -> bool:
        """Whether all of them hold. Raises AllocationFailed."""
        for number, selector in enumerate(selectors):
            expression = (selector.get("cel") or {}).get("expression") or ""
            known = device.matches.get(expression)
            if known is None:
                known = device.matches[expression] = self._ask(
                    device, expression, f"{owner}: selector #{number}"
                )
            if not known:
                return False
        return True

    def _ask(self, device: Device, expression: str, where: str) -> bool:
        program = self._program(expression)
        if isinstance(program, SelectorRefused):
            raise AllocationFailed(f"{where}: CEL compile error: {program}")
        try:
            return program(device)
        except SelectorFailed as failure:
            raise AllocationFailed(f"{where} on device {device}: CEL runtime error: {failure}") from failure

    def _program(self, expression: str) -> Selector | SelectorRefused:
        if expression not in self._programs:
            if len(self._programs) >= MAX_PROGRAMS:
                self._programs.clear()
            try:
                self._programs[expression] = self._compile(expression)
            except SelectorRefused as refused:
                self._programs[expression] = refused
        return self._programs[expression]
