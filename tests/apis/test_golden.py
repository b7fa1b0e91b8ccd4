"""What becomes of a manifest: `tests/golden/<group>/*.input.yaml` beside `*.output.yaml`.

An input is one manifest, or a header and one or two documents:

    base: pod             # tests/golden/bases/pod.yaml; the first document is merged into it
    operation: update     # create (the default), update, status, or print (as stored)
    show: spec.template   # the part of the result that `object` in the output stands for
    ---
    …the object
    ---
    …for update and status: the change, a merge patch of the stored object

An output says the errors in their order and, where given, the warnings, the object after defaulting (`object`: what
`show` names; `defaulted`: without type and metadata) and the cells of its table row, for an object five minutes old.
In an error `…` stands for the print of a structure or of a difference, whose form Go's internal types give.
"""

from copy import deepcopy
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import pytest
import yaml

from kcp.apis.catalog import build_catalog
from kcp.apis.kind import Kind
from kcp.machinery.patch.merge_patch import apply_merge_patch
from kcp.machinery.schema.compile import schema_for
from kcp.machinery.schema.validate import check
from kcp.machinery.times import format_time

Json = dict[str, Any]

_GOLDEN = Path(__file__).parents[1] / "golden"
_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_CATALOG = build_catalog()
_HEADER = {"base", "operation", "show"}


class _Loader(yaml.CSafeLoader):
    """Without timestamps, and without octal numbers."""


_Loader.yaml_implicit_resolvers = {
    first: [entry for entry in resolvers if entry[0] != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@attrs.frozen
class _Case:
    operation: str
    show: str
    obj: Json
    change: Json
    kind: Kind


@cache
def _documents(path: Path) -> list[Any]:
    return list(yaml.load_all(path.read_text(), _Loader))


def _load(path: Path) -> list[Any]:
    """A file's documents, the caller's own."""
    return deepcopy(_documents(path))


def _case(path: Path) -> _Case:
    header, *documents = _load(path)
    if not set(header) <= _HEADER:
        header, documents = {}, [header, *documents]
    obj, *rest = documents
    if "base" in header:
        (base,) = _load(_GOLDEN / "bases" / f"{header['base']}.yaml")
        obj = apply_merge_patch(base, obj)
    group, _, version = obj["apiVersion"].rpartition("/")
    kind = _CATALOG.by_kind(group, version, obj["kind"])
    assert kind is not None and kind.printer is not None
    return _Case(
        header.get("operation", "create"), header.get("show", ""), obj, rest[0] if rest else {}, kind
    )


def _pairs() -> list[Any]:
    found = sorted(_GOLDEN.glob("*/*.input.yaml"))
    return [pytest.param(path, id=f"{path.parent.name}/{path.name[: -len('.input.yaml')]}") for path in found]


def _create(case: _Case) -> list[str]:
    strategy = case.kind.strategy
    strategy.default(case.obj)
    strategy.prepare_create(case.obj)
    return [str(error) for error in strategy.validate_create(case.obj)]


def _stored(case: _Case) -> Json:
    """The object as it stands in the store: created, and with the status that the manifest gives."""
    obj: Json = apply_merge_patch(case.obj, {})
    case.kind.strategy.default(obj)
    status = obj.get("status")
    case.kind.strategy.prepare_create(obj)
    if "status" in case.obj:
        obj["status"] = status
    return obj


def _change(case: _Case) -> tuple[Json, Json, list[str]]:
    old = _stored(case)
    new: Json = deepcopy(apply_merge_patch(old, case.change))
    strategy = case.kind.strategy
    strategy.default(new)
    if case.operation == "status":
        strategy.prepare_status(new, old)
        errors = strategy.validate_status(new, old)
    else:
        strategy.prepare_update(new, old)
        errors = strategy.validate_update(new, old)
    return new, old, [str(error) for error in errors]


def _part(obj: Any, path: str) -> Any:
    for step in path.split(".") if path else ():
        obj = obj[int(step)] if step.isdigit() else obj[step]
    return obj


def _says(found: str, wanted: str) -> bool:
    before, dots, after = wanted.partition("…")
    if not dots:
        return found == wanted
    return len(found) > len(wanted) and found.startswith(before) and found.endswith(after)


def _check_errors(found: list[str], wanted: list[str]) -> None:
    if len(found) != len(wanted) or not all(map(_says, found, wanted)):
        assert found == wanted


@pytest.mark.parametrize("path", _pairs())
def test_manifest(path: Path) -> None:
    case, old = _case(path), None
    (wanted,) = _load(path.with_name(path.name.replace(".input.", ".output.")))
    obj = case.obj
    if case.operation == "create":
        _check_errors(_create(case), wanted["errors"])
    elif case.operation in ("update", "status"):
        obj, old, errors = _change(case)
        _check_errors(errors, wanted["errors"])
    if "warnings" in wanted:
        assert case.kind.strategy.warnings(obj, old) == wanted["warnings"]
    if "object" in wanted:
        assert _part(obj, case.show) == wanted["object"]
    if "defaulted" in wanted:
        parts = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind", "metadata")}
        assert parts == wanted["defaulted"]
    if "cells" in wanted:
        _check_cells(case.kind, obj, wanted["cells"])


def _check_cells(kind: Kind, obj: Json, wanted: list[Any]) -> None:
    assert kind.printer is not None
    obj["metadata"]["creationTimestamp"] = format_time(_NOW - timedelta(minutes=5))
    cells = kind.printer.cells(obj, _NOW)
    assert cells == wanted
    assert len(cells) == len(kind.printer.columns)


def test_every_kind_has_its_pairs() -> None:
    """Kinds by storage: the versions of one share theirs."""
    seen = {_case(pair.values[0]).kind.resource for pair in _pairs()}
    assert [kind.gvk for kind in _CATALOG.kinds() if kind.stored and kind.resource not in seen] == []
    assert len(_pairs()) >= 600


@pytest.mark.parametrize("path", _pairs())
def test_defaulting_twice_changes_nothing(path: Path) -> None:
    case = _case(path)
    case.kind.strategy.default(case.obj)
    once = deepcopy(case.obj)
    case.kind.strategy.default(case.obj)
    assert case.obj == once


@pytest.mark.parametrize("path", _pairs())
def test_an_update_that_changes_nothing_is_valid_when_the_object_is(path: Path) -> None:
    case = _case(path)
    old = _stored(case)
    if case.operation == "print" or case.kind.strategy.validate_create(old):
        return
    new = deepcopy(old)
    case.kind.strategy.default(new)
    case.kind.strategy.prepare_update(new, old)
    assert case.kind.strategy.validate_update(new, old) == []


@pytest.mark.parametrize("path", _pairs())
def test_defaults_fit_the_schema(path: Path) -> None:
    case = _case(path)
    schema = schema_for(case.kind.gvk)
    assert schema is not None
    report = check(schema, _stored(case))
    assert report.unknown == []
    assert report.errors == []
