"""What the workload kinds of apps and batch share: selectors, rolling updates, warnings."""

from __future__ import annotations

from typing import Any

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors, Json
from kcp.apis.core.pod_warnings import template_warnings
from kcp.apis.core.strategies import metadata_of, spec_of
from kcp.machinery.errors import invalid, required
from kcp.machinery.intstr import validate_int_or_percent
from kcp.machinery.labels import Selector, SelectorError, from_label_selector
from kcp.machinery.names import is_dns1123_label, is_percent


def selector_of(errors: Errors, spec: Json, owner: str, bad_selector: str = "") -> Selector | None:
    """Check the required selector of a workload; None when no Selector can be made of it."""
    found = spec.get("selector")
    if found is None:
        errors.append(required("spec.selector"))
    else:
        checks.label_selector(errors, found, "spec.selector")
        if not found.get("matchLabels") and not found.get("matchExpressions"):
            text = f"empty selector is invalid for {owner}"
            errors.append(invalid("spec.selector", found, text))
    try:
        return from_label_selector(found)
    except SelectorError:
        errors.append(invalid("spec.selector", found, bad_selector))
        return None


def int_or_percent(errors: Errors, value: Any, path: str) -> int:
    """Check a number or percentage; gives the plain number in it."""
    value = 0 if value is None else value
    errors.extend(validate_int_or_percent(value, path))
    return plain_number(value)


def plain_number(value: Any) -> int:
    """The number of `5` or `"25%"`; 0 for anything malformed."""
    if isinstance(value, str):
        return int(value[:-1]) if not is_percent(value) else 0
    return int(value or 0)


def not_decremented(errors: Errors, new: Json, old: Json) -> None:
    """collisionCount of a status."""
    value = new.get("collisionCount")
    if checks.decremented(value, old.get("collisionCount")):
        errors.append(invalid("status.collisionCount", value or 0, "cannot be decremented"))


def name_warnings(obj: Json) -> list[str]:
    faults = is_dns1123_label(metadata_of(obj).get("name") or "")
    if not faults:
        return []
    return [
        "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS "
        f"label is recommended: [{' '.join(faults)}]"
    ]


def workload_warnings(new: Json, old: Json | None) -> list[str]:
    """Of the name on create, of the template whenever the spec changes."""
    if old is not None and spec_of(new) == spec_of(old):
        return []
    found = name_warnings(new) if old is None else []
    return found + template_warnings(spec_of(new).get("template"), "spec.template")
