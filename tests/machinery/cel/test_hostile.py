"""Input made to hurt: it is refused or ends within the budget."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcp.machinery.cel.environment import compile
from kcp.machinery.cel.source import CompileError
from kcp.machinery.cel.values import BudgetExceeded, CelError
from tests.machinery.cel.support import ALL, VALUES


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="xilsm.()[]{}?:,=!<>&|+-*/%'\"\\ub01 \n", max_size=40))
def test_any_text_is_an_expression_or_refused(source: str) -> None:
    try:
        program = compile(ALL, source)
    except CompileError:
        return
    try:
        program(VALUES)
    except CelError as error:
        assert str(error)


@pytest.mark.parametrize(
    "source",
    [
        "cel.bind(a, s + s, " * 50 + "a" + ")" * 50,
        "[" * 79 + "]" * 79,
        "l" + ".map(e, e)" * 100,
        "x" + ".a" * 140,
        "1" + " + 1" * 148,
        "true" + " && true" * 9000,
        "l.all(a, " * 12 + "true" + ")" * 12,
        "'" + "a" * 90_000 + "' == s",
        "s.matches('" + "(a|b)*" * 3000 + "')",
        "-" * 5000 + "1",
        "{" + ", ".join(f"{n}: {n}" for n in range(7000)) + "}.size() == 7000",
    ],
    ids=range(11),
)  # fmt: skip
def test_large_expressions_are_bounded(source: str) -> None:
    try:
        compile(ALL, source)(VALUES)
    except (CompileError, CelError) as error:
        assert (
            "recursion" in str(error)
            or "cost limit" in str(error)
            or "no such key" in str(error)
            or "Syntax error" in str(error)
            or "no such overload" in str(error)
        )


@pytest.mark.parametrize(
    "source",
    [
        "cel.bind(a, s + s, cel.bind(b, a + a + a + a, cel.bind(c, b + b + b + b, cel.bind(d, c + c + c + c, d + d + d + d))))",
        "s.split('').all(a, s.split('').all(b, a + b != ''))",
        "s.replace('', s).size() > 0",
        "('%s'.replace('', '%s%s%s%s')).format([s, s, s, s, s, s, s, s, s, s, s, s, s]).size() > 0",
        "[l]" + ".map(a, a + a)" * 40 + ".size() > 0",
        "cel.bind(a, [[1, 1]]" + ".map(a, [a, a])" * 40 + ", a == a)",
        "dyn([1]" + ".map(a, [a, a])" * 40 + ").isSorted()",
        "dyn([[1]]) in [1]" + ".map(a, [a, a])" * 40,
        "'%s'.format([1]" + ".map(a, [a, a])" * 40 + ").size() > 0",
        "sets.contains([1]" + ".map(a, [a, a])" * 40 + ", [1]" + ".map(a, [a, a])" * 40 + ")",
        "s.matches('(a*)*(b|c|d)*(e|f|g)*h$')",
        "s.split('').join(s).size() > 0",
    ],
)
def test_large_values_run_into_the_budget(source: str) -> None:
    with pytest.raises(BudgetExceeded):
        compile(ALL, source)({**VALUES, "s": "a" * 2_000_000}, 1_000_000)
