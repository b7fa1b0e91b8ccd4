"""What is to be different when a log is run again: other code, other settings, another scheduler, other machines.

    changes = Changes(swaps=("deployment=my.module:plan",), settings=("garbage-collector.…=…",), nodes="+2")
    options = changes.prepare().options(options)

`Changes` is what a person typed and travels between processes; `prepare` finds what it names. A swapped controller keeps
its name, its identity and its place: only what decides is another.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import orjson

from kcp.base.values import frozen
from kcp.controllers.sources import Controller
from kcp.controllers.table import CONTROLLERS, OFF_BY_DEFAULT, by_name
from kcp.controlplane.cluster import ClusterOptions
from kcp.node.fleet import NodeSpec
from kcp.replay.constants import (
    SCHEDULER,
    Number,
    Place,
    constants_of,
    is_constant,
    modules_of,
    place_of,
    scheduler_modules,
    scheduler_with,
    told,
    with_constants,
)
from kcp.replay.fitting import documents_of
from kcp.replay.machines import node_spec
from kcp.replay.tripwire import armed
from kcp.scheduler.profiles import Configuration, read_configuration

Settings = Mapping[str, Mapping[str, Any]]
Constants = Mapping[Place, Number]
MODULE_PREFIX = "kcp_swapped_"
_NUMBERED = re.compile(r"(.*?)(\d+)")


@frozen
class Changes:
    """As typed: `NAME=module:CONTROLLER`, `controller.setting=value`, `N`, `+N`, `-NAME` or a file (with commas), a file."""

    swaps: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    nodes: str = ""
    scheduler_config: str = ""

    def __bool__(self) -> bool:
        return self != Changes()

    def __str__(self) -> str:
        told = [f"{text}" for text in (*self.swaps, *self.settings)]
        told += [f"scheduler configuration {self.scheduler_config}"] if self.scheduler_config else []
        told += [f"nodes {self.nodes}"] if self.nodes else []
        return ", ".join(told) or "nothing"

    def prepare(self) -> Prepared:
        """Raises ValueError for what cannot be meant."""
        _machines(self.nodes, [])
        controllers = dict(swapped(text) for text in self.swaps)
        settings, constants = _settings(self.settings)
        scheduling = constants.pop(SCHEDULER, {})
        for name, values in constants.items():
            if name in controllers:
                raise ValueError(f"{name} is swapped: its constants are in the code that takes its place")
            controllers[name] = with_constants(by_name(name), values)
        return Prepared(
            controllers,
            settings,
            self.nodes,
            read_configuration(self.scheduler_config) if self.scheduler_config else None,
            scheduling,
        )


@frozen
class Prepared:
    """`controllers` and `settings` by the controller's full name."""

    controllers: Mapping[str, Controller] = attrs.field(factory=dict)
    settings: Settings = attrs.field(factory=dict)
    nodes: str = ""
    scheduler: Configuration | None = None
    scheduling: Constants = attrs.field(factory=dict)
    """Constants of the scheduler; those of a controller have made it another one."""

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """What is to be different in this process while a run lasts: code that may not ask the clock, constants."""
        with armed(*self.modules), scheduler_with(self.scheduling):
            yield

    def options(self, options: ClusterOptions) -> ClusterOptions:
        """The same cluster with these changes. One that is off by default runs when it is swapped in."""
        running = [self.controllers.get(each.name, each) for each in options.controllers]
        running += [
            each
            for name, each in self.controllers.items()
            if name not in {c.name for c in options.controllers}
        ]
        changed = attrs.evolve(
            options,
            controllers=tuple(running),
            controller_settings=_merged(options.controller_settings, self.settings),
        )
        if self.scheduler is not None:
            changed = attrs.evolve(changed, scheduler_configuration=self.scheduler)
        if self.nodes:
            changed = attrs.evolve(changed, machines=_machines(self.nodes, options.node_specs()))
        return changed

    def check_machines(self, names: Collection[str]) -> None:
        """Raises ValueError when a machine is to be missing that never was there."""
        for part in self.nodes.split(","):
            if part.strip().startswith("-") and part.strip()[1:] not in names:
                raise ValueError(f"there is no node {part.strip()[1:]!r}; there are {', '.join(names)}")

    @property
    def modules(self) -> tuple[str, ...]:
        """Where the swapped code is from."""
        return tuple(dict.fromkeys(each.plan.__module__ for each in self.controllers.values()))


# --- swapped code ---


def swapped(text: str) -> tuple[str, Controller]:
    """(name, controller) of `NAME=module:CONTROLLER`. What is named is a Controller or a planner. Raises ValueError."""
    name, _, where = text.partition("=")
    try:
        original = by_name(name.strip())
    except KeyError:
        raise ValueError(f"no controller {name.strip()!r}; there are {', '.join(_names())}") from None
    found = _load(where.strip(), text)
    if isinstance(found, Controller):
        return original.name, attrs.evolve(found, name=original.name, identity=original.identity)
    if callable(found) and not isinstance(found, type):
        return original.name, attrs.evolve(original, plan=found)
    raise ValueError(f"{where} is neither a Controller nor a planner (key, view, env)")


def _names() -> list[str]:
    return [each.name.removesuffix("-controller") for each in (*CONTROLLERS, *OFF_BY_DEFAULT)]


def _load(where: str, text: str) -> Any:
    place, _, attribute = where.rpartition(":")
    if not place or not attribute.isidentifier():
        raise ValueError(f"{text!r} swaps nothing: want NAME=module:CONTROLLER or NAME=file.py:CONTROLLER")
    module = _from_file(place) if place.endswith(".py") else _imported(place)
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise ValueError(f"{place} has no {attribute}") from None


def _from_file(place: str) -> ModuleType:
    path = Path(place)
    name = MODULE_PREFIX + path.stem.replace("-", "_")
    made = importlib.util.spec_from_file_location(name, path)
    if made is None or made.loader is None or not path.is_file():
        raise ValueError(f"there is no file {path}")
    module = sys.modules[name] = importlib.util.module_from_spec(made)
    with _as_value_error(place):
        made.loader.exec_module(module)
    return module


def _imported(place: str) -> ModuleType:
    """From what is installed, or from the directory where the command was typed."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    with _as_value_error(place):
        return importlib.import_module(place)


@contextmanager
def _as_value_error(place: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise ValueError(f"{place} does not load: {error!r}") from error


# --- settings ---


def _settings(texts: Sequence[str]) -> tuple[Settings, dict[str, dict[Place, Number]]]:
    """(settings, constants), by the controller's full name, constants of the scheduler by its own."""
    settings: dict[str, dict[str, Any]] = {}
    constants: dict[str, dict[Place, Number]] = {}
    for text in texts:
        left, equals, value = text.partition("=")
        name, dot, what = left.strip().partition(".")
        if not equals or not dot:
            raise ValueError(
                f"{text!r} sets nothing: want controller.setting=value or controller.CONSTANT=value"
            )
        controller = None if name == SCHEDULER else _controller(name)
        if controller is None or is_constant(what.rpartition(".")[2]):
            component = name if controller is None else controller.name
            modules = scheduler_modules() if controller is None else modules_of(controller)
            place = place_of(component, modules, what)
            constants.setdefault(component, {})[place] = _number(place, value.strip())
            continue
        if what not in controller.settings or what == "resources":
            raise ValueError(f"{controller.name} has no setting {what!r}; {_settable(controller)}")
        settings.setdefault(controller.name, {})[what] = _value(value.strip())
    return settings, constants


def _controller(name: str) -> Controller:
    try:
        return by_name(name)
    except KeyError:
        raise ValueError(f"no controller {name!r}; there are {', '.join([*_names(), SCHEDULER])}") from None


def _settable(controller: Controller) -> str:
    known = sorted(set(controller.settings) - {"resources"})
    settings = f"it has {', '.join(known)}" if known else "it has none"
    return f"{settings}; of constants {told(constants_of(modules_of(controller)))}"


def _number(place: Place, text: str) -> Number:
    value = _value(text)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{place[1]} is a number, not {text!r}")
    return value


def _value(text: str) -> Any:
    """JSON, or else the text itself."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _merged(one: Settings, other: Settings) -> Settings:
    names = dict.fromkeys([*one, *other])
    return {name: {**one.get(name, {}), **other.get(name, {})} for name in names}


# --- machines ---


def _machines(text: str, machines: Sequence[NodeSpec]) -> tuple[NodeSpec, ...]:
    """`5`: so many, `+2`: two more like the last, `-node-1`: without that one, a file: those in it; several with commas."""
    found = list(machines)
    for part in filter(None, (each.strip() for each in text.split(","))):
        if part.isdecimal():
            wanted = int(part)
            found = found[:wanted] + _more(found, wanted - len(found))
        elif part.startswith("+") and part[1:].isdecimal():
            found += _more(found, int(part[1:]))
        elif part.startswith("-") and len(part) > 1:
            found = [machine for machine in found if machine.name != part[1:]]
        elif Path(part).is_file():
            given = [
                node_spec(obj) for obj in documents_of(Path(part).read_text()) if obj.get("kind") == "Node"
            ]
            names = {machine.name for machine in given}
            found = [machine for machine in found if machine.name not in names] + given
        else:
            raise ValueError(f"{part!r} says nothing about nodes: want N, +N, -NAME or a file with Nodes")
    return tuple(found)


def _more(machines: Sequence[NodeSpec], count: int) -> list[NodeSpec]:
    """Like the last one, without what only that one has; names go on counting."""
    like = machines[-1] if machines else NodeSpec("node-0")
    labels = {name: value for name, value in like.labels.items() if name != "kubernetes.io/hostname"}
    taken = {machine.name for machine in machines}
    found: list[NodeSpec] = []
    match = _NUMBERED.fullmatch(like.name)
    stem, number = (match[1], int(match[2])) if match else (f"{like.name}-", 1)
    while len(found) < count:
        number += 1
        name = f"{stem}{number}"
        if name not in taken:
            found.append(attrs.evolve(like, name=name, labels=labels, ip="", pod_cidr=""))
    return found
