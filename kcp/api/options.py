"""The query parameters and option bodies of the verbs, checked as metav1's options are.

Source: k8s v1.36 apimachinery/pkg/apis/meta/v1/validation/validation.go,
apimachinery/pkg/apis/meta/internalversion/validation/validation.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

from kcp.api.context import Call
from kcp.base.values import frozen
from kcp.machinery.errors import (
    ApiError,
    BadRequest,
    FieldError,
    Invalid,
    forbidden,
    invalid,
    too_long,
    unsupported,
)

META_GROUP = "meta.k8s.io"
MAX_FIELD_MANAGER = 128

FieldValidation = Literal["Ignore", "Warn", "Strict"]
Match = Literal["", "Exact", "NotOlderThan"]

_FIELD_VALIDATIONS: Mapping[str, FieldValidation] = {
    "": "Warn",
    "Ignore": "Ignore",
    "Strict": "Strict",
    "Warn": "Warn",
}
_PROPAGATIONS = ("Foreground", "Background", "Orphan")


@frozen
class WriteOptions:
    """What create, update and patch share. `manager` is the given fieldManager or one made of the user agent."""

    manager: str
    given_manager: str = ""
    field_validation: FieldValidation = "Warn"
    dry_run: bool = False
    force: bool | None = None


@frozen
class DeleteOptions:
    """How to delete; None means that the client said nothing."""

    grace_s: int | None = None
    propagation: str | None = None
    orphan_dependents: bool | None = None
    uid: str | None = None
    resource_version: str | None = None
    dry_run: bool = False


@frozen
class ListOptions:
    """What list, watch and deletecollection share."""

    label_selector: str = ""
    field_selector: str = ""
    limit: int = 0
    continue_token: str = ""
    resource_version: str = ""
    match: Match = ""
    timeout_s: int = 0
    bookmarks: bool = False
    send_initial_events: bool | None = None


def flag(text: str | None) -> bool:
    """A boolean parameter: anything but absent, "false" and "0" is true. Source: conversion.go of runtime."""
    return text is not None and text.lower() not in ("false", "0")


def integer(text: str, bits: int = 64) -> int:
    try:
        return int(text)
    except ValueError:
        raise BadRequest(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def revision(text: str) -> int:
    """A resourceVersion parameter as a number; 0 when unset.

    Raises BadRequest when it is not a decimal number.
    """
    if not text:
        return 0
    if text.isascii() and text.isdigit():
        return int(text)
    error = invalid("resourceVersion", text, f'strconv.ParseUint: parsing "{text}": invalid syntax')
    raise BadRequest(f"invalid resource version: {error}")


def object_revision(text: str) -> int:
    """metadata.resourceVersion of an object as a number; 0 when unset."""
    if not text:
        return 0
    if text.isascii() and text.isdigit():
        return int(text)
    raise ApiError(f'strconv.ParseUint: parsing "{text}": invalid syntax')


@lru_cache(maxsize=1024)
def manager_of_agent(user_agent: str) -> str:
    """The field manager of a client that names none: its user agent up to the first slash."""
    head = user_agent.split("/", 1)[0]
    return "".join(c for c in head if c.isprintable())[:MAX_FIELD_MANAGER]


def _dry_run_errors(values: list[str]) -> list[FieldError]:
    return [] if all(value == "All" for value in values) else [unsupported("dryRun", values, ["All"])]


def _manager_errors(manager: str) -> list[FieldError]:
    errors = []
    if len(manager.encode()) > MAX_FIELD_MANAGER:
        errors.append(too_long("fieldManager", MAX_FIELD_MANAGER))
    for at, char in enumerate(manager):
        if not char.isprintable():
            text = f"invalid character U+{ord(char):04X} (at position {at})"
            errors.append(invalid("fieldManager", manager, text))
    return errors


def _refuse(kind: str, errors: list[FieldError]) -> None:
    if errors:
        raise Invalid.of(META_GROUP, kind, "", errors)


def write_options(
    call: Call, kind: Literal["CreateOptions", "UpdateOptions", "PatchOptions"]
) -> WriteOptions:
    """The options of a write. Raises Invalid naming `<kind>.meta.k8s.io`."""
    params = call.params
    agent = manager_of_agent(call.request.header("user-agent"))
    if not params:
        return WriteOptions(agent)
    errors: list[FieldError] = []
    dry_run = call.repeated.get("dryRun") or ([params["dryRun"]] if params.get("dryRun") else [])
    manager, validation = params.get("fieldManager", ""), params.get("fieldValidation", "")
    errors += _dry_run_errors([value for value in dry_run if value])
    errors += _manager_errors(manager)
    if validation not in _FIELD_VALIDATIONS:
        errors.append(unsupported("fieldValidation", validation, sorted(_FIELD_VALIDATIONS)))
    _refuse(kind, errors)
    return WriteOptions(
        manager=manager or agent,
        given_manager=manager,
        field_validation=_FIELD_VALIDATIONS[validation],
        dry_run=any(dry_run),
        force=flag(params["force"]) if "force" in params else None,
    )


def _delete_errors(options: Mapping[str, Any]) -> list[FieldError]:
    errors: list[FieldError] = []
    propagation, orphan = options.get("propagationPolicy"), options.get("orphanDependents")
    if propagation is not None and orphan is not None:
        text = "orphanDependents and deletionPropagation cannot be both set"
        errors.append(invalid("propagationPolicy", propagation, text))
    if propagation is not None and propagation not in _PROPAGATIONS:
        errors.append(unsupported("propagationPolicy", propagation, [*_PROPAGATIONS, "nil"]))
    return errors + _dry_run_errors(list(options.get("dryRun") or ()))


def delete_options(body: Mapping[str, Any]) -> DeleteOptions:
    """From a DeleteOptions document. Raises Invalid.

    A negative grace period counts as one second. Source: apiserver/pkg/registry/rest/delete.go.
    """
    _refuse("DeleteOptions", _delete_errors(body))
    preconditions = body.get("preconditions") or {}
    grace = body.get("gracePeriodSeconds")
    return DeleteOptions(
        grace_s=1 if grace is not None and grace < 0 else grace,
        propagation=body.get("propagationPolicy"),
        orphan_dependents=body.get("orphanDependents"),
        uid=preconditions.get("uid"),
        resource_version=preconditions.get("resourceVersion"),
        dry_run=bool(body.get("dryRun")),
    )


def delete_parameters(params: Mapping[str, str]) -> dict[str, Any]:
    """The DeleteOptions document that query parameters describe."""
    body: dict[str, Any] = {}
    if params.get("gracePeriodSeconds"):
        body["gracePeriodSeconds"] = integer(params["gracePeriodSeconds"])
    if "orphanDependents" in params:
        body["orphanDependents"] = flag(params["orphanDependents"])
    if params.get("propagationPolicy"):
        body["propagationPolicy"] = params["propagationPolicy"]
    if params.get("dryRun"):
        body["dryRun"] = [params["dryRun"]]
    return body


def _list_errors(options: Mapping[str, str], match: str) -> list[FieldError]:
    path, errors = "resourceVersionMatch", []
    rv = options.get("resourceVersion", "")
    if match and not rv:
        errors.append(forbidden(path, "resourceVersionMatch is forbidden unless resourceVersion is provided"))
    if match and options.get("continue"):
        errors.append(forbidden(path, "resourceVersionMatch is forbidden when continue is provided"))
    if match not in ("", "Exact", "NotOlderThan"):
        errors.append(unsupported(path, match, ["Exact", "NotOlderThan", ""]))
    if match == "Exact" and rv == "0":
        errors.append(forbidden(path, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
    if "sendInitialEvents" in options:
        errors.append(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    return errors


def _watch_errors(options: Mapping[str, str], match: str) -> list[FieldError]:
    path, errors = "resourceVersionMatch", []
    initial = "sendInitialEvents" in options
    if match and not initial:
        errors.append(
            forbidden(
                path, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            )
        )
    if initial and match != "NotOlderThan":
        errors.append(
            forbidden(path, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
        )
        if match:
            errors.append(unsupported(path, match, ["NotOlderThan"]))
    if options.get("continue"):
        errors.append(forbidden("continue", "continue is forbidden for watch"))
    return errors


def list_options(call: Call, *, watch: bool) -> ListOptions:
    """The options of a list or watch. Raises Invalid naming `ListOptions.meta.k8s.io`, or BadRequest."""
    params = call.params
    if not params:
        return ListOptions()
    match = params.get("resourceVersionMatch", "")
    _refuse("ListOptions", (_watch_errors if watch else _list_errors)(params, match))
    return ListOptions(
        label_selector=params.get("labelSelector", ""),
        field_selector=params.get("fieldSelector", ""),
        limit=max(0, integer(params["limit"])) if params.get("limit") else 0,
        continue_token=params.get("continue", ""),
        resource_version=params.get("resourceVersion", ""),
        match=match,  # type: ignore[arg-type]  # checked above
        timeout_s=max(0, integer(params["timeoutSeconds"])) if params.get("timeoutSeconds") else 0,
        bookmarks=flag(params.get("allowWatchBookmarks")),
        send_initial_events=flag(params["sendInitialEvents"]) if "sendInitialEvents" in params else None,
    )
