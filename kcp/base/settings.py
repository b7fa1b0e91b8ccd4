"""Settings: attrs classes whose fields carry unit, default and help; a flag beats the environment beats the file.

    @attrs.frozen
    class DaemonSettings:
        listen: str = setting("127.0.0.1:6443", "Address to serve on.")
        bookmark_interval_s: float = setting(60.0, "Seconds between bookmarks of an idle watch.")

    load(DaemonSettings, flags={"listen": "…"}, file=Path("kcp.toml"))

Environment variables are `KCP_` and the field's name in capitals; the file is TOML with the field names as keys.
This is the only module that reads the process environment.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast, get_type_hints

import attrs

from kcp.base.values import frozen

S = TypeVar("S")
PREFIX = "KCP_"

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


class SettingError(ValueError):
    """Raised when a setting is unknown or its value cannot be read; names the setting and where it came from."""


def setting(default: Any, help: str, *, secret: bool = False) -> Any:
    """A field of a settings class. Mutable defaults are not allowed: use tuples."""
    return attrs.field(default=default, metadata={"help": help, "secret": secret})


@frozen
class SettingRow:
    """One line of the reference: name, environment variable, type, default, help."""

    name: str
    environment: str
    type: str
    default: str
    help: str


def rows(cls: type[Any]) -> list[SettingRow]:
    """The fields of a settings class, for documentation and `--help`."""
    hints = get_type_hints(cls)
    return [
        SettingRow(
            field.name,
            environment_name(field.name),
            getattr(hints[field.name], "__name__", str(hints[field.name])),
            "" if field.metadata.get("secret") else str(field.default),
            field.metadata.get("help", ""),
        )
        for field in attrs.fields(cls)
    ]


def environment_name(field: str) -> str:
    return PREFIX + field.upper()


def load(
    cls: type[S],
    *,
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> S:
    """Build settings. Flags that are None count as not given. Raises SettingError.

    `environment` defaults to the process's own.
    """
    environment = process_environment() if environment is None else environment
    names = [field.name for field in attrs.fields(cast(Any, cls))]
    values = _from_file(cls, names, file) if file is not None else {}
    hints = get_type_hints(cls)
    for name in names:
        text = environment.get(environment_name(name))
        if text is not None:
            values[name] = parse(hints[name], text, environment_name(name))
    values.update({name: value for name, value in (flags or {}).items() if value is not None})
    unknown = [name for name in values if name not in names]
    if unknown:
        raise SettingError(f"unknown setting {unknown[0]!r}")
    return cls(**values)


def _from_file(cls: type[Any], names: list[str], file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            values = tomllib.load(stream)
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SettingError(f"{file}: {error}") from error
    hints = get_type_hints(cls)
    for name, value in values.items():
        if name not in names:
            raise SettingError(f"{file}: unknown setting {name!r}")
        values[name] = (
            tuple(value) if isinstance(value, list) else _checked(hints[name], value, f"{file}: {name}")
        )
    return values


def _checked(hint: Any, value: Any, source: str) -> Any:
    if hint is float and type(value) is int:
        return float(value)
    if isinstance(hint, type) and not isinstance(value, hint):
        raise SettingError(f"{source}: expected {hint.__name__}, not {value!r}")
    return value


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError("expected true or false")


_READERS: dict[Any, Callable[[str], Any]] = {bool: _boolean, int: int, float: float, str: str, Path: Path}


def parse(hint: Any, text: str, source: str) -> Any:
    """A value from its text form. Tuples are comma-separated. Raises SettingError."""
    try:
        if getattr(hint, "__origin__", None) is tuple:
            read = _READERS.get(hint.__args__[0], str)
            return tuple(read(part.strip()) for part in text.split(",") if part.strip())
        return _READERS.get(hint, str)(text)
    except ValueError as error:
        raise SettingError(f"{source}: {text!r}: {error}") from error


def process_environment() -> Mapping[str, str]:
    """The environment of this process, read-only."""
    return MappingProxyType(dict(os.environ))


def environment_value(name: str, default: str = "") -> str:
    """One variable of this process, for those that are not ours: KUBECONFIG, HOME, KUBERNETES_SERVICE_HOST, EDITOR."""
    return os.environ.get(name, default)


def home_directory() -> Path:
    return Path(environment_value("HOME") or "/")


def process_id() -> int:
    return os.getpid()


def host_name() -> str:
    """What this machine calls itself, in lower case, as node names and leader identities use it."""
    return os.uname().nodename.lower()
