"""Named constants of a controller or of the scheduler, for a run in which they have other values.

    other = with_constants(by_name("node-lifecycle"), {"GRACE_S": 20.0})

A controller's modules are executed once more with the assignment changed, so that whatever is made from a constant when a module
is loaded (a default, the period of a timer) follows, and other controllers that use the same module keep theirs. The
scheduler's constants are set where they are, for as long as a block lasts.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from types import ModuleType

import attrs

import kcp.scheduler
from kcp.controllers.sources import Controller

Number = int | float
Place = tuple[str, str]
"""(module, name)."""
ROOM = "kcp.controllers"
SEAMS = frozenset(
    f"{ROOM}.{name}" for name in ("effects", "sources", "view", "decisions", "execute", "driver", "table")
)
"""What all controllers share with whoever runs them: never loaded twice."""
SCHEDULER = "scheduler"
LISTED = 24
_NAME = re.compile(r"[A-Z][A-Z0-9_]*")


def is_constant(name: str) -> bool:
    """By its spelling: settings are written small."""
    return _NAME.fullmatch(name) is not None


def constants_of(modules: Sequence[str]) -> dict[Place, Number]:
    """Every number that is named at the top of these modules."""
    found: dict[Place, Number] = {}
    for name in modules:
        module = importlib.import_module(name)
        for constant in _assigned(name):
            value = getattr(module, constant, None)
            if isinstance(value, (int, float)):
                found[name, constant] = value
    return found


@cache
def _assigned(module: str) -> tuple[str, ...]:
    """Names in capitals that the module itself assigns."""
    found: list[str] = []
    for node in _tree(module).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        for target in targets:
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            found += [each.id for each in names if isinstance(each, ast.Name) and is_constant(each.id)]
    return tuple(found)


def _tree(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(importlib.import_module(module)))


def place_of(component: str, modules: Sequence[str], asked: str) -> Place:
    """Which constant is meant by `NAME`, or by `module.NAME` where several modules have it. Raises ValueError."""
    known = constants_of(modules)
    where, _, name = asked.rpartition(".")
    places = [place for place in known if place[1] == name and (not where or place[0].endswith(f".{where}"))]
    if len(places) == 1:
        return places[0]
    if places:
        choice = " or ".join(
            f"{component}.{module.rpartition('.')[2]}.{name}={known[module, name]}" for module, _ in places
        )
        raise ValueError(f"{component} has several constants {name}: say {choice}")
    raise ValueError(f"{component} has no constant {asked!r}; {told(known)}")


def told(known: Mapping[Place, Number]) -> str:
    names = [f"{name}={value}" for (_, name), value in known.items()]
    if not names:
        return "it has none"
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"it has {', '.join(names[:LISTED])}{more}"


# --- controllers ---


def modules_of(controller: Controller) -> list[str]:
    """The modules that its planner is made of, its own first."""
    found = [controller.plan.__module__]
    for name in found:
        found += [each for each in _used(name) if each not in found]
    return found


@cache
def _used(module: str) -> tuple[str, ...]:
    """The modules of the room that this one takes something from."""
    found: dict[str, None] = {}
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(ROOM):
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(dict.fromkeys(each for each in [*inside, node.module] if each in sys.modules))
    return tuple(name for name in found if name not in SEAMS and not hasattr(sys.modules[name], "__path__"))


def with_constants(controller: Controller, values: Mapping[Place, Number]) -> Controller:
    """The same controller, from modules in which these constants are others."""
    holder, attribute = _holder(controller)
    modules = [*modules_of(controller)]
    if holder not in modules:
        modules.append(holder)
    told_apart = hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()[:8]
    copies = _Copies(
        frozenset(modules), values, f"kcp_set_{controller.identity}_{told_apart}".replace("-", "_")
    )
    found: Controller = getattr(copies.load(holder), attribute)
    return attrs.evolve(found, name=controller.name, identity=controller.identity)


def _holder(controller: Controller) -> Place:
    """Where it is defined."""
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{ROOM}.") and name not in SEAMS and hasattr(module, "__file__"):
            for attribute, value in vars(module).items():
                if value is controller:
                    return name, attribute
    raise ValueError(f"{controller.name} is not of this package: its constants are in its own code")


@attrs.define
class _Copies:
    """Modules, executed once more under names of their own."""

    modules: frozenset[str]
    values: Mapping[Place, Number]
    prefix: str

    def load(self, name: str) -> ModuleType:
        own = self._called(name)
        if own not in sys.modules:
            module = sys.modules[own] = ModuleType(own)
            tree = ast.fix_missing_locations(_Changed(self, name).visit(_tree(name)))
            exec(compile(tree, f"<{name} with other constants>", "exec"), module.__dict__)
        return sys.modules[own]

    def _called(self, name: str) -> str:
        return f"{self.prefix}__{name.replace('.', '_')}"


@attrs.define
class _Changed(ast.NodeTransformer):
    """A module's text with its constants changed, importing the copies."""

    copies: _Copies
    module: str

    def visit_Assign(self, node: ast.Assign) -> ast.Assign:
        for target in node.targets:
            if isinstance(target, ast.Name) and (self.module, target.id) in self.copies.values:
                node.value = ast.Constant(self.copies.values[self.module, target.id])
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                for at, each in enumerate(target.elts):
                    if isinstance(each, ast.Name) and (self.module, each.id) in self.copies.values:
                        node.value.elts[at] = ast.Constant(self.copies.values[self.module, each.id])
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom | list[ast.stmt]:
        if node.module in self.copies.modules:
            node.module = self.copies.load(node.module).__name__
            return node
        left, found = [], []
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            if name in self.copies.modules:
                copy = self.copies.load(name).__name__
                found.append(ast.Import([ast.alias(copy, alias.asname or alias.name)]))
            else:
                left.append(alias)
        node.names = left
        return [*found, *([node] if left else [])]


# --- the scheduler ---


@cache
def scheduler_modules() -> tuple[str, ...]:
    """All of its modules that it runs on; its tests' oracle is none of them."""
    names = pkgutil.walk_packages(kcp.scheduler.__path__, "kcp.scheduler.")
    return tuple(each.name for each in names if each.name in sys.modules and not each.ispkg)


@contextmanager
def scheduler_with(values: Mapping[Place, Number]) -> Iterator[None]:
    """While the block lasts these constants are others, wherever a module has taken them to."""
    before: list[tuple[ModuleType, str, Number]] = []
    for (module, name), value in values.items():
        original = getattr(sys.modules[module], name)
        for other in scheduler_modules():
            holder = sys.modules[other]
            if other == module or (getattr(holder, name, None) is original and name not in _assigned(other)):
                before.append((holder, name, original))
                setattr(holder, name, value)
    try:
        yield
    finally:
        for holder, name, original in before:
            setattr(holder, name, original)
