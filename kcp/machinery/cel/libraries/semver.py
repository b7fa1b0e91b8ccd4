"""Semantic versions: `semver("1.2.3").isLessThan(semver("2.0.0"))`.

Source: k8s v1.36 apiserver/pkg/cel/library/semverlib.go (version 1); semver.org 2.0.0; github.com/blang/semver/v4 (texts).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, ClassVar, Final

import attrs

from kcp.machinery.cel.functions import Functions, member, overload, walk
from kcp.machinery.cel.types import BOOL, INT, STRING, opaque
from kcp.machinery.cel.values import UINT_MAX, CelError
from kcp.machinery.errors import go_quote

SEMVER: Final = opaque("kubernetes.Semver")
_NUMBER: Final = re.compile(r"[0-9]+", re.ASCII)
_IDENTIFIER: Final = re.compile(r"[0-9A-Za-z-]+", re.ASCII)


@attrs.frozen(slots=True, eq=False)
class Semver:
    """A version; two are equal when neither comes before the other, so builds do not matter."""

    cel_type: ClassVar[str] = "kubernetes.Semver"
    major: int
    minor: int
    patch: int
    pre: tuple[str, ...] = ()
    build: tuple[str, ...] = ()

    def order(self) -> tuple[Any, ...]:
        """A key to sort by: a version with a pre-release comes before the one without; numbers before words."""
        parts = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in self.pre)
        return self.major, self.minor, self.patch, not self.pre, parts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Semver) and self.order() == other.order()

    def __hash__(self) -> int:
        return hash(self.order())


@lru_cache(maxsize=4096)
def parse_semver(text: str) -> Semver:
    """Raises CelError with blang's text."""
    if not text:
        raise CelError("Version string empty")
    parts = text.split(".", 2)
    if len(parts) != 3:
        raise CelError("No Major.Minor.Patch elements found")
    major, minor = _number("major", parts[0]), _number("minor", parts[1])
    rest, plus, build = parts[2].partition("+")
    patch, dash, pre = rest.partition("-")
    number = _number("patch", patch)
    releases = tuple(_release(part) for part in pre.split(".")) if dash else ()
    builds = tuple(_build(part) for part in build.split(".")) if plus else ()
    return Semver(major, minor, number, releases, builds)


def _number(name: str, text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise CelError(f"Invalid character(s) found in {name} number {go_quote(text)}")
    if len(text) > 1 and text[0] == "0":
        raise CelError(f"{name.capitalize()} number must not contain leading zeroes {go_quote(text)}")
    if len(text) > 20 or int(text) > UINT_MAX:
        raise CelError(f"strconv.ParseUint: parsing {go_quote(text)}: value out of range")
    return int(text)


def _release(part: str) -> str:
    if not part:
        raise CelError("Prerelease is empty")
    if _NUMBER.fullmatch(part):
        if len(part) > 1 and part[0] == "0":
            raise CelError(f"Numeric PreRelease version must not contain leading zeroes {go_quote(part)}")
    elif not _IDENTIFIER.fullmatch(part):
        raise CelError(f"Invalid character(s) found in prerelease {go_quote(part)}")
    return part


def _build(part: str) -> str:
    if not part:
        raise CelError("Build meta data is empty")
    if not _IDENTIFIER.fullmatch(part):
        raise CelError(f"Invalid character(s) found in build meta data {go_quote(part)}")
    return part


def normalized(text: str) -> str:
    """Without `v` in front, with three numbers, without zeroes before them."""
    text = text.strip().removeprefix("v")
    parts = text.split(".", 2)
    for place, part in enumerate(parts):
        if len(part) > 1:
            stripped = part.lstrip("0")
            parts[place] = stripped if stripped and stripped[0] in "0123456789" else "0" + stripped
    if len(parts) < 3:
        if any(mark in parts[-1] for mark in "+-"):
            raise CelError("Short version cannot contain PreRelease/Build meta data")
        parts += ["0"] * (3 - len(parts))
    return ".".join(parts)


def _parse(text: str, normalize: bool = False) -> Semver:
    return parse_semver(normalized(text) if normalize else text)


def _is_semver(text: str, normalize: bool = False) -> bool:
    try:
        _parse(text, normalize)
    except CelError:
        return False
    return True


def _compare(a: Semver, b: Semver) -> int:
    return (a.order() > b.order()) - (a.order() < b.order())


LIBRARY: Final[Functions] = {
    "semver": (
        overload("string_to_semver", (STRING,), SEMVER, _parse, walk),
        overload("string_bool_to_semver", (STRING, BOOL), SEMVER, _parse, walk),
    ),
    "isSemver": (
        overload("is_semver_string", (STRING,), BOOL, _is_semver, walk),
        overload("is_semver_string_bool", (STRING, BOOL), BOOL, _is_semver, walk),
    ),
    "isGreaterThan": (
        member("semver_is_greater_than", (SEMVER, SEMVER), BOOL, lambda a, b: _compare(a, b) > 0),
    ),
    "isLessThan": (member("semver_is_less_than", (SEMVER, SEMVER), BOOL, lambda a, b: _compare(a, b) < 0),),
    "compareTo": (member("semver_compare_to", (SEMVER, SEMVER), INT, _compare),),
    "major": (member("semver_major", (SEMVER,), INT, lambda value: value.major),),
    "minor": (member("semver_minor", (SEMVER,), INT, lambda value: value.minor),),
    "patch": (member("semver_patch", (SEMVER,), INT, lambda value: value.patch),),
}
