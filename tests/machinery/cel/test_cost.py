"""What evaluations cost: the figures of Kubernetes' own stability tests, and where the budget ends them.

The tables restate facts of k8s v1.36 apiextensions-apiserver/pkg/apiserver/schema/cel/celcoststability_test.go.
"""

from __future__ import annotations

from typing import Any

import pytest

from kcp.machinery.cel.environment import PER_CALL_LIMIT, Environment, compile, environment
from kcp.machinery.cel.schema_types import openapi_type
from kcp.machinery.cel.values import BudgetExceeded, CelError

Json = dict[str, Any]
INTEGER, NUMBER, STRING = {"type": "integer"}, {"type": "number"}, {"type": "string"}


def fields(**properties: Any) -> Json:
    return {"type": "object", "properties": properties}


def items(schema: Json, **more: Any) -> Json:
    return {"type": "array", "items": schema, **more}


MAP_ITEMS = items(
    fields(k=STRING, v=STRING, v2=STRING),
    **{"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]},
)
ANY = {"x-kubernetes-int-or-string": True}
TEXTS = (fields(val1=STRING, val2=STRING), {"val1": "Rook takes 👑", "val2": "Rook takes 👑"})
INTS = (fields(val1=INTEGER, val2=INTEGER), {"val1": 2**63 - 1, "val2": 2**63 - 1})
LISTS = (fields(val1=items(INTEGER), val2=items(INTEGER)), {"val1": [1, 2, 3], "val2": [1, 2, 3]})
SETS = (
    fields(
        val1=items(STRING, **{"x-kubernetes-list-type": "set"}),
        val2=items(STRING, **{"x-kubernetes-list-type": "set"}),
    ),
    {"val1": ["a", "b", "c"], "val2": ["a", "c", "b"]},
)
OBJS = (
    fields(objs=items(MAP_ITEMS)),
    {
        "objs": [
            [{"k": "a", "v": "1"}, {"k": "b", "v": "2"}], [{"k": "b", "v": "2"}, {"k": "a", "v": "1"}],
            [{"k": "b", "v": "3"}, {"k": "a", "v": "1"}], [{"k": "c", "v": "4"}],
        ]
    },
)  # fmt: skip
NESTED = (
    fields(
        a=fields(b=INTEGER, c=INTEGER, d=INTEGER), a1=fields(b1=fields(c1=INTEGER), d2=fields(e2=INTEGER))
    ),
    {"a": {"b": 1, "d": None}, "a1": {"b1": {"c1": 4}}, "a3": {}},
)
MAPS = (fields(val={"type": "object", "additionalProperties": INTEGER}), {"val": {"b": 1, "d": 2}})
LIST_MAP = (
    fields(listMap=MAP_ITEMS),
    {"listMap": [{"k": "a1", "v": "b1"}, {"k": "a2", "v": "b2"}, {"k": "a3", "v": "b3", "v2": "z"}]},
)
ARRAY = (fields(array=items(INTEGER)), {"array": [1, 1, 2, 2, 3, 3, 4, 5]})
FORMATS = (
    fields(
        val1={"type": "string", "format": "duration"}, val2={"type": "string", "format": "date-time"},
        val3={"type": "string", "format": "date"}, val4={"type": "string", "format": "byte"}, val5=NUMBER,
    ),
    {"val1": "1h2m3s4ms", "val2": "2011-08-18T19:03:37.010000000+01:00", "val3": "1997-07-16", "val4": "QUI=", "val5": 1},
)  # fmt: skip
UNION = (fields(something=ANY), {"something": "25%"})

COSTS = [
    (INTS, "self.val1 == self.val2", 5), (INTS, "type(self.val1) == int", 4), (INTS, "self.val1 - 1 == 5 + 1 || true", 5),
    (INTS, "double(5) < 10.0", 1), (INTS, "5 < int(10.0)", 1), (INTS, "double(self.val1) > 10.0", 4),
    (TEXTS, "self.val1.startsWith('Rook')", 4), (TEXTS, "!self.val1.startsWith('knight')", 5),
    (TEXTS, "self.val1.matches('^[^0-9]*$')", 8), (TEXTS, "!self.val1.matches('^[0-9]*$')", 7),
    (TEXTS, "type(self.val1) == string", 4), (TEXTS, "size(self.val1) == 12", 4), (TEXTS, "self.val1.charAt(3) == 'k'", 4),
    (TEXTS, "self.val1.indexOf('o') == 1", 4), (TEXTS, "self.val1.indexOf('o', 2) == 2", 4),
    (TEXTS, "self.val1.replace(' ', 'x') == 'Rookxtakesx👑'", 7), (TEXTS, "self.val1.split(' ') == ['Rook', 'takes', '👑']", 6),
    (TEXTS, "self.val1.substring(5) == 'takes 👑'", 5), (TEXTS, "self.val1.substring(4, 10).trim() == 'takes'", 6),
    (TEXTS, "self.val1.upperAscii() == 'ROOK TAKES 👑'", 6), (TEXTS, "self.val1.replace(' ', 'x', 1) == 'Rookxtakes 👑'", 7),
    (LISTS, "1 in self.val1", 5), (LISTS, "self.val2[0] in self.val1", 8), (LISTS, "!(0 in self.val1)", 6),
    (LISTS, "self.val1 + self.val2 == [1, 2, 3, 1, 2, 3]", 6), (LISTS, "self.val1 + [4, 5] == [1, 2, 3, 4, 5]", 4),
    (SETS, "self.val1 == ['c', 'b', 'a']", 3), (SETS, "self.val1 == self.val2", 5), (SETS, "'a' in self.val1", 5),
    (SETS, "self.val2[0] in self.val1", 8), (SETS, "self.val1 + self.val2 == ['a', 'b', 'c']", 6),
    (SETS, "self.val1 + ['c', 'd'] == ['a', 'b', 'c', 'd']", 4),
    (OBJS, "self.objs[0] == self.objs[1]", 7), (OBJS, "self.objs[0] + self.objs[2] == self.objs[2]", 11),
    (OBJS, "self.objs[2] + self.objs[0] == self.objs[0]", 11),
    (OBJS, "self.objs[0] == [self.objs[0][0], self.objs[0][1]]", 22), (OBJS, "self.objs[0] == [self.objs[0][1], self.objs[0][0]]", 22),
    (OBJS, "self.objs[2] + [self.objs[0][0], self.objs[0][1]] == self.objs[0]", 26),
    (OBJS, "size(self.objs[0] + [self.objs[3][0]]) == 3", 20),
    (NESTED, "has(self.a.b)", 2), (NESTED, "has(self.a1.b1.c1)", 3), (NESTED, "!(has(self.a1.d2) && has(self.a1.d2.e2))", 3),
    (NESTED, "!has(self.a1.d2)", 3), (NESTED, "!has(self.a.d)", 3),
    (MAPS, "!('a' in self.val)", 4), (MAPS, "'b' in self.val", 3), (MAPS, "!has(self.val.a)", 3), (MAPS, "has(self.val.b)", 2),
    (MAPS, "self.val.all(k, self.val[k] > 0)", 17), (MAPS, "self.val.exists_one(k, self.val[k] == 2)", 14),
    (MAPS, "!self.val.exists_one(k, self.val[k] > 0)", 17), (MAPS, "size(self.val) == 2", 4),
    (MAPS, "size(self.val.filter(k, self.val[k] > 1)) == 1", 26),
    (LIST_MAP, "has(self.listMap[0].v)", 3), (LIST_MAP, "self.listMap.all(m, m.k.startsWith('a'))", 21),
    (LIST_MAP, "self.listMap.all(m, !has(m.v2) || m.v2 == 'z')", 21), (LIST_MAP, "self.listMap.exists(m, m.k.endsWith('1'))", 13),
    (LIST_MAP, "self.listMap.exists_one(m, m.k == 'a3')", 15), (LIST_MAP, "!self.listMap.all(m, m.k.endsWith('1'))", 18),
    (LIST_MAP, "!self.listMap.exists(m, m.v == 'x')", 25), (LIST_MAP, "!self.listMap.exists_one(m, m.k.startsWith('a'))", 20),
    (LIST_MAP, "size(self.listMap.filter(m, m.k == 'a1')) == 1", 27), (LIST_MAP, "self.listMap.exists(m, m.k == 'a1' && m.v == 'b1')", 16),
    (LIST_MAP, "self.listMap.map(m, m.v).exists(v, v == 'b1')", 55), (LIST_MAP, "self.listMap.exists(m, has(m.v2) && m.v2 == 'z')", 21),
    (LIST_MAP, "!self.listMap.all(m, has(m.v2) && m.v2 != 'z')", 10), (LIST_MAP, "self.listMap.exists_one(m, has(m.v2) && m.v2 == 'z')", 12),
    (LIST_MAP, "self.listMap.filter(m, has(m.v2) && m.v2 == 'z').size() == 1", 24),
    (LIST_MAP, "self.listMap.map(m, has(m.v2) && m.v2 == 'z', m.v2).size() == 1", 25),
    (LIST_MAP, "self.listMap.filter(m, has(m.v2) && m.v2 == 'z').map(m, m.v2).size() == 1", 39),
    (ARRAY, "2 in self.array", 10), (ARRAY, "self.array.all(e, e > 0)", 43), (ARRAY, "self.array.exists(e, e > 2)", 36),
    (ARRAY, "self.array.exists_one(e, e > 4)", 22), (ARRAY, "!self.array.all(e, e < 2)", 21), (ARRAY, "!self.array.exists(e, e < 0)", 52),
    (ARRAY, "!self.array.exists_one(e, e == 2)", 25), (ARRAY, "size(self.array.filter(e, e%2 == 0)) == 3", 68),
    (ARRAY, "self.array.map(e, e * 20).filter(e, e > 50).exists(e, e == 60)", 194),
    (FORMATS, "self.val1 == duration('1h2m') + duration('3s4ms')", 4), (FORMATS, "self.val1.getHours() == 1", 4),
    (FORMATS, "type(self.val1) == google.protobuf.Duration", 4), (FORMATS, "self.val3.getDate() == 16", 4),
    (FORMATS, "self.val2 == timestamp('2011-08-18T00:00:00.000+01:00') + duration('19h3m37s10ms')", 4),
    (FORMATS, "self.val2.getDate('01:00') == 18", 4), (FORMATS, "self.val4 == b'AB'", 3), (FORMATS, "size(self.val4) == 2", 4),
    (FORMATS, "type(self.val5) == double", 4), (FORMATS, "self.val5 == 1.0", 3),
    (UNION, "type(self.something) == int ? self.something == 1 : self.something == '25%'", 7),
    (UNION, "type(self.something) == string && self.something == '25%'", 7), (UNION, "self.something == '25%'", 3),
    (UNION, "self.something != 1", 3), (UNION, "self.something == 1 || self.something == '25%'", 6),
    (UNION, "self.something == '25%' || self.something == 1", 3), (UNION, "self.something != ['anything']", 3),
    (UNION, r"type(self.something) == string && self.something.matches(r'(\d+(\.\d+)?%)')", 10),
]  # fmt: skip


def of(schema: Json) -> Environment:
    type = openapi_type(schema)
    assert type is not None
    return environment({"self": type})


@pytest.mark.parametrize(("case", "rule", "expected"), COSTS, ids=[rule for _, rule, _ in COSTS])
def test_rules_hold_and_cost_what_they_cost_in_kubernetes(
    case: tuple[Json, Json], rule: str, expected: int
) -> None:
    schema, value = case
    result, cost = compile(of(schema), rule).run({"self": value})
    assert (result, cost) == (True, expected)


def test_an_error_in_some_rounds_costs_as_much_as_a_value() -> None:
    env = of(LIST_MAP[0])
    assert compile(env, "self.listMap.exists(m, m.v2 == 'z')").run({"self": LIST_MAP[1]}) == (True, 24)
    assert compile(env, "!self.listMap.all(m, m.v2 != 'z')").run({"self": LIST_MAP[1]}) == (True, 22)


def test_the_budget_ends_an_evaluation_and_nothing_absorbs_it() -> None:
    env = of(ARRAY[0])
    value = {"self": {"array": list(range(1000))}}
    for rule in (
        "self.array.all(a, self.array.all(b, a * b >= 0)) || true",
        "true || self.array.all(a, a < 0)",
    ):
        program = compile(env, rule)
        if rule.startswith("true"):
            assert program(value) is True
            continue
        with pytest.raises(
            BudgetExceeded, match=r"^operation cancelled: actual cost limit exceeded$"
        ) as caught:
            program(value)
        assert PER_CALL_LIMIT < caught.value.cost < PER_CALL_LIMIT + 100
    program = compile(env, "self.array.exists(a, a == 10)")
    _, cost = program.run(value)
    assert program(value, cost) is True
    with pytest.raises(BudgetExceeded):
        program(value, cost - 1)


def test_an_error_tells_what_was_spent() -> None:
    program = compile(of(ARRAY[0]), "self.array[99] > 1")
    with pytest.raises(CelError) as caught:
        program({"self": {"array": []}})
    assert caught.value.cost == 4
