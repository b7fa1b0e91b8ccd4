"""Device selectors, after the cases of k8s v1.36 dynamic-resource-allocation/cel/compile_test.go."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.machinery.cel.device import SelectorError, compile_selector, device_environment, device_of, matches
from kcp.machinery.cel.values import CelError

Json = dict[str, Any]
DRIVER = "dra.example.com"


def device(
    driver: str = DRIVER, capacity: Json | None = None, shared: bool | None = None, **attributes: Json
) -> Json:
    named = {name.replace("__", "/").replace("_", "."): value for name, value in attributes.items()}
    return device_of(
        driver, {"attributes": named, "capacity": capacity or {}, "allowMultipleAllocations": shared}
    )


@pytest.mark.parametrize(
    ("expression", "given", "expected", "cost"),
    [
        ("true", device(), True, 0), ("false", device(), False, 0),
        ('"no-such-domain" in device.attributes', device(), False, 3),
        ('"dra.example.com" in device.attributes', device(something={"bool": True}), True, 3),
        ('device.driver == ""', device(""), True, 2), ('device.driver == "dra.example.com"', device(), True, 4),
        ('device.attributes["dra.example.com"].name', device(name={"bool": True}), True, 4),
        ('device.attributes["dra.example.com"]["name"]', device(name={"bool": True}), True, 4),
        ('cel.bind(dra, device.attributes["dra.example.com"], dra.name)', device(name={"bool": True}), True, 5),
        ('device.attributes["other.example.com"].name', device(other_example_com__name={"bool": True}), True, 4),
        ('device.attributes["dra.example.com"].name > 0', device(name={"int": 1}), True, 5),
        ('device.attributes["dra.example.com"].name == "fish"', device(name={"string": "fish"}), True, 5),
        ('device.attributes["dra.example.com"].v.isGreaterThan(semver("0.0.1"))', device(v={"version": "1.0.0"}), True, 6),
        ('device.attributes["dra.example.com"].names.size() == 2', device(names={"ints": [1, 2]}), True, 6),
        ('device.attributes["dra.example.com"].names.all(x, x != "")', device(names={"strings": ["fish", "bird"]}), True, 13),
        ('device.attributes["dra.example.com"].vs.exists(x, x.major() == 2)', device(vs={"versions": ["1.0.0", "2.0.0"]}), True, 19),
        ('device.capacity["dra.example.com"].memory.compareTo(quantity("10Gi")) >= 0', device(capacity={"memory": {"value": "16Gi"}}), True, 7),
        ('device.capacity["dra.example.com"].memory.isGreaterThan(quantity("1"))', device(capacity={"memory": {"value": "1"}}), False, 6),
        ('has(device.attributes["dra.example.com"].nope)', device(), False, 3), ("device.allowMultipleAllocations", device(shared=True), True, 2),
        ("device.allowMultipleAllocations == false", device(), True, 3),
        ('device.attributes["a"].?b.orValue(true)', device(), True, 5),
    ],
)  # fmt: skip
def test_what_selects(expression: str, given: Json, expected: bool, cost: int) -> None:
    program = compile_selector(expression)
    assert program.run({"device": given}) == (expected, cost)
    assert matches(program, given) is expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("?!", "compilation failed: ERROR: <input>:1:1: Syntax error: extraneous input '?'"),
        ("1", "must evaluate to bool or the unknown type, not int"),
        ("noSuchVar", "compilation failed: ERROR: <input>:1:1: undeclared reference to 'noSuchVar' (in container '')\n | noSuchVar\n | ^"),
        ("device.nope", "compilation failed: ERROR: <input>:1:7: undefined field 'nope'\n | device.nope\n | ......^"),
        ('device.attributes["a"].b.includes("x")', "compilation failed: ERROR: <input>:1:34: undeclared reference to 'includes' (in container '')"),
    ],
)  # fmt: skip
def test_what_is_no_selector(expression: str, message: str) -> None:
    with pytest.raises(SelectorError) as caught:
        compile_selector(expression)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ('device.attributes["no-such-domain"].noSuchAttr.isGreaterThan(quantity("0"))', "no such key: noSuchAttr"),
        ('device.attributes["no-such-domain"]["noSuchAttr"].isGreaterThan(quantity("0"))', "no such key: noSuchAttr"),
        ('device.attributes["dra.example.com"].name.exists(x, x > 0)', "got 'types.Int', expected iterable type"),
        ('device.attributes["dra.example.com"].names', "CEL result of type list could not be converted to bool"),
        ('device.attributes["dra.example.com"].name == 1 && device.attributes["dra.example.com"].name.size() > 1', "no such overload"),
    ],
)  # fmt: skip
def test_what_has_no_answer(expression: str, message: str) -> None:
    with pytest.raises(CelError, match=f"^{message}$"):
        matches(compile_selector(expression), device(name={"int": 1}, names={"strings": ["a"]}))


def test_list_attributes_have_includes_when_the_feature_is_on() -> None:
    env = device_environment(list_attributes=True)
    given = device(one={"string": "fish"}, many={"strings": ["bird", "fish"]})
    for name, wanted, expected in (
        ("one", "fish", True),
        ("many", "fish", True),
        ("one", "bird", False),
        ("many", "cat", False),
    ):
        program = compile_selector(f'device.attributes["dra.example.com"].{name}.includes("{wanted}")', env)
        assert program.run({"device": given}) == (expected, 4 + 48)


def test_a_device_that_cannot_be_read_says_why() -> None:
    with pytest.raises(
        CelError, match=r"attribute v: parse semantic version: No Major.Minor.Patch elements found"
    ):
        device(v={"version": "1"})
    with pytest.raises(CelError, match="attribute v: unsupported attribute value"):
        device(v={})
    with pytest.raises(CelError, match="capacity c: quantities must match"):
        device(capacity={"c": {"value": "x"}})


def test_the_cost_of_a_selection_is_limited() -> None:
    program = compile_selector(
        'device.attributes["dra.example.com"].l.all(a, device.attributes["dra.example.com"].l.all(b, a == b))'
    )
    with pytest.raises(CelError, match="actual cost limit exceeded"):
        matches(program, device(l={"ints": [1] * 1000}))
