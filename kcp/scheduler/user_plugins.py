"""Finds users' plugins: `module:Class` from what is installed, `folder/file.py:Class` from a file.

found = load("data_locality.py:DataLocality", base="/etc/kcp")
found.plugin         # the class
found.sha256         # of the file it is from: part of what a decision was made with
impurities(source)   # what in it would make a decision depend on more than the log
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
from pathlib import Path
from types import ModuleType

from kcp.base.values import frozen
from kcp.scheduler.framework.user_plugin import METHODS

IMPURE_MODULES = frozenset(
    {"asyncio", "http", "io", "multiprocessing", "os", "pathlib", "random", "requests", "secrets", "shutil",
     "socket", "subprocess", "tempfile", "threading", "time", "urllib", "uuid"}
)  # fmt: skip
IMPURE_CALLS = frozenset({"now", "today", "utcnow", "open", "input", "exec", "eval"})
MODULE_PREFIX = "kcp_scheduler_plugin_"


class PluginNotFound(ValueError):
    """Raised when a name leads to no plugin class; the message says why."""


@frozen
class UserPluginSource:
    """Where a plugin is from. `path` is empty for one that is installed as a module."""

    spec: str
    plugin: type
    path: str
    sha256: str
    impurities: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the plugin is called in refusals and scores."""
        return str(getattr(self.plugin, "name", "") or self.plugin.__name__)


def is_spec(name: str) -> bool:
    return ":" in name


def load(spec: str, base: str = "") -> UserPluginSource:
    """Paths are relative to `base`. Raises PluginNotFound."""
    where, _, class_name = spec.rpartition(":")
    if not where or not class_name.isidentifier():
        raise PluginNotFound(f"{spec!r} names no plugin: want module:Class or file.py:Class")
    path, module = _file_module(where, base) if where.endswith(".py") else ("", _installed(where))
    plugin = getattr(module, class_name, None)
    if not isinstance(plugin, type):
        raise PluginNotFound(f"{where} has no class {class_name}")
    if not any(hasattr(plugin, method) for method in METHODS):
        raise PluginNotFound(f"{spec} has none of the methods {', '.join(METHODS)}")
    source = Path(path).read_text() if path else inspect.getsource(module)
    return UserPluginSource(
        spec, plugin, path, hashlib.sha256(source.encode()).hexdigest(), tuple(impurities(source))
    )


def _file_module(where: str, base: str) -> tuple[str, ModuleType]:
    path = Path(base, where)
    name = MODULE_PREFIX + path.stem.replace("-", "_")
    made = importlib.util.spec_from_file_location(name, path)
    if made is None or made.loader is None or not path.is_file():
        raise PluginNotFound(f"no plugin file {path}")
    module = importlib.util.module_from_spec(made)
    try:
        made.loader.exec_module(module)
    except Exception as error:
        raise PluginNotFound(f"plugin file {path} does not load: {error!r}") from error
    return str(path), module


def _installed(where: str) -> ModuleType:
    try:
        return importlib.import_module(where)
    except Exception as error:
        raise PluginNotFound(f"plugin module {where} does not load: {error!r}") from error


def impurities(source: str) -> list[str]:
    """Imports and calls by which code could reach time, chance, files or the network, a line each."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Call):
            called = _called_name(node.func)
            if called in IMPURE_CALLS:
                found.append(f"line {node.lineno}: calls {called}()")
            continue
        else:
            continue
        found += [f"line {node.lineno}: imports {n}" for n in names if n.partition(".")[0] in IMPURE_MODULES]
    return found


def _called_name(function: ast.expr) -> str:
    if isinstance(function, ast.Name):
        return function.id
    return function.attr if isinstance(function, ast.Attribute) else ""
