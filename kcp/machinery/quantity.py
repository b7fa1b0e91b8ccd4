"""Quantities of resources: exact numbers with a suffix, such as `1500m`, `1.5Gi`, `12e6`.

A Quantity is an integer and a power of ten (`unscaled * 10**scale`) plus the family of its suffix. Parsing rounds
away from zero to whole nanos and caps binary quantities at 2**63-1. A text already in canonical form, and some that
are not (`1.500`), print as they were written; results of arithmetic print canonically: no fraction, the largest
suffix that fits.
Source: k8s v1.36 apimachinery/pkg/api/resource.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final, Literal

Format = Literal["DecimalSI", "BinarySI", "DecimalExponent"]

INT64_MAX: Final = (1 << 63) - 1
INT64_MIN: Final = -(1 << 63)
NANO: Final = -9
MILLI: Final = -3
MAX_DIGITS: Final = 2000
"""A number with more digits is refused; a sum that needed more keeps only its larger operand."""

_MAX_EXPONENT: Final = 18
_SMALL_GAP: Final = 30
_FAST_DIGITS: Final = 18
_FAST_BINARY_DIGITS: Final = 15

_SHAPE = re.compile(r"([+-]?)0*+([0-9]*+)(?:\.([0-9]*+))?([eEinumkKMGTP]*+[-+]?[0-9]*+)", re.ASCII).fullmatch
_EXPONENT = re.compile(r"[eE]([+-]?[0-9]{1,19})", re.ASCII).fullmatch

_DECIMAL: dict[str, int] = {
    "n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18,
}  # fmt: skip
_BINARY: dict[str, int] = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL_SUFFIX: dict[int, str] = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY_SUFFIX: tuple[str, ...] = ("", *_BINARY)


class QuantityError(ValueError):
    """Raised when a text is no quantity; the message is Kubernetes'."""


_WRONG_FORMAT = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_WRONG_NUMBER = "unable to parse numeric part of quantity"
_WRONG_SUFFIX = "unable to parse quantity's suffix"


class Quantity:
    """An exact number. Immutable and hashable; equal when the numbers are equal, whatever the suffix."""

    __slots__ = ("_text", "format", "scale", "unscaled")

    def __init__(self, unscaled: int, scale: int = 0, format: Format = "DecimalSI", text: str = "") -> None:
        self.unscaled = unscaled
        self.scale = scale
        self.format: Format = format
        self._text = text

    def value(self) -> int:
        """The whole number, rounded away from zero, kept within int64."""
        return self.unscaled if self.scale == 0 else self.scaled_value(0)

    def milli_value(self) -> int:
        """The number of thousandths, rounded away from zero, kept within int64."""
        return self.unscaled if self.scale == MILLI else self.scaled_value(MILLI)

    def scaled_value(self, scale: int) -> int:
        """The number of units of 10**scale, rounded away from zero, kept within int64."""
        up = self.scale - scale
        if not self.unscaled:
            return 0
        if up < 0:
            return _clamp(_divide_away(self.unscaled, -up))
        if up > _MAX_EXPONENT:
            return INT64_MAX if self.unscaled > 0 else INT64_MIN
        return _clamp(self.unscaled * 10**up)

    def as_float(self) -> float:
        """The nearest float, infinity beyond its range."""
        try:
            return float(f"{self.unscaled}e{self.scale}")
        except (OverflowError, ValueError):
            return self.unscaled * 10.0 ** min(self.scale, 308)

    def as_int64(self) -> int | None:
        """The number when it is whole and fits into an int64, else None."""
        unscaled, scale = _reduced(self.unscaled, self.scale)
        if scale < 0 or scale > _MAX_EXPONENT:
            return None
        whole = unscaled * int(10**scale)
        return whole if INT64_MIN <= whole <= INT64_MAX else None

    def sign(self) -> int:
        return (self.unscaled > 0) - (self.unscaled < 0)

    def round_up(self, scale: int) -> Quantity:
        """This quantity as a multiple of 10**scale, rounded away from zero."""
        if self.scale >= scale:
            return self
        return Quantity(_divide_away(self.unscaled, scale - self.scale), scale, self.format)

    def compare(self, other: Quantity) -> int:
        """-1, 0 or 1."""
        if self.scale == other.scale:
            return (self.unscaled > other.unscaled) - (self.unscaled < other.unscaled)
        if -_SMALL_GAP < self.scale - other.scale < _SMALL_GAP:
            a, b, _ = _aligned(self, other)
            return (a > b) - (a < b)
        mine, theirs = self.sign(), other.sign()
        if mine != theirs or not mine:
            return (mine > theirs) - (mine < theirs)
        low, high = _magnitude(self)
        other_low, other_high = _magnitude(other)
        if low > other_high:
            return mine
        if high < other_low:
            return -mine
        a, b, _ = _aligned(self, other)
        return (a > b) - (a < b)

    def __add__(self, other: Quantity) -> Quantity:
        return _sum(self, other, 1)

    def __sub__(self, other: Quantity) -> Quantity:
        return _sum(self, other, -1)

    def __mul__(self, factor: int) -> Quantity:
        return Quantity(self.unscaled * factor, self.scale if factor else 0, self.format)

    def __neg__(self) -> Quantity:
        return Quantity(-self.unscaled, self.scale, self.format)

    def __bool__(self) -> bool:
        return self.unscaled != 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.compare(other) == 0

    def __lt__(self, other: Quantity) -> bool:
        return self.compare(other) < 0

    def __le__(self, other: Quantity) -> bool:
        return self.compare(other) <= 0

    def __gt__(self, other: Quantity) -> bool:
        return self.compare(other) > 0

    def __ge__(self, other: Quantity) -> bool:
        return self.compare(other) >= 0

    def __hash__(self) -> int:
        return hash(_reduced(self.unscaled, self.scale))

    def __str__(self) -> str:
        return self._text or canonical(self)

    def __repr__(self) -> str:
        return f"<Quantity {self}>"


ZERO: Final = Quantity(0, 0, "DecimalSI", "0")


def parse(value: str | int | float) -> Quantity:
    """The quantity of a JSON value: a string, where blanks around it do not count, or a number.

    Raises QuantityError with Kubernetes' text. The last 16384 texts are remembered.
    """
    if isinstance(value, str):
        return parse_text(value.strip())
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise QuantityError(_WRONG_FORMAT)
    return parse_text(repr(value))


@lru_cache(maxsize=16384)
def parse_text(text: str) -> Quantity:
    """As resource.ParseQuantity: the whole text must be the quantity; oddities such as `-` and `Ki` are zero."""
    if text == "0":
        return ZERO
    match = _SHAPE(text) if text else None
    if match is None:
        raise QuantityError(_WRONG_FORMAT)
    sign, whole, fraction, suffix = match.groups()
    whole, fraction = whole or "0", fraction or ""
    exponent, format = _interpret(suffix)
    if len(whole) + len(fraction) > MAX_DIGITS:
        raise QuantityError(_WRONG_NUMBER)
    digits = whole + fraction
    factor = -1 if sign == "-" else 1
    if format == "BinarySI":
        return _binary(text, factor, digits, len(fraction), exponent)
    unscaled, scale = int(digits), exponent - len(fraction)
    if len(digits) <= _FAST_DIGITS and scale >= NANO:
        as_written = scale % 3 == 0 and digits[0] != "0" and not digits.endswith("000")
        return Quantity(factor * unscaled, scale, format, text if as_written else "")
    if scale < NANO:
        unscaled, scale = _divide_away(unscaled, NANO - scale), NANO
    return Quantity(factor * unscaled, scale, format)


def _interpret(suffix: str) -> tuple[int, Format]:
    if suffix in _DECIMAL:
        return _DECIMAL[suffix], "DecimalSI"
    if suffix in _BINARY:
        return _BINARY[suffix], "BinarySI"
    match = _EXPONENT(suffix)
    if match is None or not INT64_MIN <= int(match[1]) <= INT64_MAX:
        raise QuantityError(_WRONG_SUFFIX)
    return _as_int32(int(match[1])), "DecimalExponent"


def _as_int32(value: int) -> int:
    """Wrapped as Go's conversion from int64 does."""
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def _binary(text: str, factor: int, digits: str, places: int, exponent: int) -> Quantity:
    unscaled = int(digits) << exponent
    # Kubernetes keeps the user's spelling when the number is short and not divisible by eight.
    if not places and len(digits) + int(exponent * 0.3) + 1 <= _FAST_BINARY_DIGITS:
        return Quantity(factor * unscaled, 0, "BinarySI", text if int(digits) % 8 else "")
    scale = -places
    if scale < NANO:
        unscaled, scale = _divide_away(unscaled, NANO - scale), NANO
    if unscaled > INT64_MAX * 10**-scale:
        unscaled, scale = INT64_MAX, 0
    format: Format = "DecimalSI" if 0 < unscaled < 10**-scale else "BinarySI"
    return Quantity(factor * unscaled, scale, format)


def canonical(quantity: Quantity) -> str:
    """The canonical text: no fraction, no loss, the largest suffix.

    Beyond the largest suffix the number grows instead (Kubernetes drops the suffix there and prints a wrong number).
    """
    if not quantity.unscaled:
        return "0"
    unscaled, scale = _reduced(quantity.unscaled, quantity.scale)
    if quantity.format == "BinarySI" and scale >= 0 and (scale > 3 or abs(unscaled * 10**scale) >= 1024):
        return _canonical_binary(unscaled, scale)
    exponent = scale - scale % 3
    if quantity.format == "DecimalExponent":
        number = unscaled * 10 ** (scale - exponent)
        return f"{number}e{exponent}" if exponent else str(number)
    exponent = min(exponent, _MAX_EXPONENT)
    if scale - exponent > MAX_DIGITS:
        return f"{unscaled}e{scale}"
    return f"{unscaled * 10 ** (scale - exponent)}{_DECIMAL_SUFFIX[exponent]}"


def _canonical_binary(unscaled: int, scale: int) -> str:
    number = unscaled * 10 ** min(scale, MAX_DIGITS)
    power = 0
    while power < len(_BINARY_SUFFIX) - 1 and number % 1024 == 0:
        number //= 1024
        power += 1
    return f"{number}{_BINARY_SUFFIX[power]}"


def _reduced(unscaled: int, scale: int) -> tuple[int, int]:
    """The same number with all factors of ten in the scale."""
    if not unscaled:
        return 0, 0
    while unscaled % 1000 == 0:
        unscaled //= 1000
        scale += 3
    while unscaled % 10 == 0:
        unscaled //= 10
        scale += 1
    return unscaled, scale


def _divide_away(value: int, places: int) -> int:
    """value / 10**places, rounded away from zero."""
    if places > abs(value).bit_length():
        return (value > 0) - (value < 0)
    divisor: int = 10**places
    return -(-value // divisor) if value >= 0 else value // divisor


def _magnitude(quantity: Quantity) -> tuple[int, int]:
    """Bounds of the decimal exponent, found without writing the number out."""
    bits = abs(quantity.unscaled).bit_length()
    return bits // 4 + quantity.scale, bits // 3 + 1 + quantity.scale


def _aligned(a: Quantity, b: Quantity) -> tuple[int, int, int]:
    scale = min(a.scale, b.scale)
    return a.unscaled * 10 ** (a.scale - scale), b.unscaled * 10 ** (b.scale - scale), scale


def _sum(a: Quantity, b: Quantity, factor: int) -> Quantity:
    format = a.format if a.unscaled else b.format
    if not b.unscaled:
        return Quantity(a.unscaled, a.scale, format)
    if not a.unscaled:
        return Quantity(factor * b.unscaled, b.scale, format)
    if a.scale == b.scale:
        return Quantity(a.unscaled + factor * b.unscaled, a.scale, format)
    if abs(a.scale - b.scale) > MAX_DIGITS:
        larger = a if _magnitude(a) > _magnitude(b) else Quantity(factor * b.unscaled, b.scale)
        return Quantity(larger.unscaled, larger.scale, format)
    left, right, scale = _aligned(a, b)
    return Quantity(left + factor * right, scale, format)


def _clamp(value: int) -> int:
    return max(INT64_MIN, min(INT64_MAX, value))


def total(quantities: Any) -> Quantity:
    """The sum of an iterable of quantities; zero for none."""
    result = ZERO
    for quantity in quantities:
        result = result + quantity
    return result
