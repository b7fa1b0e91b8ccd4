"""The door to CEL: an environment says which names, functions and messages expressions may use; compile and run.

    env = environment({"self": schema_type(...)})
    program = compile(env, "self.replicas <= 5", BOOL)
    program({"self": {"replicas": 3}})            # True

Programs are pure and can be shared; whoever compiles the same text again and again keeps an LRU.

Source: k8s v1.36 apiserver/pkg/cel/environment/base.go, apiserver/pkg/apis/cel/config.go (limits).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from kcp.base.values import frozen
from kcp.machinery.cel.check import Messages, check
from kcp.machinery.cel.closures import OVER_BUDGET, Code
from kcp.machinery.cel.compile import Build, Compiler
from kcp.machinery.cel.convert import Convert, converter
from kcp.machinery.cel.functions import Functions, merged
from kcp.machinery.cel.libraries import KUBERNETES, TYPES
from kcp.machinery.cel.parse import children, parse
from kcp.machinery.cel.source import CompileError, Issue
from kcp.machinery.cel.standard import OPTIONALS, STANDARD
from kcp.machinery.cel.syntax import Comprehension, Ident, Node
from kcp.machinery.cel.types import DYN, Type
from kcp.machinery.cel.values import BudgetExceeded, CelError, Struct, no_overload

PER_CALL_LIMIT: Final = 1_000_000
"""What one evaluation may cost. Source: k8s v1.36 apis/cel/config.go PerCallLimit."""
RUNTIME_BUDGET: Final = 10_000_000
"""What all rules of one object may cost together. Source: RuntimeCELCostBudget."""
OUT_OF_BUDGET: Final = (
    "validation failed due to running out of cost budget, no further validation rules will be run"
)


def _no_messages(_: str) -> Type | None:
    return None


def _with_library_types(messages: Messages) -> Messages:
    return lambda name: TYPES.get(name) or messages(name)


@frozen
class Environment:
    """What expressions may use. `messages` finds the type of `Name{…}`, `build` makes its value."""

    variables: Mapping[str, Type]
    functions: Functions
    messages: Messages = _no_messages
    build: Build = Struct
    bindings: bool = False
    """Whether `cel.bind(name, value, expression)` is known; Kubernetes has it in device selectors only."""


def environment(
    variables: Mapping[str, Type],
    libraries: Iterable[Functions] = KUBERNETES,
    messages: Messages = _no_messages,
    build: Build = Struct,
) -> Environment:
    """An environment with CEL's own functions, optionals and the given libraries (Kubernetes' if none are named)."""
    return Environment(
        dict(variables), merged(STANDARD, OPTIONALS, *libraries), _with_library_types(messages), build
    )


@attrs.frozen(slots=True, eq=False)
class Program:
    """A compiled expression. `type` is what it evaluates to."""

    source: str
    type: Type
    tree: Node
    _code: Code
    _cost: int
    _variables: tuple[tuple[str, Convert | None], ...]
    _extra: tuple[None, ...]

    def __call__(self, bindings: Mapping[str, Any], limit: int = PER_CALL_LIMIT) -> Any:
        """The value. Raises CelError; BudgetExceeded when it would cost more than `limit`."""
        return self.run(bindings, limit)[0]

    def run(self, bindings: Mapping[str, Any], limit: int = PER_CALL_LIMIT) -> tuple[Any, int]:
        """The value and what it cost. Raises as `__call__`; the error's `cost` is what was spent."""
        frame: list[Any] = [limit - self._cost]
        for name, convert in self._variables:
            if name not in bindings:
                frame.append(None)
                continue
            value = bindings[name]
            frame.append(value if convert is None else convert(value))
        frame.extend(self._extra)
        try:
            value = self._code(frame)
        except CelError as error:
            error.cost = limit - frame[0]
            raise
        except (TypeError, AttributeError):
            failed = no_overload()
            failed.cost = limit - frame[0]
            raise failed from None
        except RecursionError:
            raise CelError("expression recursion limit exceeded") from None
        if frame[0] < 0:
            over = BudgetExceeded(OVER_BUDGET)
            over.cost = limit - frame[0]
            raise over
        return value, limit - frame[0]


def compile(env: Environment, source: str, *expected: Type) -> Program:
    """The program of an expression. Raises CompileError, also when its type is none of `expected` (dyn always fits).

    The text then is `must evaluate to bool`, as admission policies say it.
    """
    return compile_tree(env, parse(source, bindings=env.bindings), source, *expected)


def compile_tree(env: Environment, tree: Node, source: str, *expected: Type) -> Program:
    """`compile` for a tree that is parsed already, and perhaps changed."""
    type = check(tree, source, env.variables, env.functions, env.messages)
    if expected and type not in (DYN, *expected):
        names = " or ".join(str(each) for each in expected)
        raise WrongType(source, f"must evaluate to {names}", type)
    return _program(env, tree, source, type)


def _program(env: Environment, tree: Node, source: str, type: Type) -> Program:
    slots = {name: place for place, name in enumerate(env.variables, 1)}
    compiler = Compiler(slots, env.build)
    try:
        code, cost = compiler.expression(tree)
    except RecursionError:
        raise CompileError(source, [Issue(0, "expression recursion limit exceeded")]) from None
    variables = tuple((name, converter(given)) for name, given in env.variables.items())
    return Program(source, type, tree, code, cost, variables, (None,) * (compiler.slots - len(slots) - 1))


class WrongType(CompileError):
    """Raised when an expression evaluates to something else than it should; `type` is to what."""

    def __init__(self, source: str, message: str, type: Type) -> None:
        super().__init__(source, [Issue(0, message)])
        self.message = message
        self.type = type

    def __str__(self) -> str:
        return self.message


def mentions(program: Program, variable: str) -> bool:
    """Whether an expression uses a variable: a rule of a CRD that uses `oldSelf` is about changes only."""
    stack: list[tuple[Node, frozenset[str]]] = [(program.tree, frozenset())]
    while stack:
        node, hidden = stack.pop()
        if isinstance(node, Ident) and node.name.removeprefix(".") == variable and variable not in hidden:
            return True
        if isinstance(node, Comprehension):
            stack.append((node.range, hidden))
            inner = hidden | frozenset(node.names)
            stack.extend((part, inner) for part in (node.filter, node.body) if part is not None)
        else:
            stack.extend((child, hidden) for child in children(node))
    return False
