"""Selectors of devices for dynamic resource allocation: `device.attributes["gpu.example.com"].memory > 8`.

    selector = compile_selector('device.driver == "gpu.example.com"')
    matches(selector, device_of("gpu.example.com", device))

Source: k8s v1.36 dynamic-resource-allocation/cel/compile.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from kcp.machinery.cel.environment import Environment, Program, compile, environment
from kcp.machinery.cel.estimate import estimate
from kcp.machinery.cel.functions import Functions, member
from kcp.machinery.cel.libraries import KUBERNETES
from kcp.machinery.cel.libraries.quantity import QUANTITY
from kcp.machinery.cel.libraries.semver import parse_semver
from kcp.machinery.cel.source import CompileError
from kcp.machinery.cel.types import BOOL, DYN, STRING, Field, map_of, object_type
from kcp.machinery.cel.values import CelError, contains, equal, kind_of
from kcp.machinery.quantity import QuantityError, parse

COST_LIMIT: Final = 1_000_000
"""What the selection of one device may cost. Source: k8s v1.36 api/resource/v1 CELSelectorExpressionMaxCost."""
MAX_LENGTH: Final = 10 * 1024
"""Bytes of a selector. Source: CELSelectorExpressionMaxLength."""
_MAX_ATTRIBUTES, _MAX_DOMAIN, _MAX_ID, _MAX_VALUE, _MAX_VALUES = 32, 63, 32, 64, 48

Json = dict[str, Any]


class Domains(dict[str, dict[str, Any]]):
    """Attributes or capacities by domain; a domain that is not there is empty, though it is not `in` the map."""

    __slots__ = ()

    def __missing__(self, domain: str) -> dict[str, Any]:
        return {}

    def has_field(self, domain: str) -> bool:
        """What `has(device.attributes.domain)` says: always true, as in Kubernetes."""
        return True


def _string(size: int) -> Any:
    return attrs.evolve(STRING, max_size=size)


def _by_domain(value: Any) -> Any:
    inner = map_of(_string(_MAX_ID), value, max_size=_MAX_ATTRIBUTES)
    return map_of(_string(_MAX_DOMAIN), inner, max_size=_MAX_ATTRIBUTES)


DEVICE: Final = object_type(
    "kubernetes.DRADevice",
    {
        "driver": Field("driver", _string(_MAX_DOMAIN), True),
        "attributes": Field("attributes", _by_domain(attrs.evolve(DYN, max_size=_MAX_VALUE)), True),
        "capacity": Field("capacity", _by_domain(QUANTITY), True),
        "allowMultipleAllocations": Field("allowMultipleAllocations", BOOL, True),
    },
)


def _includes(value: Any, wanted: Any) -> bool:
    """Whether a list attribute has a value, or a plain one is it. Raises CelError for a list that is too long."""
    if isinstance(value, list) and len(value) > _MAX_VALUES:
        raise CelError(f"'includes' function cannot be applied to lists longer than {_MAX_VALUES} values")
    return contains(value, wanted) if isinstance(value, list) else equal(value, wanted)


_INCLUDES: Final[Functions] = {
    "includes": (member("list_or_scalar_includes", (DYN, DYN), BOOL, _includes, lambda *_: _MAX_VALUES),)
}


def device_environment(*, list_attributes: bool = False) -> Environment:
    """The environment of selectors; `list_attributes` is the feature DRAListTypeAttributes (alpha in 1.36)."""
    libraries = (*KUBERNETES, _INCLUDES) if list_attributes else KUBERNETES
    return attrs.evolve(environment({"device": DEVICE}, libraries), bindings=True)


_ENVIRONMENT: Final = device_environment()


def compile_selector(expression: str, env: Environment = _ENVIRONMENT) -> Program:
    """The program of a selector. Raises CompileError with Kubernetes' text, `compilation failed: …` included."""
    try:
        program = compile(env, expression)
    except CompileError as error:
        raise SelectorError(f"compilation failed: {error}") from None
    if program.type not in (BOOL, DYN):
        raise SelectorError(f"must evaluate to bool or the unknown type, not {program.type}")
    return program


def max_cost(program: Program) -> int:
    """What selecting a device may cost at most; beyond COST_LIMIT a selector is refused when it is written."""
    return estimate(program).high


class SelectorError(ValueError):
    """Raised when an expression is no selector; the text is Kubernetes'."""


def matches(program: Program, device: Json, limit: int = COST_LIMIT) -> bool:
    """Whether a device, as `device_of` makes it, is selected. Raises CelError with Kubernetes' text."""
    result = program({"device": device}, limit)
    if result is True or result is False:
        return bool(result)
    raise CelError(f"CEL result of type {kind_of(result)} could not be converted to bool")


def device_of(driver: str, device: Mapping[str, Any]) -> Json:
    """What selectors see of a device of a ResourceSlice; names without a domain are the driver's.

    Raises CelError for an attribute or capacity that has no value. Cost: some microseconds; make it once per device.
    """
    attributes, capacity = Domains(), Domains()
    for name, attribute in (device.get("attributes") or {}).items():
        domain, id = qualified(name, driver)
        attributes.setdefault(domain, {})[id] = _attribute(name, attribute)
    for name, amount in (device.get("capacity") or {}).items():
        domain, id = qualified(name, driver)
        capacity.setdefault(domain, {})[id] = _amount(name, amount)
    shared = bool(device.get("allowMultipleAllocations"))
    return {
        "driver": driver,
        "attributes": attributes,
        "capacity": capacity,
        "allowMultipleAllocations": shared,
    }


def qualified(name: str, driver: str) -> tuple[str, str]:
    """Domain and identifier of an attribute's or capacity's name."""
    domain, slash, id = name.partition("/")
    return (domain, id) if slash else (driver, name)


def _amount(name: str, amount: Mapping[str, Any]) -> Any:
    try:
        return parse(amount.get("value", "0"))
    except QuantityError as error:
        raise CelError(f"capacity {name}: {error}") from None


def _attribute(name: str, attribute: Mapping[str, Any]) -> Any:
    """The one value of an attribute: int, bool, string, version, or a list of one of them."""
    for key in ("int", "bool", "string"):
        if attribute.get(key) is not None:
            return attribute[key]
    try:
        if attribute.get("version") is not None:
            return parse_semver(attribute["version"])
        for key in ("ints", "bools", "strings"):
            if attribute.get(key) is not None:
                return attribute[key]
        if attribute.get("versions") is not None:
            return [parse_semver(each) for each in attribute["versions"]]
    except CelError as error:
        raise CelError(f"attribute {name}: parse semantic version: {error}") from None
    raise CelError(f"attribute {name}: unsupported attribute value")
