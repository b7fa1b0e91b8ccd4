"""Quantities: `quantity("1Gi").isGreaterThan(quantity("500Mi"))`.

Source: k8s v1.36 apiserver/pkg/cel/library/quantity.go.
"""

from __future__ import annotations

from typing import Final

from kcp.machinery.cel.functions import Functions, member, overload, walk
from kcp.machinery.cel.types import BOOL, DOUBLE, INT, STRING, opaque
from kcp.machinery.cel.values import CelError
from kcp.machinery.quantity import Quantity, QuantityError, parse_text

QUANTITY: Final = opaque("kubernetes.Quantity")


def _parse(text: str) -> Quantity:
    try:
        return parse_text(text)
    except QuantityError as error:
        raise CelError(str(error)) from None


def _is_quantity(text: str) -> bool:
    try:
        parse_text(text)
    except QuantityError:
        return False
    return True


def _as_integer(value: Quantity) -> int:
    found = value.as_int64()
    if found is None:
        raise CelError("cannot convert value to integer")
    return found


def _of_int(value: int) -> Quantity:
    return Quantity(value, 0)


LIBRARY: Final[Functions] = {
    "quantity": (overload("string_to_quantity", (STRING,), QUANTITY, _parse, walk),),
    "isQuantity": (overload("is_quantity_string", (STRING,), BOOL, _is_quantity, walk),),
    "sign": (member("quantity_sign", (QUANTITY,), INT, Quantity.sign),),
    "isInteger": (
        member("quantity_is_integer", (QUANTITY,), BOOL, lambda value: value.as_int64() is not None),
    ),
    "asInteger": (member("quantity_as_integer", (QUANTITY,), INT, _as_integer),),
    "asApproximateFloat": (member("quantity_as_float", (QUANTITY,), DOUBLE, Quantity.as_float),),
    "isGreaterThan": (member("quantity_is_greater_than", (QUANTITY, QUANTITY), BOOL, lambda a, b: a > b),),
    "isLessThan": (member("quantity_is_less_than", (QUANTITY, QUANTITY), BOOL, lambda a, b: a < b),),
    "compareTo": (member("quantity_compare_to", (QUANTITY, QUANTITY), INT, Quantity.compare),),
    "add": (
        member("quantity_add", (QUANTITY, QUANTITY), QUANTITY, lambda a, b: a + b),
        member("quantity_add_int", (QUANTITY, INT), QUANTITY, lambda a, b: a + _of_int(b)),
    ),
    "sub": (
        member("quantity_sub", (QUANTITY, QUANTITY), QUANTITY, lambda a, b: a - b),
        member("quantity_sub_int", (QUANTITY, INT), QUANTITY, lambda a, b: a - _of_int(b)),
    ),
}
