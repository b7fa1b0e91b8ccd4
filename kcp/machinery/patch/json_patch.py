"""JSON Patch (RFC 6902) as Kubernetes applies it.

Differences to the letter of the RFC are the library's that Kubernetes uses: negative indexes count from the end,
`replace` and `add` of a missing member both set it, `test` of a missing member equals null.
Source: k8s v1.36 vendor/gopkg.in/evanphx/json-patch.v4/patch.go, apiserver/pkg/endpoints/handlers/patch.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import orjson

from kcp.machinery.errors import BadRequest, Invalid, RequestEntityTooLarge, go_quote

Operation = dict[str, Any]

MAX_OPERATIONS: Final = 10_000
MAX_COPIED_BYTES: Final = 3 * 1024 * 1024
REFUSED: Final = "the server rejected our request due to an error in our request"
"""What clients see of any operation that fails; `JsonPatchError` has the reason."""

_MISSING: Final[Any] = object()
_NUMBER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_MEMBERS = ("op", "path", "from", "value")


class JsonPatchError(ValueError):
    """Raised inside when an operation does not apply, with the library's text; the cause of the Invalid outside."""


def apply_json_patch(doc: Any, operations: Any) -> Any:
    """`doc` after all operations; it shares with `doc` what they did not touch.

    Raises BadRequest for what is no list of operations, RequestEntityTooLarge for more than MAX_OPERATIONS, Invalid
    for an operation that does not apply.
    """
    _check_operations(operations)
    copied = 0
    try:
        for operation in operations:
            doc, size = _apply(doc, operation)
            copied += size
            if copied > MAX_COPIED_BYTES:
                raise JsonPatchError(
                    "Unable to complete the copy, the accumulated size increase of copy is "
                    f"{copied}, exceeding the limit {MAX_COPIED_BYTES}"
                )
    except JsonPatchError as error:
        raise Invalid(REFUSED, details={}) from error
    return doc


def unknown_members(operations: Any) -> list[str]:
    """Strict decoding's complaints: `json patch unknown field "[0].foo"`; none about what is no list of operations."""
    if not isinstance(operations, list):
        return []
    return [
        f"json patch unknown field {go_quote(f'[{index}].{name}')}"
        for index, operation in enumerate(operations)
        if isinstance(operation, dict)
        for name in operation
        if name not in _MEMBERS
    ]


def _check_operations(operations: Any) -> None:
    if not isinstance(operations, list):
        raise BadRequest(_decoding(operations, "[]handlers.jsonPatchOp"))
    for operation in operations:
        if not isinstance(operation, dict):
            raise BadRequest(_decoding(operation, "handlers.jsonPatchOp"))
        for name in ("op", "path", "from"):
            member = operation.get(name)
            if member is not None and not isinstance(member, str):
                where = f"Go struct field jsonPatchOp.{name} of type string"
                raise BadRequest(f"error decoding patch: json: cannot unmarshal {_kind(member)} into {where}")
    if len(operations) > MAX_OPERATIONS:
        raise RequestEntityTooLarge(
            f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}"
        )


def _decoding(value: Any, go_type: str) -> str:
    return f"error decoding patch: json: cannot unmarshal {_kind(value)} into Go value of type {go_type}"


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    names: tuple[tuple[type, str], ...] = (
        (str, "string"),
        (int, "number"),
        (float, "number"),
        (list, "array"),
    )
    return next((name for cls, name in names if isinstance(value, cls)), "object")


def _apply(doc: Any, operation: Operation) -> tuple[Any, int]:
    """The new document and how many bytes were copied."""
    kind = operation.get("op") or "unknown"
    handler = _OPERATIONS.get(kind)
    if handler is None:
        raise JsonPatchError(f"Unexpected kind: {kind}")
    return handler(doc, operation)


def _path(operation: Operation, kind: str) -> str:
    path = operation.get("path")
    if path is None:
        detail = (
            "missing value"
            if kind in ("add", "remove", "copy")
            else "operation missing path field: missing value"
        )
        raise JsonPatchError(f"{kind} operation failed to decode path: {detail}")
    return str(path)


def _from(operation: Operation, kind: str) -> str:
    source = operation.get("from")
    if source is None:
        raise JsonPatchError(
            f"{kind} operation failed to decode from: operation, missing from field: missing value"
        )
    return str(source)


def _add(doc: Any, operation: Operation) -> tuple[Any, int]:
    path = _path(operation, "add")
    parents, key = _parents(doc, path)
    if parents is None:
        raise JsonPatchError(f'add operation does not apply: doc is missing path: "{path}": missing value')
    with_it = _edit(path, "add", lambda: _added(parents[-1], key, operation.get("value")))
    return _rebuilt(parents, path, with_it), 0


def _remove(doc: Any, operation: Operation) -> tuple[Any, int]:
    path = _path(operation, "remove")
    parents, key = _parents(doc, path)
    if parents is None:
        raise JsonPatchError(f'remove operation does not apply: doc is missing path: "{path}": missing value')
    without = _edit(path, "remove", lambda: _removed(parents[-1], key))
    return _rebuilt(parents, path, without), 0


def _replace(doc: Any, operation: Operation) -> tuple[Any, int]:
    path = _path(operation, "replace")
    if path == "":
        value = operation.get("value")
        if not isinstance(value, (dict, list)):
            raise JsonPatchError("replace operation value must be object or array: %!w(<nil>)")
        return value, 0
    parents, key = _parents(doc, path)
    if parents is None:
        raise JsonPatchError(f"replace operation does not apply: doc is missing path: {path}: missing value")
    try:
        _member(parents[-1], key)
    except JsonPatchError:
        raise JsonPatchError(
            f"replace operation does not apply: doc is missing key: {path}: missing value"
        ) from None
    replaced = _edit(path, "remove", lambda: _set(parents[-1], key, operation.get("value")))
    return _rebuilt(parents, path, replaced), 0


def _move(doc: Any, operation: Operation) -> tuple[Any, int]:
    source = _from(operation, "move")
    parents, key = _parents(doc, source)
    if parents is None:
        raise JsonPatchError(
            f"move operation does not apply: doc is missing from path: {source}: missing value"
        )
    value = _edit(key, "move", lambda: _member(parents[-1], key))
    without = _edit(key, "move", lambda: _removed(parents[-1], key))
    doc = _rebuilt(parents, source, without)
    path = _path(operation, "move")
    targets, key = _parents(doc, path)
    if targets is None:
        raise JsonPatchError(
            f"move operation does not apply: doc is missing destination path: {path}: missing value"
        )
    moved = None if value is _MISSING else value
    return _rebuilt(targets, path, _edit(path, "move", lambda: _added(targets[-1], key, moved))), 0


def _copy(doc: Any, operation: Operation) -> tuple[Any, int]:
    source = _from(operation, "copy")
    parents, key = _parents(doc, source)
    if parents is None:
        raise JsonPatchError(
            f"copy operation does not apply: doc is missing from path: {source}: missing value"
        )
    try:
        value = _member(parents[-1], key)
    except JsonPatchError as error:
        raise JsonPatchError(f"error in copy for from: '{source}': {error}") from None
    path = _path(operation, "copy")
    targets, key = _parents(doc, path)
    if targets is None:
        raise JsonPatchError(
            f"copy operation does not apply: doc is missing destination path: {path}: missing value"
        )
    copied = None if value is _MISSING else value
    try:
        with_it = _added(targets[-1], key, copied)
    except JsonPatchError as error:
        raise JsonPatchError(f"error while adding value during copy: {error}") from None
    return _rebuilt(targets, path, with_it), 0 if value is _MISSING else len(orjson.dumps(value))


def _test(doc: Any, operation: Operation) -> tuple[Any, int]:
    path = _path(operation, "test")
    wanted = operation.get("value")
    if path == "":
        found = doc
    else:
        parents, key = _parents(doc, path)
        if parents is None:
            raise JsonPatchError(f"test operation does not apply: is missing path: {path}: missing value")
        found = _edit(path, "test", lambda: _member(parents[-1], key))
    if not _equal(None if found is _MISSING else found, wanted):
        raise JsonPatchError(f"testing value {path} failed: test failed")
    return doc, 0


_OPERATIONS: dict[str, Callable[[Any, Operation], tuple[Any, int]]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "test": _test,
    "copy": _copy,
}


def _equal(a: Any, b: Any) -> bool:
    """Equality that tells true from 1."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _edit(where: str, kind: str, act: Callable[[], Any]) -> Any:
    try:
        return act()
    except JsonPatchError as error:
        raise JsonPatchError(f"error in {kind} for path: '{where}': {error}") from None


def _tokens(path: str) -> list[str]:
    return [token.replace("~1", "/").replace("~0", "~") for token in path.split("/")[1:]]


def _parents(doc: Any, path: str) -> tuple[list[Any] | None, str]:
    """The containers from the document down to the one that holds the last token; None when one is missing."""
    tokens = _tokens(path)
    if not tokens:
        return None, ""
    chain = [doc]
    for token in tokens[:-1]:
        try:
            inner = _member(chain[-1], token)
        except JsonPatchError:
            return None, ""
        if not isinstance(inner, (dict, list)):
            return None, ""
        chain.append(inner)
    return (chain, tokens[-1]) if isinstance(doc, (dict, list)) else (None, "")


def _rebuilt(parents: list[Any], path: str, changed: Any) -> Any:
    """The document with the innermost container replaced; copies only the containers on the way."""
    tokens = _tokens(path)
    for container, token in zip(reversed(parents[:-1]), reversed(tokens[:-1]), strict=True):
        copy = container.copy()
        copy[token if isinstance(container, dict) else _index(container, token, len(container) - 1)] = changed
        changed = copy
    return changed


def _index(items: list[Any], token: str, highest: int) -> int:
    if not _NUMBER.fullmatch(token):
        raise JsonPatchError(f"strconv.Atoi: parsing {go_quote(token)}: invalid syntax")
    index = int(token)
    if index > highest or index < -(highest + 1):
        raise JsonPatchError(f"Unable to access invalid index: {index}: invalid index referenced")
    return index if index >= 0 else index + highest + 1


def _member(container: Any, token: str) -> Any:
    """_MISSING for a member that an object does not have; a list raises."""
    if isinstance(container, dict):
        return container.get(token, _MISSING)
    return container[_index(container, token, len(container) - 1)]


def _added(container: Any, token: str, value: Any) -> Any:
    if isinstance(container, dict):
        return {**container, token: value}
    if token == "-":
        return [*container, value]
    if not _NUMBER.fullmatch(token):
        fault = f"strconv.Atoi: parsing {go_quote(token)}: invalid syntax"
        raise JsonPatchError(f"value was not a proper array index: '{token}': {fault}")
    index = _index(container, token, len(container))
    return [*container[:index], value, *container[index:]]


def _removed(container: Any, token: str) -> Any:
    if isinstance(container, dict):
        if token not in container:
            raise JsonPatchError(f"Unable to remove nonexistent key: {token}: missing value")
        return {key: member for key, member in container.items() if key != token}
    index = _index(container, token, len(container) - 1)
    return [*container[:index], *container[index + 1 :]]


def _set(container: Any, token: str, value: Any) -> Any:
    if isinstance(container, dict):
        return {**container, token: value}
    index = _index(container, token, len(container) - 1)
    return [*container[:index], value, *container[index + 1 :]]
